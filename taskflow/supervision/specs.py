"""What a supervisor is told of a child (its specification), and what it tells of its children."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from taskflow.supervision.actor import SupervisedActor

SHUTDOWN_SECONDS: Final = 5.0
START_SECONDS: Final = 30.0


class Restart(StrEnum):
    """When a child that has ended is started again."""

    PERMANENT = "permanent"
    """Always."""
    TRANSIENT = "transient"
    """When it ended abnormally: neither stopped in order nor shut down."""
    TEMPORARY = "temporary"
    """Never; its specification is forgotten as it ends."""


class ChildType(StrEnum):
    """What a child is."""

    WORKER = "worker"
    SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a child is made, kept and ended.

    `factory` makes the actor and does not start it; it is called again for every restart. `shutdown` is
    how many seconds the child may take to end in order before it is killed; "infinity" waits, "kill"
    kills at once. Left out it is 5 s for a worker and "infinity" for a supervisor, whose children may
    need their own time. `start_seconds` bounds the child's `on_start`, None does not.
    """

    name: str
    factory: Callable[[], SupervisedActor]
    restart: Restart = Restart.PERMANENT
    shutdown: float | Literal["infinity", "kill"] | None = None
    type: ChildType = ChildType.WORKER
    start_seconds: float | None = START_SECONDS

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a child has a name")
        # The words of OTP will do as well; an unknown one is a ValueError.
        object.__setattr__(self, "restart", Restart(self.restart))
        object.__setattr__(self, "type", ChildType(self.type))
        if isinstance(self.shutdown, str):
            if self.shutdown not in ("infinity", "kill"):
                raise ValueError(f'shutdown is seconds, "infinity" or "kill", not {self.shutdown!r}')
        elif self.shutdown is not None and self.shutdown < 0:
            raise ValueError("a shutdown takes 0 seconds or more")

    @property
    def kills(self) -> bool:
        """Whether the child is killed without being asked to end."""
        return self.shutdown == "kill"

    @property
    def shutdown_seconds(self) -> float | None:
        """How long the child may take to end; None is for ever."""
        if isinstance(self.shutdown, int | float):
            return self.shutdown
        if self.shutdown is None and self.type is ChildType.WORKER:
            return SHUTDOWN_SECONDS
        return None


class ChildStatus(StrEnum):
    """Where a child stands."""

    RUNNING = "running"
    RESTARTING = "restarting"
    """A restart failed, another will be tried."""
    DOWN = "undefined"
    """It has ended and is not started again by itself; OTP's word."""


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One row of `which_children`. `actor` is None unless the child runs."""

    name: str
    status: ChildStatus
    type: ChildType
    actor: SupervisedActor | None
    restart_count: int


@dataclass(frozen=True, slots=True)
class ChildCounts:
    """The answer of `count_children`: all specifications, running children, and specifications by type."""

    specs: int
    active: int
    supervisors: int
    workers: int
