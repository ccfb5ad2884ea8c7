"""Threads of probes: not listed by `threading`, never waited for at the interpreter's exit, gone in a forked
child."""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable

__all__ = ["Background"]


class Background:
    """A thread that runs `body` once it is started, until that returns.

    `body` calls `pause` between its steps, and returns when that says so. An exception ends the thread and
    calls `fault`.
    """

    def __init__(self, body: Callable[[], None], fault: Callable[[], None]) -> None:
        self._body = body
        self._fault = fault
        self._guard = _thread.allocate_lock()
        self._stop = self._ended = _thread.allocate_lock()
        self._pid = 0
        self._running = False
        self.ident = 0
        """The thread's identifier, 0 before its start."""

    @property
    def alive(self) -> bool:
        """Whether it runs, in this process."""
        return self._running and self._pid == os.getpid()

    def start(self) -> None:
        """Starts the thread if it does not run."""
        if self._pid != os.getpid():  # also after a fork, where the lock may have been held
            self._guard = _thread.allocate_lock()
            self._running = False
            self._pid = os.getpid()
        with self._guard:
            if self._running:
                return
            self._stop, self._ended = _thread.allocate_lock(), _thread.allocate_lock()
            self._stop.acquire()
            self._ended.acquire()
            self._running = True
            try:
                _thread.start_new_thread(self._run, (self._ended,))
            except BaseException:
                self._running = False
                raise

    def pause(self, seconds: float) -> bool:
        """Called by the thread: waits, and says whether to end."""
        return self._stop.acquire(timeout=seconds)

    def stop(self, timeout: float = 2.0) -> None:
        """Ends the thread, and waits for it at most `timeout` seconds; called by the thread itself, does not wait."""
        if not self.alive:
            return
        try:
            self._stop.release()
        except RuntimeError:  # released already
            pass
        if _thread.get_ident() != self.ident and self._ended.acquire(timeout=timeout):
            self._running = False

    def _run(self, ended: _thread.LockType) -> None:
        self.ident = _thread.get_ident()
        try:
            self._body()
        except Exception:
            self._fault()
        finally:
            self._running = False
            ended.release()
