"""Queues of threads: what was done before an item was put happens before what is done after it was taken."""

from __future__ import annotations

import _queue
import functools
import queue
from collections.abc import Callable
from time import perf_counter_ns
from types import ModuleType
from typing import Any

from pyscope.events.sync import Channel
from pyscope.probes.patches import Patches
from pyscope.probes.sync.callers import caller, in_standard_library
from pyscope.probes.sync.signals import give, take

__all__ = ["TracedSimpleQueue", "patch", "patch_pools"]

RAW: type = queue.SimpleQueue
_POOLS = "multiprocessing.pool"  # hands its threads their work, and the results back, in such queues


class TracedSimpleQueue(RAW):  # type: ignore[misc]
    """A queue.SimpleQueue that tells. Its constructor gives the standard library the original, save its pools."""

    def __new__(cls) -> Any:
        if not cls.patches.on:
            return RAW()
        frame = caller(1)
        if in_standard_library(frame) and frame.f_globals.get("__name__") != _POOLS:
            return RAW()
        return super().__new__(cls)

    patches: Patches

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As the original."""
        give(id(self), Channel.QUEUE, id(item))
        super().put(item, block, timeout)

    def put_nowait(self, item: Any) -> None:
        """As the original."""
        give(id(self), Channel.QUEUE, id(item))
        super().put_nowait(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """As the original."""
        began = perf_counter_ns()
        item = super().get(block, timeout)
        take(id(self), Channel.QUEUE, id(item), perf_counter_ns() - began)
        return item

    def get_nowait(self) -> Any:
        """As the original."""
        item = super().get_nowait()
        take(id(self), Channel.QUEUE, id(item))
        return item


TracedSimpleQueue.__name__ = TracedSimpleQueue.__qualname__ = RAW.__name__
TracedSimpleQueue.__module__ = RAW.__module__


def patch(patches: Patches) -> dict[int, Any]:
    """Replaces methods of queue.Queue, and queue.SimpleQueue. Returns what stands for what."""
    patches.replace(queue.Queue, "put", functools.partial(_put, patches))
    patches.replace(queue.Queue, "get", functools.partial(_get, patches))
    patches.replace(queue.Queue, "task_done", functools.partial(_task_done, patches))
    patches.replace(queue.Queue, "join", functools.partial(_join, patches))
    kind = type(RAW.__name__, (TracedSimpleQueue,), {"patches": patches, "__module__": RAW.__module__})
    for module in (queue, _queue):  # pickle finds the class in the module that its name tells
        patches.replace(module, "SimpleQueue", lambda original: kind)
    return {id(RAW): kind}


def patch_pools(patches: Patches, module: ModuleType) -> None:
    """Replaces methods of the iterator that the `imap` of multiprocessing's pools gives."""
    for kind in (module.IMapIterator, module.IMapUnorderedIterator):
        for name, make in (("_set", _result_set), ("next", _result_taken), ("__next__", _result_taken)):
            if name in vars(kind):
                patches.replace(kind, name, functools.partial(make, patches))


def _result_set(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def _set(self: Any, *args: Any) -> None:
        if patches.on:
            give(id(self), Channel.QUEUE)
        original(self, *args)

    return _set


def _result_taken(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def next(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        finally:
            if patches.on:
                take(id(self), Channel.QUEUE)

    return next


def _put(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def put(self: Any, item: Any, *args: Any, **kwargs: Any) -> None:
        if patches.on:
            give(id(self), Channel.QUEUE, id(item))
        original(self, item, *args, **kwargs)

    return put


def _get(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not patches.on:
            return original(self, *args, **kwargs)
        began = perf_counter_ns()
        item = original(self, *args, **kwargs)
        take(id(self), Channel.QUEUE, id(item), perf_counter_ns() - began)
        return item

    return get


def _task_done(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def task_done(self: Any) -> None:
        if patches.on:
            give(id(self), Channel.QUEUE_DONE)
        original(self)

    return task_done


def _join(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def join(self: Any) -> None:
        original(self)
        if patches.on:
            take(id(self), Channel.QUEUE_DONE)

    return join
