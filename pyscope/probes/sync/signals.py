"""Events, conditions, barriers and semaphores of threading: who waited for whom."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import weakref
from collections.abc import Callable
from time import perf_counter_ns
from types import FrameType
from typing import Any

from pyscope import emitter
from pyscope.events.sync import LOCK, LOCK_MADE, SIGNAL, Channel, LockStep, SignalStep
from pyscope.probes.clients import fault
from pyscope.probes.patches import Patches
from pyscope.probes.sync.strands import task_in_hand

__all__ = ["give", "patch", "semaphore_made", "semaphore_used", "take"]

MANY = 1 << 30  # as good as no limit

_SIGNAL, _GIVE, _TAKE = SIGNAL.kind, int(SignalStep.GIVE), int(SignalStep.TAKE)
_LOCK, _ACQUIRED, _RELEASED = LOCK.kind, int(LockStep.ACQUIRED), int(LockStep.RELEASED)
_INTERNAL = frozenset(  # what these do with their own events and conditions is told by what they do with them
    (
        "threading",
        "queue",
        "concurrent.futures._base",
        "concurrent.futures.thread",
        "concurrent.futures.process",
    )
)


def give(channel: int, kind: int, item: int = 0) -> None:
    """What was done until now happens before what follows the TAKE."""
    try:
        emitter.emit(_SIGNAL, _GIVE, channel, int(kind), item, task_in_hand(), 0)
    except Exception:
        fault("sync")


def take(channel: int, kind: int, item: int = 0, waited: int = 0) -> None:
    """What follows happens after what was before the GIVE."""
    try:
        emitter.emit(_SIGNAL, _TAKE, channel, int(kind), item, task_in_hand(), waited)
    except Exception:
        fault("sync")


def _internal(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") in _INTERNAL


def patch(patches: Patches) -> None:
    """Replaces the methods in question on their classes."""
    patches.replace(threading.Event, "set", functools.partial(_giving, patches, int(Channel.EVENT)))
    patches.replace(threading.Event, "is_set", functools.partial(_asking, patches, int(Channel.EVENT)))
    patches.replace(threading.Event, "wait", functools.partial(_waiting, patches, int(Channel.EVENT)))
    for name in ("wait", "wait_for"):
        make = functools.partial(_waiting, patches, int(Channel.CONDITION))
        patches.replace(threading.Condition, name, make)
    for name in ("notify", "notify_all"):
        patches.replace(
            threading.Condition, name, functools.partial(_giving, patches, int(Channel.CONDITION))
        )
    patches.replace(threading.Barrier, "wait", functools.partial(_barrier, patches))
    for owner in (threading.Semaphore, threading.BoundedSemaphore):
        for name, wrapper in (
            ("__init__", _semaphore_init),
            ("acquire", _semaphore_acquire),
            ("__enter__", _semaphore_acquire),
            ("release", _semaphore_release),
        ):
            if name in vars(owner):
                patches.replace(owner, name, functools.partial(wrapper, patches))


def _giving(patches: Patches, kind: int, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if patches.on and not _internal(sys._getframe(1)):
            give(id(self), kind)
        return original(self, *args, **kwargs)

    return method


def _asking(patches: Patches, kind: int, original: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(original)
    def method(self: Any) -> bool:
        answer = original(self)
        if answer and patches.on and not _internal(sys._getframe(1)):
            take(id(self), kind)
        return answer

    return method


def _waiting(patches: Patches, kind: int, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not patches.on or _internal(sys._getframe(1)):
            return original(self, *args, **kwargs)
        began = perf_counter_ns()
        answer = original(self, *args, **kwargs)
        if answer:
            take(id(self), kind, 0, perf_counter_ns() - began)
        return answer

    return method


def _barrier(patches: Patches, original: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(original)
    def wait(self: Any, *args: Any, **kwargs: Any) -> int:
        if not patches.on:
            return original(self, *args, **kwargs)
        parties = self.parties
        give(id(self), Channel.BARRIER, parties)
        began = perf_counter_ns()
        index = original(self, *args, **kwargs)
        take(id(self), Channel.BARRIER, parties, perf_counter_ns() - began)
        return index

    return wait


_capacities: dict[int, tuple[Any, int]] = {}


def semaphore_made(semaphore: Any, capacity: Any) -> None:
    """A semaphore exists. One that admits one at a time is a lock; one that begins with none is a signal."""
    if type(capacity) is not int:
        return
    key, capacities = id(semaphore), _capacities

    def forget(reference: object) -> None:
        if key in capacities and capacities[key][0] is reference:
            del capacities[key]

    try:
        capacities[key] = weakref.ref(semaphore, forget), capacity or MANY
        emitter.emit(LOCK_MADE.kind, key, capacity or MANY, emitter.intern("semaphore"), emitter.stack(4))
    except Exception:
        fault("sync")


def semaphore_used(semaphore: Any, step: int, waited: int = 0) -> None:
    """A place in a semaphore was acquired or released."""
    try:
        emitter.emit(_LOCK, step, id(semaphore), capacity_of(semaphore), task_in_hand(), waited)
    except Exception:
        fault("sync")


def capacity_of(semaphore: Any) -> int:
    """How many may hold it at once; 0 for one whose making was not seen."""
    if isinstance(semaphore, asyncio.Lock):
        return 1
    known = _capacities.get(id(semaphore))
    return known[1] if known is not None else 0


def _semaphore_init(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, value: int = 1) -> None:
        original(self, value)
        if patches.on and not _internal(sys._getframe(1)):
            semaphore_made(self, value)

    return __init__


def _by_an_executor() -> bool:
    """Executors count idle workers with a semaphore: that orders nothing that the program means."""
    frame = sys._getframe(2)
    return frame.f_globals.get("__name__") == "concurrent.futures.thread"


def _semaphore_acquire(patches: Patches, original: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(original)
    def acquire(self: Any, *args: Any, **kwargs: Any) -> bool:
        if not patches.on or _by_an_executor():
            return original(self, *args, **kwargs)
        began = perf_counter_ns()
        acquired = original(self, *args, **kwargs)
        if acquired:
            semaphore_used(self, _ACQUIRED, perf_counter_ns() - began)
        return acquired

    return acquire


def _semaphore_release(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def release(self: Any, n: int = 1) -> None:
        if patches.on and not _by_an_executor():
            semaphore_used(self, _RELEASED)
        original(self, n)

    return release
