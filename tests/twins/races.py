"""A pair of programs for a race, what is to be found in the faulty one, and how to run and record either.

A program gets a `Stage`: it watches objects, and forces who comes first by means that the probes do not see.
"""

from __future__ import annotations

import _thread
import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyscope
from pyscope import probes
from pyscope.analysis import races
from pyscope.events.sync import ACCESS
from pyscope.findings import Race
from pyscope.probes.accesses import AccessProbe

Watched = TypeVar("Watched")
Program = Callable[["Stage"], Any]

PATIENCE = 60.0  # seconds until the other one is given up
SHORT_PATIENCE = 0.03  # in programs that are right, where it often cannot get on meanwhile


@dataclass(frozen=True)
class RaceCase:
    """Two programs for one purpose. `expected`: kind, subject and grade of the race in the faulty one."""

    name: str
    faulty: Program
    fixed: Program
    expected: tuple[str, str, str]


class Stage:
    """Where a program plays."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._go = _Latch()
        self._done = _Latch()
        self._first = 0

    def watch(self, instance: Watched) -> Watched:
        """Declares an object."""
        probe = probes.installed("accesses")
        assert isinstance(probe, AccessProbe)
        assert probe.watch(instance)
        return instance

    def together(self, first: Callable[[], object], second: Callable[[], object]) -> None:
        """Runs both on threads; the second does not begin before the first pauses, or has ended."""
        errors: list[BaseException] = []

        def run_first() -> None:
            self._first = threading.get_ident()
            try:
                first()
            except BaseException as error:
                errors.append(error)
            finally:
                self._go.open()

        def run_second() -> None:
            self._go.wait()
            try:
                second()
            except BaseException as error:
                errors.append(error)
            finally:
                self._done.open()

        threads = [threading.Thread(target=target) for target in (run_first, run_second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def pause(self) -> None:
        """Lets the second one run to its end, or as far as it gets. Called by the second one it does nothing."""
        if threading.get_ident() == self._first:
            self._go.open()
            self._done.wait(self._patience)

    def run(self, *coroutines: Coroutine[Any, Any, Any]) -> None:
        """Runs tasks of an event loop of their own, begun in this order."""

        async def main() -> None:
            await asyncio.gather(*coroutines)

        asyncio.run(main())


class _Latch:
    """Open for good once it is opened. Of a lock that nobody sees."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()
        self._closed = [True]

    def open(self) -> None:
        if self._closed:
            self._closed.pop()
            self._lock.release()

    def wait(self, timeout: float = -1) -> None:
        if self._lock.acquire(timeout=timeout):
            self._lock.release()


def recorded(program: Program, path: Path, patience: float = PATIENCE) -> list[Race]:
    """The races of a program's run."""
    with pyscope.record(path, modules=["tests.twins.*"], probes=["sync", "accesses"], ring_mb=4):
        stage = Stage(patience)
        if inspect.iscoroutinefunction(program):
            asyncio.run(program(stage))
        else:
            program(stage)
    trace = pyscope.load(path)
    assert len(trace.probe_events(ACCESS)), "nothing was watched"
    return races.find(trace)
