"""Starts and deaths of child processes, of `subprocess`, `multiprocessing` and what is built on them; and deaths of
those that the program forks and waits for itself, as servers with workers do.

A pidfd says when a child has died; its status is read with WNOWAIT, so that it stays there for the program,
whose waits, signals and return codes are as ever. Where the program was faster, its own record of the return
code is read.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import multiprocessing.process
import os
import select
import signal
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Callable
from multiprocessing import popen_fork, popen_forkserver
from types import FrameType
from typing import Any, NamedTuple

from pyscope import emitter
from pyscope.probes.background import Background
from pyscope.probes.descriptors import Descriptor
from pyscope.probes.patches import Patches

__all__ = ["ChildProcesses"]

MOST_CHILDREN = 1000  # watched at a time; the death of others is not told
GRACE = 1.0  # seconds for the program to note a return code that it was the first to read
TICK = 0.02
LONGEST_WAIT = 1.0  # seconds: what wakes it may have been closed by the program
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
        self._new: deque[tuple[Descriptor, _Child]] = deque()
        self._living: dict[int, tuple[Descriptor, _Child]] = {}  # by the number of the pidfd
        self._watched: set[int] = set()
        self._codes: dict[int, int] = {}  # what the program read
        self._told: dict[int, None] = {}  # whose death is told, and who may not have been waited for yet
        self._asked: dict[int, set[int]] = {}  # whom the program asked to end, by which signals
        self._wake: Descriptor | None = None
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
        for name in ("wait", "waitpid", "wait3", "wait4"):
            patches.replace(os, name, functools.partial(self._waits, patches))
        patches.replace(os, "kill", functools.partial(self._kills, patches))
        patches.replace(os, "killpg", functools.partial(self._kills, patches, group=True))
        patches.replace(subprocess.Popen, "send_signal", functools.partial(self._asks, patches))
        patches.replace(popen_fork.Popen, "_send_signal", functools.partial(self._asks, patches))

    def last_look(self) -> None:
        """Ends the thread, and tells who has died since it looked."""
        if self._pid == os.getpid() and self._wake is not None:
            self._thread.stop()
            for number, _ in self._renewed().poll(0):
                if number in self._living:
                    self._look_at(number)
            self._look_up(give_up=True)

    def stop(self) -> None:
        """Ends; children live on."""
        self.last_look()
        self._forget()

    def _awake(self) -> None:
        wake = self._wake
        if wake is not None and wake.held:
            os.eventfd_write(wake.number, 1)

    def _forget(self) -> None:
        for descriptor, _ in [*self._living.values(), *self._new]:
            descriptor.close()
        if self._wake is not None:
            self._wake.close()
        self._living = {}
        self._late = []
        self._watched.clear()
        self._codes.clear()
        self._told.clear()
        self._asked.clear()
        self._new.clear()
        self._wake = None

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

    def _waits(self, patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wait(*arguments: Any, **named: Any) -> Any:
            answer = original(*arguments, **named)
            if patches.on and answer[0]:
                self._waited_for(answer[0], answer[1], sys._getframe(1))
            return answer

        return wait

    def _waited_for(self, pid: int, status: int, caller: FrameType) -> None:
        """The program has waited for a child. One that it forked itself is told if it did not end well."""
        try:
            if os.WIFSTOPPED(status) or os.WIFCONTINUED(status) or _is_ours(caller):
                return
            code = os.waitstatus_to_exitcode(status)
            if pid in self._watched:
                self._codes[pid] = code
                return
            if pid in self._told or not emitter.active():
                self._told.pop(pid, None)
                return
            if code and -code not in _POLITE:
                self._tell("child_terminated", "os.fork", f"process {pid}", _in_words(code), pid=pid)
        except Exception:
            self._fault()

    def _asks(self, patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def send(popen: Any, number: Any) -> Any:
            if patches.on:
                self._asked_to_end(popen.pid, number)  # before it: the end may come at once
            return original(popen, number)

        return send

    def _kills(
        self, patches: Patches, original: Callable[..., None], group: bool = False
    ) -> Callable[..., None]:
        @functools.wraps(original)
        def kill(pid: Any, number: Any, /) -> None:
            if patches.on:
                try:
                    if number in _POLITE:
                        for each in self._members(pid) if group else (pid,):
                            self._asked_to_end(each, number)
                except (TypeError, ValueError):  # nonsense: the call itself says so
                    pass
            original(pid, number)

        return kill

    def _members(self, group: Any) -> list[int]:
        """The watched children in a group of processes."""
        found = []
        for pid in list(self._watched):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) == group:
                    found.append(pid)
        return found

    def _asked_to_end(self, pid: int, number: Any) -> None:
        if pid in self._watched and number in _POLITE and not _has_ended(pid):
            self._asked.setdefault(pid, set()).add(int(number))

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
            if self._wake is None:
                self._wake = _eventfd()
            self._watched.add(pid)
            self._new.append(
                (
                    Descriptor(os.pidfd_open(pid)),
                    _Child(pid, supervisor, name, stack, _return_code_of(holder)),
                )
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
        while not self._thread.stopping:
            poll = self._renewed()
            for number, _ in poll.poll((TICK if self._late else LONGEST_WAIT) * 1000):
                if number in self._living:
                    self._look_at(number)
            self._look_up()

    def _renewed(self) -> select.poll:
        """What is to be waited for: children that have come since are taken in; what the program has closed is opened
        anew."""
        wake = self._wake
        if wake is None or not wake.held:
            wake = self._wake = _eventfd()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(wake.number)
        while self._new:
            descriptor, child = self._new.popleft()
            self._living[descriptor.number] = descriptor, child
        for number, (descriptor, child) in list(self._living.items()):
            if not descriptor.held:
                del self._living[number]
                try:
                    descriptor = Descriptor(os.pidfd_open(child.pid))
                    self._living[descriptor.number] = descriptor, child
                except OSError:
                    self._late.append((child, round(GRACE / TICK)))
        poll = select.poll()
        for number in [wake.number, *self._living]:
            poll.register(number, select.POLLIN)
        return poll

    def _look_at(self, number: int) -> None:
        """A child has died."""
        descriptor, child = self._living.pop(number)
        status = None
        if descriptor.held:
            with contextlib.suppress(
                ChildProcessError
            ):  # the program was faster, or it is somebody else's child
                status = os.waitid(os.P_PIDFD, number, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            descriptor.close()
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
        if child.pid not in self._codes:
            self._told[child.pid] = None
            while len(self._told) > MOST_CHILDREN:
                self._told.pop(next(iter(self._told)))
        self._watched.discard(child.pid)
        self._codes.pop(child.pid, None)
        signals = self._asked.pop(child.pid, ())
        asked = bool(signals) and (code is None or code >= 0 or -code in signals)
        in_order = code == 0 or asked
        kind = "child_shutdown" if in_order else "child_terminated"
        reason = _in_words(code) + (", asked to by the program" if asked and code else "")
        self._tell(kind, child.supervisor, child.name, reason, pid=child.pid, stack=child.stack)


def _has_ended(pid: int) -> bool:
    """Whether a child is dead already: executors ask all of theirs to end once one has been killed."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except OSError:
        return True


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("pyscope.")


def _eventfd() -> Descriptor:
    return Descriptor(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))


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
