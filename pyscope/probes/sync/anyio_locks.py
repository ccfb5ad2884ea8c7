"""Locks, semaphores, capacity limiters and memory object streams of anyio on asyncio: who waited for whom.

Its events and conditions, and its threads, are made of asyncio's and threading's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from time import perf_counter_ns
from types import ModuleType
from typing import Any

from pyscope.events.sync import Channel, LockStep
from pyscope.probes.patches import Patches
from pyscope.probes.sync.signals import MANY, give, semaphore_made, semaphore_used, take

__all__ = ["patch", "patch_streams"]

_ACQUIRED, _RELEASED = int(LockStep.ACQUIRED), int(LockStep.RELEASED)


def patch(patches: Patches, backend: ModuleType) -> None:
    """Replaces methods of the classes of `anyio._backends._asyncio`; versions before 4.6 have fewer of them."""
    for name in ("Lock", "Semaphore", "CapacityLimiter"):
        kind = getattr(backend, name, None)
        if kind is None:
            continue
        limiter = "_on_behalf_of" if name == "CapacityLimiter" else ""
        patches.replace(kind, "__init__", functools.partial(_init, patches))
        patches.replace(kind, f"acquire{limiter}", functools.partial(_acquire, patches))
        if not limiter:  # its own acquire calls this one
            patches.replace(kind, "acquire_nowait", functools.partial(_acquire_nowait, patches))
        patches.replace(kind, f"release{limiter}", functools.partial(_release, patches))
    status = getattr(backend, "_AsyncioTaskStatus", None)
    group = getattr(backend, "TaskGroup", None)
    if status is not None and group is not None:
        patches.replace(status, "started", functools.partial(_started, patches))
        patches.replace(group, "start", functools.partial(_start, patches))


def patch_streams(patches: Patches, streams: ModuleType) -> None:
    """Replaces methods of the classes of `anyio.streams.memory`."""
    patches.replace(streams.MemoryObjectSendStream, "send_nowait", functools.partial(_send, patches))
    patches.replace(
        streams.MemoryObjectReceiveStream, "receive_nowait", functools.partial(_receive_nowait, patches)
    )
    patches.replace(streams.MemoryObjectReceiveStream, "receive", functools.partial(_receive, patches))


def _init(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if patches.on:
            capacity = getattr(self, "_total_tokens", getattr(self, "_value", 1))
            semaphore_made(self, capacity if type(capacity) is int else MANY)

    return __init__


def _acquire(
    patches: Patches, original: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(original)
    async def acquire(self: Any, *args: Any) -> None:
        if not patches.on:
            await original(self, *args)
            return
        began = perf_counter_ns()
        await original(self, *args)
        semaphore_used(self, _ACQUIRED, perf_counter_ns() - began)

    return acquire


def _acquire_nowait(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def acquire_nowait(self: Any) -> None:
        original(self)
        if patches.on:
            semaphore_used(self, _ACQUIRED)

    return acquire_nowait


def _release(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def release(self: Any, *args: Any) -> None:
        if patches.on:
            semaphore_used(self, _RELEASED)
        original(self, *args)

    return release


def _started(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def started(self: Any, *args: Any, **kwargs: Any) -> None:
        if patches.on:
            give(getattr(self, "_parent_id", 0), Channel.EVENT)
        original(self, *args, **kwargs)

    return started


def _start(
    patches: Patches, original: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(original)
    async def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = await original(self, *args, **kwargs)
        if patches.on:
            take(id(getattr(self.cancel_scope, "_host_task", None)), Channel.EVENT)
        return answer

    return start


def _send(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def send_nowait(self: Any, item: Any) -> None:  # `send` calls it, too
        if patches.on:
            give(id(self._state), Channel.QUEUE, id(item))
        original(self, item)

    return send_nowait


def _receive_nowait(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def receive_nowait(self: Any) -> Any:
        item = original(self)
        if patches.on:
            take(id(self._state), Channel.QUEUE, id(item))
        return item

    return receive_nowait


def _receive(
    patches: Patches, original: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(original)
    async def receive(self: Any) -> Any:
        if not patches.on:
            return await original(self)
        began = perf_counter_ns()
        item = await original(self)
        take(id(self._state), Channel.QUEUE, id(item), perf_counter_ns() - began)
        return item

    return receive
