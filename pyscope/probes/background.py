"""Threads of probes: not listed by `threading`, never waited for at the interpreter's exit, gone in a forked child.

During a fork they are stopped, since Python warns of forks in processes with threads, and the program has not
made these.
"""

from __future__ import annotations

import _thread
import os
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from pyscope.probes.frames import current_frames

__all__ = ["Background"]


class Background:
    """A thread that runs `body` once it is started, until that returns; it can be started again.

    `body` returns soon after `stopping` has become true: it asks `pause` between its steps, or is woken by
    `wake`. An exception ends the thread and calls `fault`.
    """

    def __init__(
        self, body: Callable[[], None], fault: Callable[[], None], wake: Callable[[], None] | None = None
    ) -> None:
        self._body = body
        self._fault = fault
        self._wake = wake
        self._guard = _thread.allocate_lock()
        self._stop = self._ended = _thread.allocate_lock()
        self._pid = 0
        self._running = False
        self._native_id = 0
        self._ident = 0
        self.stopping = False

    @property
    def alive(self) -> bool:
        """Whether it runs, in this process."""
        return self._running and self._pid == os.getpid()

    def start(self) -> None:
        """Starts the thread if it does not run. Raises RuntimeError when the interpreter ends."""
        if self._pid != os.getpid():  # also after a fork, where the lock may have been held
            self._guard = _thread.allocate_lock()
            self._running = False
            self._pid = os.getpid()
        with self._guard:
            if self._running:
                return
            if self in _paused:
                _paused.remove(self)
            _watch_forks()
            self._stop, self._ended = _thread.allocate_lock(), _thread.allocate_lock()
            self._stop.acquire()
            self._ended.acquire()
            self._running, self.stopping = True, False
            _alive.add(self)
            try:
                _thread.start_new_thread(self._run, (self._ended,))
            except BaseException:
                self._running = False
                _alive.discard(self)
                raise

    def pause(self, seconds: float) -> bool:
        """Called by the thread: waits, and says whether to end."""
        return self._stop.acquire(timeout=seconds)

    def rest(self, idle: Callable[[], bool]) -> bool:
        """Called by the thread: whether it is to return, as `idle` says that there is nothing to do.

        Whoever has something done says so where `idle` looks, and calls `start` then: that is either seen here, or
        starts the thread anew.
        """
        with self._guard:
            if not idle():
                return False
            self._running = False
            return True

    def stop(self, timeout: float = 2.0) -> None:
        """Ends the thread, and waits for it at most `timeout` seconds; called by the thread itself, does not wait."""
        _alive.discard(self)
        if self in _paused:
            _paused.remove(self)
        if not self.alive:
            return
        self.stopping = True
        try:
            self._stop.release()
        except RuntimeError:  # released already
            pass
        if self._wake is not None:
            self._wake()
        if _thread.get_ident() != self._ident and self._ended.acquire(timeout=timeout):
            self._running = False

    def _run(self, ended: _thread.LockType) -> None:
        self._ident, self._native_id = _thread.get_ident(), _thread.get_native_id()
        try:
            self._body()
        except Exception:
            self._fault()
        finally:
            with self._guard:
                if self._ended is ended:  # else it has been started anew since it rested
                    self._running = False
            ended.release()

    def _is_gone(self) -> bool:
        """Whether the operating system has no such thread any more."""
        return not os.path.exists(f"/proc/self/task/{self._native_id}")


# --- forks ---------------------------------------------------------------------------------------

_alive: set[Background] = set()
_paused: list[Background] = []
_watching_forks = False
_forking: tuple[int, FrameType, int] | None = None  # the thread, the frame that calls os.fork, and where
_restart_call: Any = None


def _watch_forks() -> None:
    global _watching_forks
    if not _watching_forks:
        _watching_forks = True
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
        )


def _before_fork() -> None:
    global _forking
    ident = _thread.get_ident()
    if ident in {thread._ident for thread in _alive if thread.alive}:
        return
    for thread in list(_alive):
        if thread.alive:
            thread.stop(1.0)
            _paused.append(thread)
    if not _paused:
        return
    caller = sys._getframe(1)
    _forking = ident, caller, caller.f_lasti
    end = time.monotonic() + 0.2
    while not all(thread._is_gone() for thread in _paused) and time.monotonic() < end:
        time.sleep(0.0002)


def _after_fork_in_parent() -> None:
    """Python counts threads after this, before fork returns. They come back as soon after that as the main
    thread can."""
    global _restart_call
    if not _paused:
        return
    try:
        import ctypes
    except ImportError:
        _restart()
        return
    if _restart_call is None:
        _restart_call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_restart_later)
    if ctypes.pythonapi.Py_AddPendingCall(_restart_call, None) != 0:
        _restart()


def _restart_later(_: object) -> int:
    if _forking is None or not _is_in_fork(*_forking):
        _restart()
    else:
        _after_fork_in_parent()
    return 0


def _is_in_fork(ident: int, caller: FrameType, instruction: int) -> bool:
    frame = current_frames().get(ident)
    while frame is not None and frame is not caller:
        frame = frame.f_back
    return frame is not None and frame.f_lasti == instruction


def _restart() -> None:
    global _forking
    _forking = None
    while _paused:
        try:
            _paused.pop().start()
        except RuntimeError:  # the interpreter ends
            pass


def _after_fork_in_child() -> None:
    global _forking
    _forking = None
    _paused.clear()
    _alive.intersection_update([thread for thread in _alive if thread.alive])  # begun in the child by now
