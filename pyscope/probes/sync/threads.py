"""Threads: started by whom, begun, ended, joined by whom. And what executors are given to do, and what comes of it."""

from __future__ import annotations

import concurrent.futures
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import thread as executors
from time import perf_counter_ns
from typing import Any

from pyscope import emitter
from pyscope.events.sync import THREAD, Channel, ThreadStep
from pyscope.probes.clients import fault
from pyscope.probes.patches import Patches
from pyscope.probes.sync.signals import give, take
from pyscope.probes.sync.strands import task_in_hand

__all__ = ["patch"]


def patch(patches: Patches) -> None:
    """Replaces methods of threads, futures and executors' work items, and the functions that wait for futures."""
    thread = threading.Thread
    is_alive = thread.is_alive
    for name, make in (
        ("start", _start),
        ("_bootstrap_inner", _bootstrap_inner),
        ("join", functools.partial(_join, is_alive=is_alive)),
        ("is_alive", _is_alive),
    ):
        patches.replace(thread, name, functools.partial(make, patches))
    # Work is handed over in the item's constructor: a worker may have done it before submit returns.
    item = getattr(executors, "_WorkItem", None)
    if item is not None:
        patches.replace(item, "__init__", functools.partial(_item_init, patches))
        patches.replace(item, "run", functools.partial(_item_run, patches))
    future = concurrent.futures.Future
    for name in ("set_result", "set_exception"):
        patches.replace(future, name, functools.partial(_future_set, patches))
    for name in ("result", "exception"):
        patches.replace(future, name, functools.partial(_future_get, patches))
    patches.replace(future, "done", functools.partial(_future_done, patches))
    patches.replace(future, "add_done_callback", functools.partial(_add_done_callback, patches))
    for owner in (concurrent.futures, concurrent.futures._base):
        patches.replace(owner, "wait", functools.partial(_wait, patches))
        patches.replace(owner, "as_completed", functools.partial(_as_completed, patches))


def _tell(step: ThreadStep, thread: Any) -> None:
    try:
        name = thread.__dict__.get("_name")
        emitter.emit(THREAD.kind, int(step), id(thread), task_in_hand(), name if type(name) is str else "")
    except Exception:
        fault("sync")


def _start(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def start(self: Any) -> None:
        if not patches.on:
            original(self)
            return
        _tell(ThreadStep.STARTED, self)
        begin = _Begin(self, patches)
        try:
            original(self)
        except BaseException:
            begin.remove()
            raise

    return start


class _Begin:
    """Stands for a thread's `run` until the thread calls it: before, the thread has not got its name."""

    def __init__(self, thread: Any, patches: Patches) -> None:
        self._thread = thread
        self._patches = patches
        own = thread.__dict__
        self._before = own.get("run", self)
        own["run"] = self

    def remove(self) -> None:
        """Leaves the thread as it was."""
        own = self._thread.__dict__
        if own.get("run") is self:
            if self._before is self:
                del own["run"]
            else:
                own["run"] = self._before

    def __call__(self) -> None:
        self.remove()
        if self._patches.on:
            _tell(ThreadStep.BEGAN, self._thread)
        self._thread.run()


def _bootstrap_inner(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def _bootstrap_inner(self: Any, *args: Any) -> None:
        original(self, *args)
        if patches.on:
            _tell(ThreadStep.ENDED, self)

    return _bootstrap_inner


def _join(
    patches: Patches, original: Callable[..., None], is_alive: Callable[[Any], bool]
) -> Callable[..., None]:
    @functools.wraps(original)
    def join(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if patches.on and not is_alive(self):
            _tell(ThreadStep.JOINED, self)

    return join


def _is_alive(patches: Patches, original: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(original)
    def is_alive(self: Any) -> bool:
        alive = original(self)
        if not alive and patches.on:
            _tell(ThreadStep.JOINED, self)
        return alive

    return is_alive


def _item_init(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, future: Any, *args: Any, **kwargs: Any) -> None:
        if patches.on:
            give(id(future), Channel.SUBMIT)
        original(self, future, *args, **kwargs)

    return __init__


def _item_run(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def run(self: Any, *args: Any) -> None:  # 3.14 hands it a context
        if patches.on:
            take(id(self.future), Channel.SUBMIT)
        original(self, *args)

    return run


def _future_set(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def method(self: Any, value: Any) -> None:
        if patches.on:
            give(id(self), Channel.FUTURE)
        original(self, value)

    return method


def _future_get(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, timeout: float | None = None) -> Any:
        if not patches.on:
            return original(self, timeout)
        began = perf_counter_ns()
        try:
            return original(self, timeout)
        finally:
            if self._state == "FINISHED":
                take(id(self), Channel.FUTURE, 0, perf_counter_ns() - began)

    return method


def _future_done(patches: Patches, original: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(original)
    def done(self: Any) -> bool:
        answer = original(self)
        if answer and patches.on:
            take(id(self), Channel.FUTURE)
        return answer

    return done


def _add_done_callback(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def add_done_callback(self: Any, fn: Any) -> None:
        finished = self._state == "FINISHED"
        if finished and patches.on:
            take(id(self), Channel.FUTURE)
        original(self, fn)
        if not finished and patches.on and self._state == "FINISHED":  # it has been called here
            take(id(self), Channel.FUTURE)

    return add_done_callback


def _wait(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wait(fs: Any, *args: Any, **kwargs: Any) -> Any:
        answer = original(fs, *args, **kwargs)
        if patches.on:
            for future in answer.done:
                take(id(future), Channel.FUTURE)
        return answer

    return wait


def _as_completed(patches: Patches, original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    @functools.wraps(original)
    def as_completed(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for future in original(*args, **kwargs):
            if patches.on:
                take(id(future), Channel.FUTURE)
            yield future

    return as_completed
