"""What a report's process and the service say to each other: an order one way, messages the other, as JSON lines.

Apart from the process itself, so that the service does not import what only the process needs.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from taskflow.settings import Settings

SETTINGS: Final = {
    "database_url", "database_pool_size", "faults", "storage_url", "external_retries", "external_call_seconds",
    "external_backoff_seconds", "external_backoff_max_seconds",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Order:
    """What to make: the report `report_id` on `year`, with the part of the service's settings it takes."""

    report_id: int
    year: int
    settings: dict[str, Any]

    @classmethod
    def of(cls, report_id: int, year: int, settings: Settings) -> "Order":
        """The order for a report of this service."""
        return cls(report_id, year, settings.model_dump(mode="json", include=SETTINGS))


@dataclass(frozen=True, slots=True)
class Progress:
    """How much is done, from 0 to 1."""

    done: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The files are stored. What it took: tasks read, seconds of CPU, the most bytes of memory at a time."""

    tasks: int
    cpu_seconds: float
    peak_memory: int


@dataclass(frozen=True, slots=True)
class Failed:
    """There will be no report, for that reason; trying again is of no use."""

    reason: str


Message = Progress | Finished | Failed
_MESSAGES: Final = {kind.__name__: kind for kind in (Progress, Finished, Failed)}


def to_line(message: Message) -> bytes:
    """A message as it goes over the pipe."""
    return json.dumps({type(message).__name__: asdict(message)}).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """The message of a line; ValueError for anything else."""
    try:
        [(name, fields)] = json.loads(line).items()
        message: Message = _MESSAGES[name](**fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a message: {line[:200]!r}") from error
    return message


def file_name(report_id: int, year: int, kind: str) -> str:
    """Where the report is stored; `kind` is html or json."""
    return f"reports/{year}/annual-{year}-{report_id}.{kind}"
