"""Samples of memory and CPU of this process, its threads and its children, and of mailboxes, by a thread of
the probe's own.

The peak of resident memory is the kernel's (VmHWM), so that what came and went between two samples counts. It
is reset when sampling begins, by /proc/self/clear_refs; that also resets what `resource.getrusage` calls
ru_maxrss. Where that is not allowed, an earlier and higher peak hides a later one: then the highest sample
stands for it, and says so.
"""

from __future__ import annotations

import _thread
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import psutil

from pyscope import emitter
from pyscope.events.resources import MAILBOX_SAMPLE, PROCESS_SAMPLE, THREAD_SAMPLE
from pyscope.probes import Probe, actors
from pyscope.probes.background import Background
from pyscope.probes.classes import type_name
from pyscope.probes.descriptors import Descriptor

__all__ = ["ResourcesProbe"]

INTERVAL = 0.05  # seconds
SLOW = 10  # threads and new children are looked at in every tenth sample
MOST_PROCESSES = 64
YOUNG = 1.0  # seconds
MOST_THREADS = 256


class ResourcesProbe(Probe):
    """Samples until it is removed. `interval`: seconds from sample to sample, may be changed at any time;
    `children`: whether child processes are sampled too."""

    name = "resources"

    def __init__(self) -> None:
        super().__init__()
        self.interval = INTERVAL
        self.children = True
        self._processes: dict[int, _Process] = {}
        self._declared: set[int] = set()
        self._mailboxes: list[tuple[Callable[[], object], int, str]] = []
        self._threads: dict[int, tuple[int, int]] = {}  # tid: CPU time, when
        self._count = 0
        self._sampling = _thread.allocate_lock()
        self._thread = Background(self._sample_on, self.fault)

    def install(self) -> None:
        exact = _reset_peak()
        self._count = 0
        self._processes = {os.getpid(): _Process(os.getpid(), exact)}
        self._thread.start()

    def uninstall(self) -> None:
        self._thread.stop()
        self.look_now()  # so that the peak is that of the end
        for process in self._processes.values():
            process.close()
        self._processes, self._threads = {}, {}
        self._declared, self._mailboxes = set(), []

    def look_now(self) -> None:
        """Takes a sample besides: what is told is as of now."""
        if os.getpid() in self._processes and emitter.active():
            with self._sampling:
                self._sample()

    def watch(self, target: object) -> None:
        """Samples also an operating system's process id, or the mailbox of an actor (itself, its reference or
        proxy) or a queue.

        Anything else has nothing of its own to sample. Raises ProcessLookupError for a process that does not exist.
        """
        if type(target) is int:
            if not psutil.pid_exists(target):
                raise ProcessLookupError(f"there is no process {target}")
            self._declared.add(target)
            return
        found = actors.actor_of(target)
        actor = target if found is None else found
        if actors.mailbox_length(actor) is None and _queue_length(actor) is None:
            return
        try:
            reference: Callable[[], object] = weakref.ref(actor)
        except TypeError:
            return
        urn = getattr(actor, "actor_urn", None)
        number = actors.number_of(urn) if type(urn) is str else emitter.next_id()
        self._mailboxes.append((reference, number, type_name(type(actor))))

    # In the probe's thread

    def _sample_on(self) -> None:
        while not self._thread.pause(max(0.001, self.interval)):
            if emitter.active():
                with self._sampling:
                    self._sample()

    def _sample(self) -> None:
        tick = emitter.next_id()
        slowly = self._count % SLOW == 0
        self._count += 1
        if slowly:
            self._find_children()
            self._sample_threads(tick)
        for pid, process in list(self._processes.items()):
            if not process.sample(tick):
                del self._processes[pid]
                process.close()
        for reference, number, name in self._mailboxes:
            actor = reference()
            if actor is not None:
                length = actors.mailbox_length(actor)
                length = _queue_length(actor) if length is None else length
                if length is not None:
                    emitter.emit(MAILBOX_SAMPLE.kind, tick, number, length, emitter.intern(name))

    def _find_children(self) -> None:
        own = os.getpid()
        wanted = [own, *self._declared]
        if self.children:
            wanted += _descendants(own)
        for pid in wanted[:MOST_PROCESSES]:
            if pid not in self._processes:
                try:
                    self._processes[pid] = _Process(pid, False)
                except (psutil.Error, OSError):
                    self._declared.discard(pid)

    def _sample_threads(self, tick: int) -> None:
        now = time.perf_counter_ns()
        seen: dict[int, tuple[int, int]] = {}
        for tid in _thread_ids()[:MOST_THREADS]:
            try:
                cpu = time.clock_gettime_ns(~tid << 3 | 6)  # the kernel's clock of another thread
            except OSError:
                continue
            seen[tid] = cpu, now
            known = self._threads.get(tid)
            if known is not None and cpu > known[0]:
                emitter.emit(THREAD_SAMPLE.kind, tick, tid, cpu - known[0], now - known[1])
        self._threads = seen


class _Process:
    """One process: its figures at the last sample. The kernel's account of it is kept open."""

    def __init__(self, pid: int, peak_was_reset: bool) -> None:
        self._pid = pid
        self._process = psutil.Process(pid)
        self._name = "this process" if pid == os.getpid() else self._process.name()
        self._highest = 0
        # A process that has only begun has no earlier peak to hide a later one.
        young = pid != os.getpid() and time.time() - self._process.create_time() < YOUNG
        self._exact = peak_was_reset or young
        self._cpu_ns = self._cpu()
        self._at_ns = time.perf_counter_ns()
        self._status = self._open_status()
        self._first_peak = self._memory()[1]

    def close(self) -> None:
        """Ends it."""
        if self._status is not None:
            self._status.close()
            self._status = None

    def _open_status(self) -> Descriptor | None:
        try:
            return Descriptor(os.open(f"/proc/{self._pid}/status", os.O_RDONLY))
        except OSError:  # no Linux
            return None

    def sample(self, tick: int) -> bool:
        """Emits a sample. False when the process has ended."""
        try:
            rss, peak = self._memory()
            cpu = self._cpu()
        except (psutil.Error, OSError):
            return False
        if rss == 0:  # a zombie
            return False
        now = time.perf_counter_ns()
        self._highest = max(self._highest, rss)
        exact = peak > 0 and (self._exact or peak > self._first_peak)
        emitter.emit(
            PROCESS_SAMPLE.kind,
            tick,
            self._pid,
            rss,
            max(peak, self._highest) if exact else self._highest,
            exact,
            max(0, cpu - self._cpu_ns),
            now - self._at_ns,
            emitter.intern(self._name),
        )
        self._cpu_ns, self._at_ns = cpu, now
        return True

    def _memory(self) -> tuple[int, int]:
        """Resident memory now and at most, in bytes; 0 for what the kernel does not say."""
        if self._status is not None and not self._status.held:
            self._status = self._open_status()
        if self._status is None:
            return self._process.memory_info().rss, 0
        status = os.pread(self._status.number, 4096, 0)
        return _kilobytes(status, b"VmRSS:") * 1024, _kilobytes(status, b"VmHWM:") * 1024

    def _cpu(self) -> int:
        try:
            return time.clock_gettime_ns(~self._pid << 3 | 2)  # the kernel's clock of another process
        except OSError:
            times = self._process.cpu_times()
            return int((times.user + times.system) * 1e9)


def _kilobytes(status: bytes, name: bytes) -> int:
    at = status.find(name)
    return int(status[at + len(name) : status.find(b"\n", at)].split()[0]) if at >= 0 else 0


def _reset_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _thread_ids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return [thread.native_id for thread in threading.enumerate() if thread.native_id is not None]


def _descendants(pid: int) -> list[int]:
    """Children and children's children, by the kernel's lists; by a walk over all processes where it has none."""
    if pid == os.getpid() and not _has_children():
        return []
    found: list[int] = []
    wanted = [pid]
    while wanted and len(found) < MOST_PROCESSES:
        parent = wanted.pop()
        try:
            for tid in os.listdir(f"/proc/{parent}/task"):
                new = [int(child) for child in _contents(f"/proc/{parent}/task/{tid}/children").split()]
                found += new
                wanted += new
        except FileNotFoundError:
            if parent == pid:
                return [child.pid for child in psutil.Process(pid).children(recursive=True)]
        except OSError:
            continue
    return found


def _has_children() -> bool:
    """Whether this process has any, also such as nobody has waited for. Leaves them as they are."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    except (AttributeError, OSError):  # macOS before Python 3.13 has no waitid
        pass
    return True


def _contents(path: str) -> bytes:
    """Of a small file of the kernel's. By hand: each thread has one, and `open` takes longer than to read it."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(file, 4096)]
        while parts[-1]:
            parts.append(os.read(file, 4096))
        return b"".join(parts)
    finally:
        os.close(file)


def _queue_length(target: object) -> int | None:
    """The length of whatever says how long it is, as queues and mailboxes do."""
    for name in ("message_queue_length", "qsize"):
        try:
            found: Any = getattr(target, name, None)
            length = found() if callable(found) else found
        except Exception:  # the program's own code
            continue
        if type(length) is int:
            return length
    return None
