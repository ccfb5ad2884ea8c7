"""Locks, semaphores, events, conditions, barriers and queues of asyncio: who waited for whom."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from time import perf_counter_ns
from typing import Any

from pyscope.events.sync import Channel, LockStep
from pyscope.probes.patches import Patches
from pyscope.probes.sync.signals import give, semaphore_made, semaphore_used, take

__all__ = ["patch"]

_ACQUIRED, _RELEASED = int(LockStep.ACQUIRED), int(LockStep.RELEASED)


def patch(patches: Patches) -> None:
    """Replaces the methods in question on their classes."""
    patches.replace(asyncio.Semaphore, "__init__", functools.partial(_semaphore_init, patches))
    for lock in (asyncio.Lock, asyncio.Semaphore):
        patches.replace(lock, "acquire", functools.partial(_acquire, patches))
        patches.replace(lock, "release", functools.partial(_release, patches))
    queue = asyncio.Queue
    patches.replace(queue, "put_nowait", functools.partial(_put_nowait, patches))
    patches.replace(queue, "get_nowait", functools.partial(_get_nowait, patches))
    channels: tuple[tuple[type, str, str, Channel], ...] = (
        (asyncio.Event, "set", "wait", Channel.EVENT),
        (asyncio.Condition, "notify", "wait", Channel.CONDITION),
        (queue, "task_done", "join", Channel.QUEUE_DONE),
    )
    for owner, gives, takes, kind in channels:
        patches.replace(owner, gives, functools.partial(_giving, patches, int(kind)))
        patches.replace(owner, takes, functools.partial(_waiting, patches, int(kind)))
    patches.replace(asyncio.Event, "is_set", functools.partial(_is_set, patches))
    patches.replace(asyncio.Barrier, "wait", functools.partial(_barrier, patches))


def _semaphore_init(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, value: int = 1, *args: Any, **kwargs: Any) -> None:
        original(self, value, *args, **kwargs)
        if patches.on:
            semaphore_made(self, value)

    return __init__


def _acquire(
    patches: Patches, original: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(original)
    async def acquire(self: Any) -> Any:
        if not patches.on:
            return await original(self)
        began = perf_counter_ns()
        acquired = await original(self)
        semaphore_used(self, _ACQUIRED, perf_counter_ns() - began)
        return acquired

    return acquire


def _release(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def release(self: Any) -> None:
        if patches.on:
            semaphore_used(self, _RELEASED)
        original(self)

    return release


def _put_nowait(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def put_nowait(self: Any, item: Any) -> None:
        if patches.on:
            give(id(self), Channel.QUEUE, id(item))
        original(self, item)

    return put_nowait


def _get_nowait(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get_nowait(self: Any) -> Any:
        item = original(self)
        if patches.on:
            take(id(self), Channel.QUEUE, id(item))
        return item

    return get_nowait


def _giving(patches: Patches, kind: int, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> None:
        if patches.on:
            give(id(self), kind)
        original(self, *args, **kwargs)

    return method


def _waiting(
    patches: Patches, kind: int, original: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(original)
    async def method(self: Any) -> Any:
        if not patches.on:
            return await original(self)
        began = perf_counter_ns()
        answer = await original(self)
        take(id(self), kind, 0, perf_counter_ns() - began)
        return answer

    return method


def _is_set(patches: Patches, original: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(original)
    def is_set(self: Any) -> bool:
        answer = original(self)
        if answer and patches.on:
            take(id(self), Channel.EVENT)
        return answer

    return is_set


def _barrier(
    patches: Patches, original: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(original)
    async def wait(self: Any) -> Any:
        if not patches.on:
            return await original(self)
        parties = self.parties
        give(id(self), Channel.BARRIER, parties)
        index = await original(self)
        take(id(self), Channel.BARRIER, parties)
        return index

    return wait
