"""The load driver: drives a running TaskFlow over HTTP, within bounds, and says how it did."""

import asyncio
import ipaddress
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

MOST_SECONDS: Final = 3600.0
MOST_CONCURRENCY: Final = 1000
REQUEST_TIMEOUT_SECONDS: Final = 30.0
OVERALL: Final = "all"


class LoadError(Exception):
    """The load cannot be driven as asked: a refused address, an unreachable or empty service."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one operation (or `all` of them) took; times in milliseconds."""

    operation: str
    requests: int
    errors: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The outcome of a load: overall throughput, one row an operation, and each error's count."""

    scenario: str
    concurrency: int
    seconds: float
    requests: int
    errors: int
    requests_per_second: float
    operations: list[Timing]
    error_counts: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)

    def as_table(self) -> str:
        """The same for people, one line an operation."""
        lines = [
            f"{self.requests} requests in {self.seconds:.1f} s = {self.requests_per_second:.0f} a second, "
            f"{self.errors} errors (scenario {self.scenario}, {self.concurrency} at a time)",
            "",
            f"{'operation':<12}{'requests':>10}{'errors':>8}"
            + "".join(f"{name:>10}" for name in ("p50 ms", "p95 ms", "p99 ms", "max ms")),
        ]
        lines += [
            f"{row.operation:<12}{row.requests:>10}{row.errors:>8}"
            f"{row.p50_ms:>10.1f}{row.p95_ms:>10.1f}{row.p99_ms:>10.1f}{row.max_ms:>10.1f}"
            for row in self.operations
        ]
        lines += [f"{count:>6} × {error}" for error, count in sorted(self.error_counts.items())]
        return "\n".join(lines)


@dataclass(slots=True)
class _Tally:
    """Latencies and errors while the load runs."""

    latencies_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def report(self, scenario: str, concurrency: int, seconds: float) -> LoadReport:
        everything = [latency for latencies in self.latencies_ms.values() for latency in latencies]
        rows = [
            _timing(operation, latencies, self.failed[operation])
            for operation, latencies in sorted(self.latencies_ms.items())
        ]
        failures = self.failed.total()
        return LoadReport(
            scenario=scenario,
            concurrency=concurrency,
            seconds=round(seconds, 3),
            requests=len(everything),
            errors=failures,
            requests_per_second=round(len(everything) / seconds, 1) if seconds else 0.0,
            operations=[*rows, _timing(OVERALL, everything, failures)],
            error_counts=dict(self.errors),
        )


class _Worker:
    """One simulated client: it works on tasks of its own, so that every request ought to succeed."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        tally: _Tally,
        chance: random.Random,
        projects: list[int],
        users: list[int],
    ) -> None:
        self._client = client
        self._tally = tally
        self._chance = chance
        self._projects = projects
        self._users = users
        self._unfinished: list[tuple[int, str]] = []

    async def create(self) -> None:
        created = await self._send(
            "create",
            "POST",
            "/tasks",
            json={"project_id": self._chance.choice(self._projects), "title": "A task under load"},
        )
        if created is not None and len(self._unfinished) < 100:
            self._unfinished.append((created["id"], "assign"))

    async def advance(self) -> None:
        if not self._unfinished:
            return await self.create()
        task_id, step = self._unfinished.pop(0)
        body = {"assignee_id": self._chance.choice(self._users)} if step == "assign" else None
        if await self._send(step, "POST", f"/tasks/{task_id}/{step}", json=body) is not None:
            following = {"assign": "start", "start": "complete"}.get(step)
            if following:
                self._unfinished.append((task_id, following))
        return None

    async def list_tasks(self) -> None:
        await self._send("list", "GET", f"/tasks?project_id={self._chance.choice(self._projects)}&limit=20")

    async def dashboard(self) -> None:
        await self._send("dashboard", "GET", f"/projects/{self._chance.choice(self._projects)}/dashboard")

    async def _send(
        self, operation: str, method: str, path: str, json: object = None
    ) -> dict[str, Any] | None:
        began = time.perf_counter()
        error: str | None = None
        answer: dict[str, Any] | None = None
        try:
            response = await self._client.request(method, path, json=json)
            if response.is_success:
                answer = response.json()
            else:
                error = f"{operation}: HTTP {response.status_code}"
        except httpx2.HTTPError as failure:
            error = f"{operation}: {type(failure).__name__}"
        self._tally.latencies_ms[operation].append((time.perf_counter() - began) * 1000)
        if error is not None:
            self._tally.failed[operation] += 1
            self._tally.errors[error] += 1
            # A service that is away refuses at once; hammering it would only burn the CPU.
            await asyncio.sleep(0.05)
        return answer


Step = Callable[[_Worker], Awaitable[None]]

SCENARIOS: Final[dict[str, dict[Step, int]]] = {
    "steady": {_Worker.create: 25, _Worker.advance: 40, _Worker.list_tasks: 25, _Worker.dashboard: 10},
    "dashboard": {_Worker.create: 50, _Worker.dashboard: 50},
    "create": {_Worker.create: 100},
}


async def drive(
    url: str,
    seconds: float,
    concurrency: int = 8,
    scenario: str = "steady",
    requests: int | None = None,
    allow_remote: bool = False,
    random_seed: int = 1,
    stop: asyncio.Event | None = None,
) -> LoadReport:
    """Drive the TaskFlow at `url` for `seconds`, or until about `requests` were sent.

    `concurrency` simulated clients each send one request at a time, chosen by the weights of
    `scenario`. Setting `stop` ends the load early. LoadError for addresses other than loopback unless
    `allow_remote`, for bounds out of range, for a service that cannot be reached or has no data.
    """
    _check(url, seconds, concurrency, scenario, requests, allow_remote)
    tally = _Tally()
    left = requests if requests is not None else float("inf")
    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    # trust_env off: a proxy set for the outside world must not see loopback traffic.
    async with httpx2.AsyncClient(
        base_url=url.rstrip("/"), timeout=REQUEST_TIMEOUT_SECONDS, limits=limits, trust_env=False
    ) as client:
        projects, users = await _identities(client, "/projects"), await _identities(client, "/users")
        steps, weights = list(SCENARIOS[scenario]), list(SCENARIOS[scenario].values())
        began = time.perf_counter()

        async def work(number: int) -> None:
            nonlocal left
            chance = random.Random(f"{random_seed}/{number}")
            worker = _Worker(client, tally, chance, projects, users)
            while left > 0 and time.perf_counter() - began < seconds and not (stop and stop.is_set()):
                left -= 1
                [step] = chance.choices(steps, weights)
                await step(worker)

        async with asyncio.TaskGroup() as workers:
            for number in range(concurrency):
                workers.create_task(work(number), name=f"client {number}")
        return tally.report(scenario, concurrency, time.perf_counter() - began)


def _check(
    url: str, seconds: float, concurrency: int, scenario: str, requests: int | None, allow_remote: bool
) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise LoadError(f"{url} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LoadError(f"{url} is not an HTTP address; an example: http://127.0.0.1:8000")
    if not allow_remote and not _is_loopback(parts.hostname):
        raise LoadError(f"{parts.hostname} is not this machine; --allow-remote if the load is welcome there")
    if not 0 < seconds <= MOST_SECONDS:
        raise LoadError(f"a load lasts more than 0 and at most {MOST_SECONDS:.0f} seconds")
    if not 1 <= concurrency <= MOST_CONCURRENCY:
        raise LoadError(f"the concurrency is between 1 and {MOST_CONCURRENCY}")
    if requests is not None and requests < 1:
        raise LoadError("at least one request has to be sent")
    if scenario not in SCENARIOS:
        raise LoadError(f"unknown scenario {scenario}; known: {', '.join(SCENARIOS)}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _identities(client: httpx2.AsyncClient, path: str) -> list[int]:
    try:
        response = await client.get(path, params={"limit": 200})
        response.raise_for_status()
        found = [item["id"] for item in response.json()["items"]]
    except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"no TaskFlow answers at {client.base_url}: {error}") from error
    if not found:
        raise LoadError(
            f"the service has no {path.strip('/')}; run `python -m taskflow seed` on its database first"
        )
    return found


def _timing(operation: str, latencies_ms: Sequence[float], errors: int) -> Timing:
    ordered = sorted(latencies_ms)

    def percentile(percent: float) -> float:
        """The nearest-rank percentile: a latency that really occurred."""
        return round(ordered[max(0, ceil(len(ordered) * percent / 100) - 1)], 3) if ordered else 0.0

    return Timing(
        operation, len(ordered), errors, percentile(50), percentile(95), percentile(99), percentile(100)
    )
