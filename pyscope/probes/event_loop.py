"""Event loops that do not get their turn, and the call that blocks them.

An event loop spends its life between two states: it waits in its selector, or it runs callbacks. The
selector's `select` is replaced, in the class, to note when the loop comes back from it. A watchdog thread, which
waits without the interpreter's lock and so takes no turn of a program that is on time, looks at loops that have
been busy for a while: which callback runs (the frame of `Handle._run` is the same as at the last look), and where
it stands (`pyscope.probes.frames`). When the loop is back at its selector, it tells itself. A blocking call in C that
keeps the GIL is seen when it lets go.

uvloop has no selector, and nothing that Python could put in between its callbacks. There a timer of the loop's own
comes at every tick, and a loop whose timer is overdue is one that runs callbacks: its passes are not slowed down. How
long is known to half a tick.
"""

from __future__ import annotations

import _thread
import asyncio
import functools
import selectors
import sys
import time
import weakref
from asyncio.base_events import BaseEventLoop
from asyncio.events import Handle
from collections.abc import Callable
from contextvars import Context
from types import CodeType, FrameType
from typing import Any

from pyscope import emitter
from pyscope.events.runtime_health import LOOP_BLOCKED, LOOP_LAG
from pyscope.probes import Probe, on_import
from pyscope.probes.background import Background
from pyscope.probes.frames import current_frames
from pyscope.probes.patches import Patches
from pyscope.probes.steps import LateLoops, LoopTimes, watched_select

__all__ = ["EventLoopProbe"]

BLOCKED_NS = 50_000_000
LAG_NS = 10_000_000
TICK = 0.02  # seconds from look to look
LATE_NS = 20_000_000  # busy for so long, a loop is looked at
HALF_TICK_NS = int(TICK * 0.5e9)  # after a loop's timer, what makes it late has begun after about so long

_RUN: CodeType = Handle._run.__code__
_RUN_ONCE: CodeType = BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]


class _Loop(LoopTimes):  # type: ignore[misc]
    """A loop as the watchdog sees it."""

    __slots__ = (
        "asyncio",
        "begin_ns",
        "looked_ns",
        "number",
        "seen",
        "stacks",
        "task",
        "thread",
    )

    def __init__(self, loop: Any) -> None:
        super().__init__()
        self.asyncio = weakref.ref(loop)
        self.number = emitter.next_id()
        self.thread = _thread.get_ident()
        self.looked_ns = 0  # `run` is the frame of Handle._run then, or what stands for it
        self.begin_ns = 0  # that callback began about then
        self.stacks: dict[int, int] = {}  # where it was seen to be, and how often
        self.task = ""
        self.seen: list[tuple[int, int, int, str]] = []  # blocking callbacks, to be told by the loop itself

    def callback(self, frame: FrameType | None) -> tuple[bool, object]:
        """Whether the loop runs, and what stands for the callback that does; `frame`: where its thread stands."""
        run, runs = None, False
        while frame is not None and not runs:
            if frame.f_code is _RUN and run is None:
                run = frame
            runs = frame.f_code is _RUN_ONCE
            frame = frame.f_back
        return runs, run


class _Beating(_Loop):
    """A loop of uvloop. Its callbacks stand right below the frame of whoever runs it, whose id is `base`."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self.base = 0
        self.context = Context()  # its timer is no request's
        self.timer: Any = None

    def wind(self, running: Any, beat: Callable[[_Beating], None]) -> None:
        """Has the timer come in a tick."""
        self.timer = running.call_later(TICK, beat, self, context=self.context)
        self.busy_ns = time.perf_counter_ns() + HALF_TICK_NS

    def callback(self, frame: FrameType | None) -> tuple[bool, object]:
        running: Any = self.asyncio()
        if running is None or not running.is_running():
            return False, None
        below = None
        while frame is not None and id(frame) != self.base:
            below, frame = frame, frame.f_back
        if frame is None or below is None:
            return True, None
        task = asyncio.current_task(running)
        return True, below if task is None else task  # the frame of a coroutine would keep what is in it


class EventLoopProbe(Probe):
    """Tells of lag and of blocking callbacks."""

    name = "event_loop"

    def __init__(self) -> None:
        super().__init__()
        self._patches = Patches()
        self._loops: dict[int, tuple[Callable[[], object], _Loop | None]] = {}  # by id of the selector
        self._beating: dict[int, _Beating] = {}  # by id of the loop
        self._late_loops = LateLoops()
        self._watchdog = Background(self._watch, self.fault, self._late_loops.ring)

    def install(self) -> None:
        self._patches = Patches()
        self._patches.replace(selectors.DefaultSelector, "select", self._select)
        on_import.call("uvloop", functools.partial(self._of_uvloop, self._patches), self)

    def uninstall(self) -> None:
        self._patches.undo()
        self._watchdog.stop()
        self._loops = {}
        for loop in self._beating.values():
            loop.gone = True
        self._beating = {}

    # In the loop's thread

    def _select(self, original: Callable[..., Any]) -> Callable[..., Any]:
        watched: Callable[..., Any] = watched_select(original, self._loops, self._meet, self._late, LAG_NS)
        return functools.wraps(original)(watched)

    def _meet(self, selector: Any) -> tuple[Callable[[], object], _Loop | None]:
        """A selector for the first time: an event loop's, or somebody else's."""
        if not self._patches.on:
            return _nothing, None
        key, loops = id(selector), self._loops
        try:
            running = asyncio._get_running_loop()
            if running is None or getattr(running, "_selector", None) is not selector:
                return _nothing, None
            loop = _Loop(running)

            def forget(_: object) -> None:
                loop.gone = True
                loops.pop(key, None)

            known = weakref.ref(selector, forget), loop
            loops[key] = known
            self._late_loops.ring()
            self._watchdog.start()
        except (RuntimeError, TypeError):  # the interpreter ends
            return _nothing, None
        except Exception:
            self.fault()
            return _nothing, None
        return known

    def _late(self, loop: _Loop, lag: int, now: int, run: object) -> None:
        """All callbacks of the round are through, which took long. `run`: the one that was looked at last."""
        try:
            emitter.emit(LOOP_LAG.kind, loop.number, lag)
            if run is not None:
                _note(loop, now)
            for duration, samples, stack, task in loop.seen:
                emitter.emit(LOOP_BLOCKED.kind, loop.number, duration, samples, stack, task)
            loop.seen.clear()
            loop.thread = _thread.get_ident()
            if not self._watchdog.alive and self._patches.on:  # in a forked child
                self._watchdog.start()
        except RuntimeError:  # the interpreter ends
            return
        except Exception:
            self.fault()

    # In the thread of a loop of uvloop

    def _of_uvloop(self, patches: Patches) -> None:
        """uvloop is imported."""
        try:
            if patches.on:
                library = sys.modules["uvloop"].Loop
                patches.replace(library, "run_forever", self._run_forever)
                running = asyncio._get_running_loop()
                if isinstance(running, library):
                    self._wind(running)
        except Exception:
            self.fault()

    def _run_forever(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        patches = self._patches

        @functools.wraps(original)
        def run_forever(running: Any) -> None:
            loop = self._wind(running, sys._getframe()) if patches.on else None
            try:
                original(running)
            finally:
                if loop is not None:
                    self._unwind(loop)

        return run_forever

    def _wind(self, running: Any, base: FrameType | None = None) -> _Beating | None:
        """From now on the timer of a loop comes at each tick."""
        try:
            if base is not None and (running.is_running() or running.is_closed()):
                return None  # which is an error of the program's
            key, beating = id(running), self._beating
            loop = beating.get(key)
            if loop is None:
                loop = _Beating(running)
                loop.asyncio = weakref.ref(running, lambda _: beating.pop(key, None))
                beating[key] = loop
            loop.base, loop.thread = id(base), _thread.get_ident()
            loop.wind(running, self._beat)
            self._late_loops.ring()
            self._watchdog.start()
            return loop
        except RuntimeError:  # the interpreter ends
            return None
        except Exception:
            self.fault()
            return None

    def _unwind(self, loop: _Beating) -> None:
        """The loop does not run any more."""
        try:
            self._through(loop)
            timer, loop.timer = loop.timer, None
            if timer is not None:
                timer.cancel()
        except Exception:
            self.fault()

    def _beat(self, loop: _Beating) -> None:
        """The loop's timer has come."""
        try:
            self._through(loop)
            running = loop.asyncio()
            if running is not None and not loop.gone:
                loop.base = id(sys._getframe().f_back)
                loop.wind(running, self._beat)
        except Exception:
            self.fault()

    def _through(self, loop: _Beating) -> None:
        """What may have kept the loop from its timer is over."""
        busy, run, now = loop.busy_ns, loop.run, time.perf_counter_ns()
        loop.busy_ns, loop.run = 0, None
        if busy and now - busy >= LATE_NS and not loop.gone:
            self._late(loop, now - busy, now, run)

    # In the watchdog's

    def _watch(self) -> None:
        while not self._watchdog.stopping:
            loops = [loop for _, loop in list(self._loops.values()) if loop is not None]
            loops += list(self._beating.values())
            if not self._late_loops.wait(loops, LATE_NS, TICK) or not emitter.active():
                continue
            now = time.perf_counter_ns()
            late = [loop for loop in loops if loop.busy_ns and now - loop.busy_ns >= LATE_NS]
            if late:
                frames = current_frames()
                for loop in late:
                    self._look(loop, frames.get(loop.thread), now)
                del frames

    def _look(self, loop: _Loop, frame: FrameType | None, now: int) -> None:
        runs, run = loop.callback(frame)
        busy = loop.busy_ns
        if not runs:  # the loop has ended
            loop.busy_ns, loop.run = 0, None
            return
        if not busy or run is None:
            return
        if run is not loop.run:
            if loop.run is not None:
                _note(loop, loop.looked_ns)
            loop.begin_ns = busy if loop.run is None else max(busy, loop.looked_ns)
            loop.run, loop.stacks, loop.task = run, {}, _task_of(loop)
        loop.looked_ns = now
        stack = emitter.stack(32, frame)
        loop.stacks[stack] = loop.stacks.get(stack, 0) + 1
        if loop.busy_ns != busy:  # it has returned meanwhile
            loop.run = None


def _nothing() -> None:
    return None


def _note(loop: _Loop, end_ns: int) -> None:
    """The callback that was looked at is through."""
    duration = end_ns - loop.begin_ns
    if duration >= BLOCKED_NS:
        stacks = loop.stacks
        most = max(stacks, key=lambda stack: (stack != 0, stacks[stack]), default=0)
        loop.seen.append((duration, sum(stacks.values()), most, loop.task))


def _task_of(loop: _Loop) -> str:
    running = loop.asyncio()
    task = asyncio.current_task(running) if isinstance(running, asyncio.AbstractEventLoop) else None
    return task.get_name() if type(task) is asyncio.Task else ""
