"""Starts and deaths of child processes, of `subprocess`, `multiprocessing` and what is built on them.

A pidfd says when a child has died; its status is read with WNOWAIT, so that it stays there for the program,
whose waits, signals and return codes are as ever. Where the program was faster, its own record of the return
code is read.
"""

from __future__ import annotations

import errno
import functools
import multiprocessing.process
import os
import select
import signal
import subprocess
import weakref
from collections import deque
from collections.abc import Callable
from multiprocessing import popen_fork, popen_forkserver
from typing import Any, NamedTuple

from pyscope import emitter
from pyscope.probes.background import Background
from pyscope.probes.patches import Patches

__all__ = ["ChildProcesses"]

MOST_CHILDREN = 1000  # watched at a time; the death of others is not told
GRACE = 1.0  # seconds for the program to note a return code that it was the first to read
TICK = 0.02
_POLITE = (signal.SIGTERM, signal.SIGINT)
"""By which a program ends a child in order. One that it has to kill did not end so."""


class _Child(NamedTuple):
    pid: int
    supervisor: str
    name: str
    stack: int
    return_code: Callable[[], int | None]


class ChildProcesses:
    """The children that live, and the thread that waits for their ends."""

    def __init__(self, tell: Callable[..., None], fault: Callable[[], None]) -> None:
        self._tell = tell
        self._fault = fault
        self._new: deque[tuple[int, _Child]] = deque()
        self._living: dict[int, _Child] = {}
        self._watched: set[int] = set()
        self._codes: dict[int, int] = {}  # what the program read
        self._asked: set[int] = set()  # whom the program asked to end
        self._wake = -1
        self._pid = 0
        self._late: list[tuple[_Child, int]] = []  # dead, their codes not yet known, and looks to go
        self._thread = Background(self._wait, fault, self._awake)

    def install(self, patches: Patches) -> None:
        """Watches the starts."""
        patches.replace(subprocess.Popen, "__init__", functools.partial(self._popen, patches))
        patches.replace(
            multiprocessing.process.BaseProcess, "start", functools.partial(self._process, patches)
        )
        patches.replace(subprocess.Popen, "_handle_exitstatus", functools.partial(self._reaps, patches))
        for module in (popen_fork, popen_forkserver):
            patches.replace(module.Popen, "poll", functools.partial(self._reaps, patches))
        patches.replace(subprocess.Popen, "send_signal", functools.partial(self._asks, patches))
        patches.replace(popen_fork.Popen, "_send_signal", functools.partial(self._asks, patches))

    def stop(self) -> None:
        """Ends the thread; children live on."""
        if self._pid == os.getpid() and self._wake >= 0:
            self._thread.stop()
            self._look_up(give_up=True)
            os.close(self._wake)
        self._forget()

    def _awake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _forget(self) -> None:
        for fd in [*self._living, *(fd for fd, _ in self._new)]:
            try:
                os.close(fd)
            except OSError:
                pass
        self._living = {}
        self._late = []
        self._watched.clear()
        self._codes.clear()
        self._asked.clear()
        self._new.clear()
        self._wake = -1

    def _popen(self, patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def __init__(popen: Any, *arguments: Any, **named: Any) -> None:
            original(popen, *arguments, **named)
            if patches.on:
                self._began(popen.pid, "subprocess", lambda: _program(popen), popen)

        return __init__

    def _process(self, patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def start(process: Any) -> None:
            original(process)
            if patches.on:
                self._began(process._popen.pid, "multiprocessing", lambda: str(process._name), process._popen)

        return start

    def _reaps(self, patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def reap(popen: Any, *arguments: Any, **named: Any) -> Any:
            try:
                return original(popen, *arguments, **named)
            finally:
                code = getattr(popen, "returncode", None)
                if patches.on and code is not None and popen.pid in self._watched:
                    self._codes[popen.pid] = code

        return reap

    def _asks(self, patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def send(popen: Any, number: Any) -> Any:
            if patches.on and popen.pid in self._watched and number in _POLITE:
                self._asked.add(popen.pid)  # before it: the end may come at once
            return original(popen, number)

        return send

    def _began(self, pid: int, supervisor: str, name_of: Callable[[], str], holder: Any) -> None:
        try:
            if not emitter.active():
                return
            name = name_of()
            stack = emitter.stack()
            self._tell("child_started", supervisor, name, pid=pid, stack=stack)
            if self._pid != os.getpid():  # the first child, or the first of a forked child
                self._forget()
                self._pid = os.getpid()
            if len(self._living) + len(self._new) >= MOST_CHILDREN:
                return
            if self._wake < 0:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._watched.add(pid)
            self._new.append(
                (os.pidfd_open(pid), _Child(pid, supervisor, name, stack, _return_code_of(holder)))
            )
            self._thread.start()
            self._awake()
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EMFILE, errno.ENFILE, errno.ENOSYS, errno.EPERM):
                self._fault()
        except Exception:
            self._fault()

    # The thread

    def _wait(self) -> None:
        poll = select.poll()
        wake = self._wake
        for fd in [wake, *self._living]:
            poll.register(fd, select.POLLIN)
        while not self._thread.stopping:
            for fd, _ in poll.poll(TICK * 1000 if self._late else None):
                if fd == wake:
                    self._take_news(poll)
                else:
                    poll.unregister(fd)
                    self._look_at(fd)
            self._look_up()

    def _take_news(self, poll: select.poll) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass
        while self._new:
            fd, child = self._new.popleft()
            self._living[fd] = child
            poll.register(fd, select.POLLIN)

    def _look_at(self, fd: int) -> None:
        """A child has died."""
        child = self._living.pop(fd)
        try:
            status = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:  # the program was faster, or it is somebody else's child
            status = None
        finally:
            os.close(fd)
        if status is None:
            self._late.append((child, round(GRACE / TICK)))
        else:
            exited = status.si_code == os.CLD_EXITED
            self._ended(child, status.si_status if exited else -status.si_status)

    def _look_up(self, give_up: bool = False) -> None:
        """What the program has read of those it was faster with."""
        still = []
        for child, patience in self._late:
            code = self._codes.get(child.pid)
            if code is None:
                code = child.return_code()
            if code is not None or not patience or give_up:
                self._ended(child, code)
            else:
                still.append((child, patience - 1))
        self._late = still

    def _ended(self, child: _Child, code: int | None) -> None:
        self._watched.discard(child.pid)
        self._codes.pop(child.pid, None)
        asked = child.pid in self._asked
        self._asked.discard(child.pid)
        in_order = code == 0 or (asked and code != -signal.SIGKILL)
        kind = "child_shutdown" if in_order else "child_terminated"
        reason = _in_words(code) + (", asked to by the program" if asked and code else "")
        self._tell(kind, child.supervisor, child.name, reason, pid=child.pid, stack=child.stack)


def _in_words(code: int | None) -> str:
    if code is None:
        return "ended, its exit code was not seen"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _program(popen: Any) -> str:
    """The program's name alone: arguments may hold secrets."""
    arguments = popen.args
    first = arguments[0] if type(arguments) in (list, tuple) and len(arguments) else arguments
    if type(first) is bytes:
        first = os.fsdecode(first)
    if type(first) is not str:
        return "process"
    return os.path.basename(first.split(" ", 1)[0])[:100] or "process"


def _return_code_of(holder: Any) -> Callable[[], int | None]:
    reference = weakref.ref(holder)

    def return_code() -> int | None:
        found = getattr(reference(), "returncode", None)
        return found if type(found) is int else None

    return return_code
