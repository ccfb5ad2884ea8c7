"""Tasks of asyncio: created by whom, ended, awaited by whom; its futures, and callbacks from other threads.

A task's end is seen by a done callback that is there before any other, so that whoever waits for the task is still
suspended when it runs: what it waits for tells whether the task's end is what it waited for.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import weakref
from collections.abc import Callable, Generator
from itertools import islice
from types import ModuleType
from typing import Any

from pyscope import emitter
from pyscope.events.sync import TASK, Channel, TaskStep
from pyscope.probes.clients import fault
from pyscope.probes.patches import Patches
from pyscope.probes.sync import strands
from pyscope.probes.sync.callers import in_standard_library
from pyscope.probes.sync.signals import give, take

__all__ = ["patch", "patch_uvloop"]

MOST_WAITERS = 8  # callbacks looked at behind our own
MOST_AWAITS = 50  # of a chain of coroutines

_JOINING = {
    "wait",
    "_wait",
    "wait_for",
    "_wait_for_one",
    "__aexit__",
    "__await__",
    "_aexit",
    "staggered_race",
}
_WHERE = (asyncio.tasks.__file__, sys.modules["asyncio.taskgroups"].__file__)


def patch(patches: Patches) -> None:
    """Replaces methods of asyncio's event loop."""
    loop = asyncio.BaseEventLoop
    patches.replace(loop, "create_task", functools.partial(_create_task, patches))
    patches.replace(loop, "create_future", functools.partial(_create_future, patches))
    patches.replace(loop, "call_soon_threadsafe", functools.partial(_call_soon_threadsafe, patches))
    patches.replace(loop, "_run_once", functools.partial(_run_once, patches))


def patch_uvloop(patches: Patches, library: ModuleType) -> None:
    """Replaces methods of uvloop's event loop. It has no passes to count."""
    loop = library.Loop
    patches.replace(loop, "create_task", functools.partial(_create_task, patches))
    patches.replace(loop, "create_future", functools.partial(_create_future, patches))
    patches.replace(loop, "call_soon_threadsafe", functools.partial(_call_soon_threadsafe, patches))


def _create_task(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def create_task(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not patches.on or not emitter.active():
            return original(self, *args, **kwargs)
        creator = _creator()
        if self.get_task_factory() is None and not kwargs.get("eager_start"):
            task = original(self, *args, **kwargs)
            _created(task, creator)
            return task
        with strands.reserved(_announced(creator)):  # it may run before this returns
            task = original(self, *args, **kwargs)
            _created(task, creator, announced=True)
        return task

    return create_task


def _creator() -> int:
    try:
        return strands.task_in_hand()
    except Exception:
        fault("sync")
        return 0


def _announced(creator: int) -> int:
    """The number of a task to come."""
    try:
        number = emitter.next_id()
        emitter.emit(TASK.kind, int(TaskStep.CREATED), number, creator, 0, "")
        return number
    except Exception:
        fault("sync")
        return 0


def _created(task: Any, creator: int, *, announced: bool = False) -> None:
    try:
        if announced and not isinstance(task, asyncio.Future):
            return
        number = strands.number_of(task)
        if not announced:
            emitter.emit(TASK.kind, int(TaskStep.CREATED), number, creator, 0, _name_of(task))
        task.add_done_callback(_End(number, creator))
    except Exception:
        fault("sync")


def _name_of(task: Any) -> str:
    if type(task) is not asyncio.Task:
        return ""
    name = task.get_name()
    return name if type(name) is str else ""


class _End:
    """The done callback of one task."""

    __slots__ = ("_creator", "_creator_task", "_number")

    def __init__(self, number: int, creator: int) -> None:
        self._number = number
        self._creator = creator
        task = strands.current_task() if creator else None
        self._creator_task = weakref.ref(task) if task is not None else None

    def __call__(self, task: Any) -> None:
        try:
            self._tell(task)
        except Exception:
            fault("sync")
        strands.forget(task)

    def _tell(self, task: Any) -> None:
        number = self._number
        outcome = "returned"
        if task.cancelled():
            outcome = "cancelled"
        elif getattr(task, "_exception", None) is not None:  # exception() would mark it as seen
            outcome = "raised"
        emitter.emit(TASK.kind, int(TaskStep.ENDED), number, self._creator, emitter.intern(outcome), "")
        joined = set()
        creator = self._creator_task() if self._creator_task is not None else None
        if creator is not None and _waits_for(creator, task):
            joined.add(self._creator)
        ready = getattr(task.get_loop(), "_ready", None)
        if ready is not None:
            for handle in islice(ready, MOST_WAITERS):
                waiter = getattr(getattr(handle, "_callback", None), "__self__", None)
                if isinstance(waiter, asyncio.Task) and getattr(waiter, "_fut_waiter", None) is task:
                    joined.add(strands.number_of(waiter))
        for waiter_number in joined:
            emitter.emit(TASK.kind, int(TaskStep.JOINED), number, waiter_number, 0, "")


def _waits_for(waiter: Any, task: Any) -> bool:
    """Whether a task is suspended until `task` ends, through asyncio's own ways to wait as well."""
    future = getattr(waiter, "_fut_waiter", None)
    if future is None:
        return False
    if future is task or task in getattr(future, "_children", ()):
        return True
    awaited = waiter.get_coro()
    for _ in range(MOST_AWAITS):
        code = getattr(awaited, "cr_code", None) or getattr(awaited, "gi_code", None)
        if code is None:
            return False
        if code.co_filename in _WHERE and code.co_name in _JOINING:
            return True
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
        if awaited is None:
            return False
    return False


class _Future(asyncio.Future[Any]):
    """A future of the program's own: who sets it happens before who awaits it."""

    def set_result(self, result: Any, /) -> None:
        give(id(self), Channel.FUTURE)
        super().set_result(result)

    def set_exception(self, exception: Any, /) -> None:
        give(id(self), Channel.FUTURE)
        super().set_exception(exception)

    def result(self) -> Any:
        value = super().result()
        take(id(self), Channel.FUTURE)
        return value

    def done(self) -> bool:
        answer = super().done()
        if answer:
            take(id(self), Channel.FUTURE)
        return answer

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from super().__await__())
        finally:
            take(id(self), Channel.FUTURE)

    __iter__ = __await__


_Future.__name__ = _Future.__qualname__ = "Future"
_Future.__module__ = asyncio.Future.__module__


def _create_future(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def create_future(self: Any) -> Any:
        if not patches.on or not emitter.active() or in_standard_library(sys._getframe(1)):
            return original(self)
        return _Future(loop=self)

    return create_future


def _call_soon_threadsafe(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call_soon_threadsafe(self: Any, *args: Any, **kwargs: Any) -> Any:
        if patches.on:
            give(id(self), Channel.LOOP)
        return original(self, *args, **kwargs)

    return call_soon_threadsafe


def _run_once(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def _run_once(self: Any, *args: Any) -> None:
        if patches.on and strands.next_step(self):
            take(id(self), Channel.LOOP)
        original(self, *args)

    return _run_once
