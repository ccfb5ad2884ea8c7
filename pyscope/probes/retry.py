"""Retries by tenacity, and by stamina, which is built on it: each attempt, what came of it, and the wait
before the next.

The events say nothing of what is retried but its name; calls to other services that are sent meanwhile carry
the number of the attempt (`attempts.retrying`). Retries of urllib3 and redis are known to the probes of these
clients; a loop written by hand is recognised by the analysis.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from time import perf_counter_ns
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any, ClassVar

from pyscope import emitter
from pyscope.events.external import RETRY_BEGIN, RETRY_END, RETRY_WAIT, AttemptOutcome
from pyscope.probes.attempts import describe, retrying
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches

__all__ = ["RetryProbe", "patch"]

_STATE = "_pyscope_retry"  # on a tenacity.RetryCallState


class RetryProbe(ClientProbe):
    """Watches tenacity and stamina."""

    name = "retry"
    extra = "taskflow"
    adapters: ClassVar = {"tenacity": "pyscope.probes.retry"}


class _Retried:
    """One call of something that is retried."""

    __slots__ = ("before", "group", "library", "name", "outer", "running", "stack", "started")

    def __init__(self, name: str, library: str, stack: int) -> None:
        self.group = emitter.next_id()
        self.name = name
        self.library = library
        self.stack = stack
        self.outer = retrying.get()
        self.before = self.outer
        self.running = 0  # the number of the attempt under way, 0 for none
        self.started = 0


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches iter, which decides what to do next; how a `with attempt:` begins; and how an attempt ends."""
    asynchronous = library.AsyncRetrying

    def make_iter(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def iter(self: Any, retry_state: Any) -> Any:
            do = original(self, retry_state)
            if patches.on:
                _decided(library, retry_state, do)
            return do

        return iter

    def make_async_iter(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def iter(self: Any, retry_state: Any) -> Any:
            do = await original(self, retry_state)
            if patches.on:
                _decided(library, retry_state, do)
            return do

        return iter

    def make_enter(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def __enter__(self: Any) -> Any:
            result = original(self)
            if patches.on:
                _begin(self.retry_state)
            return result

        return __enter__

    def make_aenter(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def __aenter__(self: Any) -> Any:
            result = await original(self)
            if patches.on:
                _begin(self.retry_state)
            return result

        return __aenter__

    def make_result(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def set_result(self: Any, val: Any) -> Any:
            _end(self, None)
            return original(self, val)

        return set_result

    def make_exception(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def set_exception(self: Any, exc_info: Any) -> Any:
            _end(self, exc_info)
            return original(self, exc_info)

        return set_exception

    patches.replace(library.BaseRetrying, "iter", make_iter)
    if "iter" in vars(asynchronous):  # before tenacity 8.3 it has the one of BaseRetrying
        patches.replace(asynchronous, "iter", make_async_iter)
    patches.replace(library.AttemptManager, "__enter__", make_enter)
    patches.replace(library.AttemptManager, "__aenter__", make_aenter)
    patches.replace(library.RetryCallState, "set_result", make_result)
    patches.replace(library.RetryCallState, "set_exception", make_exception)


def _decided(library: ModuleType, state: Any, do: Any) -> None:
    """tenacity has decided to call the function, or to wait."""
    try:
        if isinstance(do, library.DoAttempt):
            if state.fn is not None:
                _begin(state)
        elif isinstance(do, library.DoSleep):
            retried = vars(state).get(_STATE)
            if retried is not None:
                emitter.emit(RETRY_WAIT.kind, retried.group, state.attempt_number, float(do) * 1e9)
    except Exception:
        fault("retry")
        return


def _begin(state: Any) -> None:
    try:
        if not emitter.active():
            return
        own = vars(state)
        retried = own.get(_STATE)
        if retried is None:
            retried = own[_STATE] = _Retried(*_named(state), emitter.stack())
        retried.running = state.attempt_number
        retried.started = perf_counter_ns()
        retried.before = retrying.get()
        retrying.set((retried.group, retried.running))
        emitter.emit(
            RETRY_BEGIN.kind,
            retried.group,
            retried.running,
            *retried.outer,
            emitter.intern(retried.name),
            emitter.intern(retried.library),
            retried.stack,
        )
    except Exception:
        fault("retry")
        return


def _end(state: Any, exc_info: Any) -> None:
    try:
        retried = vars(state).get(_STATE)
        if retried is None or not retried.running:
            return
        number, retried.running = retried.running, 0
        retrying.set(retried.before)
        outcome, error = AttemptOutcome.SUCCEEDED, ""
        if exc_info is not None:
            outcome, error = describe(exc_info[1])
        emitter.emit(
            RETRY_END.kind,
            retried.group,
            number,
            perf_counter_ns() - retried.started,
            int(outcome),
            emitter.intern(error) if error else 0,
        )
    except Exception:
        fault("retry")
        return


def _named(state: Any) -> tuple[str, str]:
    """What is retried, and by which library. stamina hands tenacity no function: its wrapper's frame has it."""
    if state.fn is not None:
        return _name(state.fn), "tenacity"
    frame: FrameType | None = sys._getframe(2)
    for _ in range(6):
        if frame is None:
            break
        if frame.f_globals.get("__name__") == "stamina._core":
            while frame is not None and frame.f_globals.get("__name__") == "stamina._core":
                if "wrapped" in frame.f_code.co_freevars:
                    return _name(frame.f_locals.get("wrapped")), "stamina"
                frame = frame.f_back
            return "", "stamina"
        frame = frame.f_back
    return "", "tenacity"


def _name(function: object) -> str:
    """Of plain functions and methods; what else is callable may have any attributes, and is not asked."""
    for _ in range(8):
        kind = type(function)
        if kind is functools.partial:
            function = function.func  # type: ignore[attr-defined]
        elif kind is MethodType:
            function = function.__func__  # type: ignore[attr-defined]
        elif kind is FunctionType and "__wrapped__" in function.__dict__:
            function = function.__dict__["__wrapped__"]
        else:
            break
    return function.__code__.co_qualname if type(function) is FunctionType else ""
