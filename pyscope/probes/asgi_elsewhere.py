"""The CPU time of requests outside of the coroutine that the server awaits: in worker threads, and in other tasks.

Starlette and FastAPI run `def` endpoints in anyio's threads; a program has `asyncio.to_thread` and executors. Their CPU
time is the request's, whose context comes along. Starlette's own tasks, of a streamed answer and below middleware, are
measured as the request's coroutine is, and so are Quart's. Where some other task answers, the CPU time is not known.
"""

from __future__ import annotations

import functools
import inspect
import sys
from asyncio import current_task
from collections.abc import Callable
from contextvars import ContextVar
from time import thread_time_ns
from types import CoroutineType, ModuleType
from typing import Any

from pyscope.probes.clients import fault
from pyscope.probes.patches import Patches
from pyscope.probes.scope import Scope
from pyscope.probes.steps import Steps

__all__ = ["Work", "as_coroutine_function", "in_a_task", "patch", "working"]


class Work(Scope):
    """A request with what it does elsewhere: CPU times, in nanoseconds. `known` is false once a task has answered that
    nobody measures. One object serves for both: of a busy service's requests thousands are alive, at which each full
    garbage collection looks."""

    __slots__ = ("_others", "_task", "known", "spent")

    def __init__(self, name: str) -> None:
        super().__init__("request", name)
        self.cpu_ns = 0  # that of its steps, and of what it does elsewhere
        self._others: tuple[int, ...] = ()  # tasks that are measured
        self.spent: list[int] | None = None  # most requests have none
        self.known = True
        self._task = 0  # the server's
        try:
            self._task = id(current_task())
        except Exception:  # there is none under trio
            pass

    def answers(self) -> None:
        """The task that runs here sends the head of the answer: it is the one that handles the request."""
        try:
            task = id(current_task())
        except Exception:
            return
        if task != self._task and task not in self._others:
            self.known = False

    def begin_task(self) -> int:
        """The task that runs here, to be measured until its end; 0 where one runs that is measured already."""
        try:
            task = id(current_task())
            if task == self._task or task in self._others:
                return 0
            self._others += (task,)
            return task
        except Exception:
            return 0

    def end_task(self, task: int, cpu_ns: int) -> None:
        """A task that had begun took so long."""
        try:
            self._others = tuple(other for other in self._others if other != task)
            self.account().append(cpu_ns)
        except Exception:
            fault("asgi")

    def add_up(self, cpu_ns: int) -> None:
        """Its CPU time: that of its own steps, and of what it did elsewhere; -1 where that is not known."""
        self.cpu_ns = cpu_ns + sum(self.spent or ()) if self.known else -1

    def account(self) -> list[int]:
        """Where to append CPU time, from any thread."""
        if self.spent is None:
            self.spent = []
        return self.spent


working: ContextVar[Work | None] = ContextVar("pyscope_work", default=None)
"""That of the request which runs here."""


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches the one place of a library that makes others do a request's work."""
    match library.__name__:
        case "anyio.to_thread":  # Starlette calls it
            patches.replace(library, "run_sync", _run_sync)
        case "concurrent.futures.thread":  # event loops' executors, asyncio.to_thread and asgiref do
            patches.replace(library.ThreadPoolExecutor, "submit", _submit)
        case "starlette.routing":  # a middleware may call it in a task
            patches.replace(library.Router, "__call__", _in_any_task)
        case "starlette.responses":  # mostly called in a task
            patches.replace(library.StreamingResponse, "stream_response", _in_any_task)


def _run_sync(original: Callable[..., Any]) -> Callable[..., Any]:
    def returning(func: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return original(_job(func), *args, **options)

    async def awaiting(func: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return await original(_job(func), *args, **options)

    return as_coroutine_function(original, returning, awaiting)


def _submit(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return original(self, _job(fn), *args, **kwargs)

    return submit


def _job(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose CPU time is the request's that runs here, if one does."""
    try:
        work = working.get()
        if work is None or type(function) is _Job:  # two probes may have it wrapped
            return function
        return _Job(work, function)
    except Exception:
        fault("asgi")
        return function


class _Job:
    """A function whose CPU time is a request's."""

    __slots__ = ("_function", "_spent")

    def __init__(self, work: Work, function: Callable[..., Any]) -> None:
        self._spent = work.account()
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = thread_time_ns()
        try:
            return self._function(*args, **kwargs)
        finally:
            self._spent.append(thread_time_ns() - began)


def as_coroutine_function(
    original: Callable[..., Any], returning: Callable[..., Any], awaiting: Callable[..., Any]
) -> Callable[..., Any]:
    """What stands for a coroutine function: it returns the coroutine of `original`, or awaits it.

    A coroutine around it costs something at each step; but before 3.12 nothing else is taken for such a function.
    """
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(functools.wraps(original)(returning))
    return functools.wraps(original)(awaiting)


def _in_any_task(original: Callable[..., Any]) -> Callable[..., Any]:
    """The same coroutine method, measured where another task than the request's runs it."""

    def returning(self: Any, *args: Any, **kwargs: Any) -> Any:
        work = working.get()
        coroutine = original(self, *args, **kwargs)
        if work is None or type(coroutine) is not CoroutineType:
            return coroutine
        task = work.begin_task()
        return _measured(work, task, coroutine) if task else coroutine

    return as_coroutine_function(original, returning, in_a_task(original))


def in_a_task(original: Callable[..., Any]) -> Callable[..., Any]:
    """The same for one that is called here, and run by another task."""

    @functools.wraps(original)
    async def awaiting(self: Any, *args: Any, **kwargs: Any) -> Any:
        work = working.get()
        coroutine = original(self, *args, **kwargs)
        if work is None or type(coroutine) is not CoroutineType:
            return await coroutine
        task = work.begin_task()
        return await (_measured(work, task, coroutine) if task else coroutine)

    return awaiting


async def _measured(work: Work, task: int, coroutine: CoroutineType[Any, Any, Any]) -> Any:
    steps = Steps(coroutine)
    try:
        return await steps
    finally:
        work.end_task(task, steps.cpu_ns)
