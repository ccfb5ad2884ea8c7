"""Event loops that do not get their turn, and the call that blocks them.

An event loop spends its life between two states: it waits in its selector, or it runs callbacks. The
selector's `select` is replaced, in the class, to note when the loop comes back from it. A watchdog thread, which
waits without the interpreter's lock and so takes no turn of a program that is on time, looks at loops that have
been busy for a while: which callback runs (the frame of `Handle._run` is the same as at the last look), and where
it stands (`pyscope.probes.frames`). When the loop is back at its selector, it tells itself. A blocking call in C that
keeps the GIL is seen when it lets go.
"""

from __future__ import annotations

import _thread
import asyncio
import functools
import selectors
import time
import weakref
from asyncio.base_events import BaseEventLoop
from asyncio.events import Handle
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from pyscope import emitter
from pyscope.events.runtime_health import LOOP_BLOCKED, LOOP_LAG
from pyscope.probes import Probe
from pyscope.probes.background import Background
from pyscope.probes.frames import current_frames
from pyscope.probes.patches import Patches
from pyscope.probes.steps import LateLoops, LoopTimes, watched_select

__all__ = ["EventLoopProbe"]

BLOCKED_NS = 50_000_000
LAG_NS = 10_000_000
TICK = 0.02  # seconds from look to look
LATE_NS = 20_000_000  # busy for so long, a loop is looked at

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
        self.looked_ns = 0  # `run` is the frame of Handle._run then
        self.begin_ns = 0  # that callback began about then
        self.stacks: dict[int, int] = {}  # where it was seen to be, and how often
        self.task = ""
        self.seen: list[tuple[int, int, int, str]] = []  # blocking callbacks, to be told by the loop itself


class EventLoopProbe(Probe):
    """Tells of lag and of blocking callbacks."""

    name = "event_loop"

    def __init__(self) -> None:
        super().__init__()
        self._patches = Patches()
        self._loops: dict[int, tuple[Callable[[], object], _Loop | None]] = {}  # by id of the selector
        self._late_loops = LateLoops()
        self._watchdog = Background(self._watch, self.fault, self._late_loops.ring)

    def install(self) -> None:
        self._patches = Patches()
        self._patches.replace(selectors.DefaultSelector, "select", self._select)

    def uninstall(self) -> None:
        self._patches.undo()
        self._watchdog.stop()
        self._loops = {}

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

    def _late(self, loop: _Loop, lag: int, now: int, run: FrameType | None) -> None:
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

    # In the watchdog's

    def _watch(self) -> None:
        while not self._watchdog.stopping:
            loops = [loop for _, loop in list(self._loops.values()) if loop is not None]
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
        run, innermost, runs = None, frame, False
        while frame is not None and not runs:
            if frame.f_code is _RUN and run is None:
                run = frame
            runs = frame.f_code is _RUN_ONCE
            frame = frame.f_back
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
        stack = emitter.stack(32, innermost)
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
