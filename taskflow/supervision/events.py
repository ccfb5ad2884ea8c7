"""What observers of a supervision tree are told."""

import logging
import time
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock
from typing import Protocol

logger = logging.getLogger(__name__)


class EventKind(StrEnum):
    """What happened to a child."""

    CHILD_STARTED = "child_started"
    CHILD_TERMINATED = "child_terminated"
    """It ended by itself, crashed, or failed to start."""
    CHILD_RESTARTED = "child_restarted"
    CHILD_SHUTDOWN = "child_shutdown"
    """Its supervisor ended it."""
    MAX_RESTARTS_EXCEEDED = "max_restarts_exceeded"
    """Its last exit was one too many; the supervisor gives up."""


@dataclass(frozen=True, slots=True)
class SupervisorEvent:
    """One thing that happened under the supervisor named `supervisor` to its child named `child`.

    `reason` is the exit in words, empty for a first start. `restart_count` is how often this child was
    started again so far, failed attempts included; of `max_restarts_exceeded` it is how many restarts
    fell into the supervisor's window, the refused one included. `time_ns` is nanoseconds since the epoch.
    """

    kind: EventKind
    supervisor: str
    child: str
    reason: str = ""
    restart_count: int = 0
    time_ns: int = field(default_factory=time.time_ns)


class Listener(Protocol):
    """Whoever wants to know. It is called in supervisors' threads, several at a time, and must not wait."""

    def on_event(self, event: SupervisorEvent) -> None:
        """Take note of one event."""
        ...


class Listeners:
    """The listeners of one supervisor; a failing one is logged and harms nobody."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._all: tuple[Listener, ...] = ()

    def add(self, listener: Listener) -> None:
        """From now on tell `listener` too."""
        with self._lock:
            self._all += (listener,)

    def remove(self, listener: Listener) -> None:
        """Tell `listener` no more; one that is not there is no error."""
        with self._lock:
            self._all = tuple(other for other in self._all if other is not listener)

    def tell(self, event: SupervisorEvent) -> None:
        """Tell everyone, in the calling thread."""
        for listener in self._all:
            try:
                listener.on_event(event)
            except Exception:
                logger.exception("a listener failed at %s", event)
