"""What a load is to be: its bounds, checked before the first request, and its command line."""

import argparse
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

MOST_SECONDS: Final = 3600.0
MOST_CONCURRENCY: Final = 1000
# Each scenario, with how many clients it has unless told otherwise; what they do is in
# `taskflow.load.scenarios`, which this file must not import: Locust patches whatever process it is in.
SCENARIOS: Final = {
    "steady": 8,
    "rush": 1000,
    "reports": 6,
    "chaos": 16,
    "dashboard": 8,
    "create": 8,
}


class LoadError(Exception):
    """The load cannot be driven as asked: a refused address, an unreachable or empty service."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """One load against the TaskFlow at `url`.

    `concurrency` simulated clients each send one request at a time, as `scenario` has it, for at most
    `seconds`, or until `requests` were sent. What the service acknowledged is written to `ledger`.
    """

    url: str
    seconds: float = 10.0
    concurrency: int | None = None
    scenario: str = "steady"
    requests: int | None = None
    allow_remote: bool = False
    random_seed: int = 1
    ledger: Path | None = None

    def check(self) -> None:
        """Raise LoadError for addresses other than loopback unless allowed, and for bounds out of range."""
        host = _host(self.url)
        if not self.allow_remote and not _is_loopback(host):
            raise LoadError(f"{host} is not this machine; --allow-remote if the load is welcome there")
        if not 0 < self.seconds <= MOST_SECONDS:
            raise LoadError(f"a load lasts more than 0 and at most {MOST_SECONDS:.0f} seconds")
        if self.concurrency is not None and not 1 <= self.concurrency <= MOST_CONCURRENCY:
            raise LoadError(f"the concurrency is between 1 and {MOST_CONCURRENCY}")
        if self.requests is not None and self.requests < 1:
            raise LoadError("at least one request has to be sent")
        if self.scenario not in SCENARIOS:
            raise LoadError(f"unknown scenario {self.scenario}; known: {', '.join(SCENARIOS)}")

    @property
    def clients(self) -> int:
        """How many simulated clients there are."""
        return self.concurrency or SCENARIOS[self.scenario]

    def arguments(self) -> list[str]:
        """The command line that stands for this plan; `from_options` reads it back."""
        line = [self.url, "--seconds", str(self.seconds), "--scenario", self.scenario]
        line += ["--random-seed", str(self.random_seed)]
        for name, value in (
            ("--concurrency", self.concurrency), ("--requests", self.requests), ("--ledger", self.ledger)
        ):  # fmt: skip
            if value is not None:
                line += [name, str(value)]
        return [*line, "--allow-remote"] if self.allow_remote else line

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> "LoadPlan":
        """The plan that a parser with `add_arguments` has read."""
        values: dict[str, Any] = {name: getattr(options, name) for name in cls.__dataclass_fields__}
        return cls(**values)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let `parser` read a plan, and how its report is to be printed."""
    parser.add_argument("url", help="for example http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long at most (default 10)")
    parser.add_argument("--concurrency", type=int, help="clients at a time (default: the scenario's own)")
    parser.add_argument("--requests", type=int, help="stop after so many requests")
    parser.add_argument("--scenario", default="steady", help=f"{', '.join(SCENARIOS)} (default steady)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--allow-remote", action="store_true", help="drive a service on another machine")
    parser.add_argument(
        "--random-seed", type=int, default=1, help="what the clients do by chance (default 1)"
    )
    parser.add_argument("--ledger", type=Path, help="write there what was acknowledged; `audit` reads it")


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise LoadError(f"{url} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LoadError(f"{url} is not an HTTP address; an example: http://127.0.0.1:8000")
    return parts.hostname


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
