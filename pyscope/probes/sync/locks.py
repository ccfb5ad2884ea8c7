"""Locks that tell when they are acquired and released, in place of threading.Lock and threading.RLock.

Each holds the interpreter's own lock and leaves the work to it, so that whoever kept a reference to that one goes on
to exclude those who use this one.
"""

from __future__ import annotations

import _thread
import functools
import threading
from collections.abc import Callable
from time import perf_counter_ns
from types import TracebackType
from typing import Any

from pyscope import emitter
from pyscope.events.sync import LOCK, LOCK_MADE, LockStep
from pyscope.probes.clients import fault
from pyscope.probes.patches import Patches
from pyscope.probes.sync.callers import caller, in_standard_library
from pyscope.probes.sync.strands import task_in_hand

__all__ = ["RAW_LOCK", "RAW_RLOCK", "TracedLock", "TracedRLock", "patch", "tell_every_use", "traced"]

SHORTEST_WAIT_NS = 10_000
"""A wait that is told where uses of locks are not: a shorter one is no wait to speak of."""

RAW_LOCK: type = type(_thread.allocate_lock())
RAW_RLOCK: type = _thread.RLock
_HAS_COUNT = hasattr(RAW_RLOCK, "_recursion_count")
_CONDITION = threading.Condition.__init__.__code__

_LOCK, _ACQUIRED, _RELEASED = LOCK.kind, int(LockStep.ACQUIRED), int(LockStep.RELEASED)


class _Detail:
    """Whether every use of a lock is told, or only the waits for one that somebody holds."""

    every_use = False


def _tell(step: int, number: int, waited: int = 0) -> None:
    try:
        emitter.emit(_LOCK, step, number, 1, task_in_hand(), waited)
    except Exception:
        fault("sync")


class _Traced:
    """What both kinds of lock have in common."""

    __slots__ = ("__weakref__", "_number", "_raw")

    def __init__(self, raw: Any, name: str = "", stack: int = 0) -> None:
        self._raw = raw
        self._number = 0
        try:
            self._number = emitter.next_id()
            emitter.emit(LOCK_MADE.kind, self._number, 1, emitter.intern(name or type(raw).__name__), stack)
        except Exception:
            fault("sync")

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._raw)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        raw = self._raw
        waited = 0
        if blocking is not True or timeout != -1:
            began = perf_counter_ns()
            if not raw.acquire(blocking, timeout):
                return False
            waited = perf_counter_ns() - began
        elif not raw.acquire(False):
            began = perf_counter_ns()
            raw.acquire()
            waited = perf_counter_ns() - began
        if not (_Detail.every_use or waited >= SHORTEST_WAIT_NS):
            return True
        try:
            _tell(_ACQUIRED, self._number, waited)
        except BaseException:  # a signal handler's
            raw.release()
            raise
        return True

    def release(self) -> None:
        if _Detail.every_use:
            _tell(_RELEASED, self._number)
        self._raw.release()

    __enter__ = acquire

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if _Detail.every_use:
                _tell(_RELEASED, self._number)
        finally:
            self._raw.release()

    def _at_fork_reinit(self) -> None:
        self._raw._at_fork_reinit()

    def __repr__(self) -> str:
        return repr(self._raw)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._raw.__reduce_ex__(protocol)

    def __getattr__(self, name: str) -> Any:
        """What the locks of a newer interpreter can do besides."""
        if name in _Traced.__slots__:
            raise AttributeError(name)
        return getattr(self._raw, name)


class TracedLock(_Traced):
    """In place of a `_thread.lock`."""

    __slots__ = ()

    def locked(self) -> bool:
        locked: bool = self._raw.locked()
        return locked

    acquire_lock = _Traced.acquire
    release_lock = _Traced.release
    locked_lock = locked


class TracedRLock(_Traced):
    """In place of a `_thread.RLock`. Only the outermost of nested acquisitions are told."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        raw = self._raw
        if raw._is_owned():
            again: bool = raw.acquire(blocking, timeout)
            return again
        return super().acquire(blocking, timeout)

    __enter__ = acquire

    def release(self) -> None:
        raw = self._raw
        if _Detail.every_use and self._depth() == 1:
            _tell(_RELEASED, self._number)
        raw.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if _Detail.every_use and self._depth() == 1:
                _tell(_RELEASED, self._number)
        finally:
            self._raw.release()

    if hasattr(RAW_RLOCK, "locked"):  # from 3.14 on

        def locked(self) -> bool:
            locked: bool = self._raw.locked()
            return locked

    def _is_owned(self) -> bool:
        owned: bool = self._raw._is_owned()
        return owned

    def _release_save(self) -> Any:
        if _Detail.every_use:
            _tell(_RELEASED, self._number)
        return self._raw._release_save()

    def _acquire_restore(self, state: Any) -> None:
        self._raw._acquire_restore(state)
        if _Detail.every_use:
            _tell(_ACQUIRED, self._number)

    def _depth(self) -> int:
        """How often the calling thread has acquired it."""
        try:
            if _HAS_COUNT:
                depth: int = self._raw._recursion_count()
                return depth
            return int(repr(self._raw).partition("count=")[2].split()[0]) if self._raw._is_owned() else 0
        except Exception:
            fault("sync")
            return 0

    if _HAS_COUNT:
        _recursion_count = _depth


def tell_every_use(on: bool) -> None:
    """Whether acquisitions that did not wait, and releases, are told too, as the search for races needs."""
    _Detail.every_use = on


def traced(raw: Any, name: str = "", stack: int = 0) -> Any:
    """A lock that tells, around one of the interpreter's own. Anything else is returned as it is."""
    kind = type(raw)
    if kind is RAW_LOCK:
        return TracedLock(raw, name, stack)
    if kind is RAW_RLOCK:
        return TracedRLock(raw, name, stack)
    return raw


def _made(raw: Any) -> Any:
    """A new lock for the caller's caller: the interpreter's own where the standard library makes it for itself."""
    try:
        frame = caller(2)
        if frame.f_code is _CONDITION and frame.f_back is not None:
            frame = frame.f_back
        if in_standard_library(frame):
            return raw
        return traced(raw, stack=emitter.stack(4))
    except Exception:
        fault("sync")
        return raw


class _LockFactory(type):
    """The type of what stands for threading.Lock, a class on 3.13 and a function before."""

    original: Any
    patches: Patches

    def __call__(cls) -> Any:
        raw = _thread.allocate_lock()
        return _made(raw) if cls.patches.on else raw

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, RAW_LOCK)

    def __repr__(cls) -> str:
        return repr(cls.original)


def _lock_factory(patches: Patches, original: Any) -> Any:
    namespace = {
        "__module__": "threading",  # where pickle finds it; _thread has the original
        "__doc__": original.__doc__,
        "__slots__": (),
        "original": original,
        "patches": patches,
    }
    return _LockFactory("Lock", (), namespace)


def _rlock_factory(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def RLock(*args: Any, **kwargs: Any) -> Any:
        raw = original(*args, **kwargs)
        return _made(raw) if patches.on else raw

    return RLock


def patch(patches: Patches) -> dict[int, Any]:
    """Replaces threading.Lock and threading.RLock. Returns by an original's address what stands for it."""
    stands_for: dict[int, Any] = {}
    for name, make in (("Lock", _lock_factory), ("RLock", _rlock_factory)):
        original = getattr(threading, name)
        patches.replace(threading, name, functools.partial(make, patches))
        stands_for[id(original)] = getattr(threading, name)
    return stands_for
