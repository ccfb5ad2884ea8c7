"""Queues of threads: what was done before an item was put happens before what is done after it was taken."""

from __future__ import annotations

import _queue
import functools
import queue
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from pyscope.events.sync import Channel
from pyscope.probes.patches import Patches
from pyscope.probes.sync.callers import caller, in_standard_library
from pyscope.probes.sync.signals import give, take

__all__ = ["TracedSimpleQueue", "patch"]

RAW: type = queue.SimpleQueue


class TracedSimpleQueue(RAW):  # type: ignore[misc]
    """A queue.SimpleQueue that tells. Its constructor gives the standard library the original."""

    def __new__(cls) -> Any:
        if not cls.patches.on or in_standard_library(caller(1)):
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
