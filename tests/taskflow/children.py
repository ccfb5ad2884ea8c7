"""Actors for the tests of supervision, which note their own lives and fail on demand."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from taskflow.supervision import ChildSpec, SupervisedActor, SupervisorEvent

PATIENCE_SECONDS = 60.0


class Diary:
    """What the children did, in order, as (name, "start" | "stop"), and how many starts are to fail."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []
        self.failing_starts: Counter[str] = Counter()
        self.made: list[Child] = []

    def spec(self, name: str, **options: Any) -> ChildSpec:
        """A child that writes here."""
        return ChildSpec(name, lambda: Child(name, self), **options)


class Child(SupervisedActor):
    """Told "crash" it raises, told a callable it calls it."""

    def __init__(self, name: str, diary: Diary) -> None:
        super().__init__()
        self.name = self.label = name
        self.diary = diary
        diary.made.append(self)

    def on_start(self) -> None:
        self.diary.entries.append((self.name, "start"))
        if self.diary.failing_starts[self.name] > 0:
            self.diary.failing_starts[self.name] -= 1
            raise OSError(f"{self.name} has nothing to work with")

    def on_receive(self, message: Any) -> Any:
        if message == "crash":
            raise RuntimeError(f"{self.name} crashed")
        return message() if callable(message) else message

    def on_stop(self) -> None:
        self.diary.entries.append((self.name, "stop"))


class Recorder:
    """A listener that keeps every event."""

    def __init__(self) -> None:
        self.events: list[SupervisorEvent] = []

    def on_event(self, event: SupervisorEvent) -> None:
        self.events.append(event)

    @property
    def told(self) -> list[tuple[str, str]]:
        """The events as (kind, child)."""
        return [(event.kind.value, event.child) for event in self.events]


class Stuck:
    """A handler that waits until it is released, or for ever; `entered` tells that it does."""

    def __init__(self) -> None:
        self.entered = Event()
        self.released = Event()

    def __call__(self) -> None:
        self.entered.set()
        self.released.wait()


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for `condition`; fails after a minute."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.002)


@contextmanager
def no_threads_left() -> Iterator[None]:
    """Whatever threads the block starts are gone soon after it."""
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before)
