"""What probes do at each step of an event loop, where the native recorder is not built (native/hook_steps.pxi)."""

from __future__ import annotations

import _thread
from collections.abc import Callable, Generator
from time import perf_counter_ns, thread_time_ns
from types import CoroutineType, FrameType
from typing import Any, Self, TypeVar

__all__ = ["Entered", "LateLoops", "LoopTimes", "Steps", "entered", "watched_select"]

MOST_LOOKS = 50  # of a wait, before its thread looks around by itself


class Steps:
    """Awaits a coroutine, or what `__await__` of another awaitable returns, and adds up the CPU time of the thread
    while it really runs: `cpu_ns`."""

    __slots__ = ("_awaited", "_send", "cpu_ns")

    def __init__(self, awaited: Any) -> None:
        self._awaited = awaited
        self._send = getattr(awaited, "send", None)
        self.cpu_ns = 0

    def __await__(self) -> Generator[Any, Any, None]:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """Runs until the next suspension, whose awaited object is returned."""
        began = thread_time_ns()
        try:
            return self._send(None) if self._send is not None else next(self._awaited)
        finally:
            self.cpu_ns += thread_time_ns() - began

    def send(self, value: Any) -> Any:
        """As `__next__`, with a value."""
        began = thread_time_ns()
        try:
            return self._awaited.send(value)
        finally:
            self.cpu_ns += thread_time_ns() - began

    def throw(self, *error: Any) -> Any:
        """As `send`, with an exception such as a cancellation."""
        began = thread_time_ns()
        try:
            return self._awaited.throw(*error)
        finally:
            self.cpu_ns += thread_time_ns() - began

    def close(self) -> None:
        """Closes the coroutine where it is suspended."""
        self._awaited.close()

    # A program that asks whether this is a coroutine gets the answer as unwatched, and sees the one that is awaited.

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return CoroutineType

    @property
    def cr_frame(self) -> Any:
        """The frame; None before it has begun and after its end."""
        return _part_of(self._awaited, "cr_frame", "gi_frame")

    @property
    def cr_code(self) -> Any:
        """The code object."""
        return _part_of(self._awaited, "cr_code", "gi_code")

    @property
    def cr_await(self) -> Any:
        """What it waits for."""
        return _part_of(self._awaited, "cr_await", "gi_yieldfrom")

    @property
    def cr_running(self) -> bool:
        """Whether it runs now."""
        return bool(_part_of(self._awaited, "cr_running", "gi_running"))

    @property
    def cr_suspended(self) -> bool:
        """Whether it has begun, and waits."""
        return bool(_part_of(self._awaited, "cr_suspended", "gi_suspended"))


def _part_of(awaited: Any, of_coroutine: str, of_generator: str) -> Any:
    found = getattr(awaited, of_coroutine, None)
    return getattr(awaited, of_generator, None) if found is None else found


_NEW, _ENTERED, _LEFT = range(3)


def _never_begun() -> Generator[None, None, None]:
    yield


class Entered(Steps):
    """Steps with what is to be done around them, in a class derived from this: `enter()` before the first, which
    returns what is awaited, and `leave(error)` after the last, with the exception that ended them or None."""

    __slots__ = ("_stage",)

    def __init__(self) -> None:
        super().__init__(None)
        self._stage = _NEW

    def enter(self) -> Any:
        """Before the first step."""
        raise NotImplementedError

    def leave(self, error: BaseException | None) -> None:
        """After the last one."""

    def __del__(self) -> None:
        self.close()

    def _begin(self) -> None:
        if self._stage == _LEFT:
            raise RuntimeError("cannot reuse already awaited coroutine")
        self._stage = _ENTERED
        try:
            self._awaited = self.enter()
            self._send = getattr(self._awaited, "send", None)
        except BaseException as error:
            self._end(error)
            raise

    def _end(self, error: BaseException | None) -> None:
        self._stage = _LEFT
        self._awaited = self._send = None
        self.leave(error)

    def _step(self, step: Callable[..., Any], *given: Any) -> Any:
        if self._stage != _ENTERED:
            self._begin()
        try:
            return step(*given)
        except StopIteration:
            self._end(None)
            raise
        except BaseException as error:
            self._end(error)
            raise

    def __next__(self) -> Any:
        """Runs until the next suspension, whose awaited object is returned."""
        return self._step(super().__next__)

    def send(self, value: Any) -> Any:
        """As `__next__`, with a value."""
        return self._step(super().send, value)

    def throw(self, *error: Any) -> Any:
        """As `send`, with an exception such as a cancellation; of one that has not begun nothing runs."""
        if self._stage != _ENTERED:
            self._stage = _LEFT
            return _never_begun().throw(*error)
        return self._step(super().throw, *error)

    def close(self) -> None:
        """Closes the coroutine where it is suspended."""
        if self._stage != _ENTERED:
            self._stage = _LEFT
            return
        try:
            super().close()
        finally:
            self._end(GeneratorExit())


_Derived = TypeVar("_Derived", bound=type[Entered])


def entered(derived: _Derived) -> _Derived:
    """A class that is derived from Entered, as it is."""
    return derived


class LoopTimes:
    """Since when an event loop runs callbacks (0: it waits), the frame in which it was last seen to, and whether its
    selector has gone."""

    __slots__ = ("busy_ns", "gone", "run")

    def __init__(self) -> None:
        self.busy_ns = 0
        self.run: FrameType | None = None
        self.gone = False


def watched_select(
    original: Callable[..., Any],
    loops: dict[int, tuple[Any, LoopTimes | None]],
    meet: Callable[[Any], tuple[Any, LoopTimes | None]],
    late: Callable[[Any, int, int, FrameType | None], None],
    lag_ns: int,
) -> Callable[..., Any]:
    """A selector's `select` that notes in `loops[id(selector)][1]` when the loop comes back from it, and tells `late`
    of rounds that took longer than `lag_ns`. `meet` answers for a selector that is not in `loops`; one that has gone is
    taken out of it, and its `gone` set."""
    now = perf_counter_ns

    def select(selector: Any, timeout: float | None = None) -> Any:
        known = loops.get(id(selector))
        if known is None:
            known = meet(selector)
        loop = known[1]
        if loop is None:
            return original(selector, timeout)
        busy = loop.busy_ns
        if busy:
            end = now()
            loop.busy_ns = 0
            run, loop.run = loop.run, None
            if end - busy >= lag_ns:
                late(loop, end - busy, end, run)
        try:
            return original(selector, timeout)
        finally:
            loop.busy_ns = now()

    return select


class LateLoops:
    """Where a thread waits until an event loop is late."""

    __slots__ = ("_bell",)

    def __init__(self) -> None:
        self._bell = _thread.allocate_lock()
        self._bell.acquire()

    def ring(self) -> None:
        """Ends a wait: whoever waits looks around anew."""
        try:
            self._bell.release()
        except RuntimeError:  # rung already
            pass

    def wait(self, loops: list[LoopTimes], late_ns: int, tick: float) -> bool:
        """Looks every `tick` seconds at the `loops`. True once one of them has run callbacks for `late_ns`; False when
        it is rung, or after a while."""
        for _ in range(MOST_LOOKS):
            if self._bell.acquire(timeout=tick):
                return False
            now = perf_counter_ns()
            if any(loop.busy_ns and now - loop.busy_ns >= late_ns for loop in loops):
                return True
        return False
