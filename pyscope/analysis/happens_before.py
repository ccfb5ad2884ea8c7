"""Happens-before among threads and tasks: vector clocks over a trace's events of synchronisation.

After Lamport (1978) and FastTrack (Flanagan and Freund, 2009), with two clocks for each strand (a thread, or an asyncio
task): the *hard* one knows what the program's own hand-overs order (start and join, queues, events, futures, messages):
that could not have happened otherwise. The *full* one also knows the order in which locks happened to be acquired, and
joins that were not seen to be waited for: that could. Only strands whose accesses matter have a component.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.events import EventType
from pyscope.events.actors import MESSAGE_ANSWERED, MESSAGE_HANDLED, MESSAGE_RECEIVED, MESSAGE_SENT
from pyscope.events.sync import (
    LOCK,
    SIGNAL,
    TASK,
    THREAD,
    Channel,
    LockStep,
    SignalStep,
    TaskStep,
    ThreadStep,
)

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["Clock", "Moment", "Strand", "StrandKey", "happened_before", "replay", "strand_keys"]

Clock = dict[int, int]
"""Strand: the last of its epochs that is known. Never changed once it is shared."""

StrandKey = tuple[int, int, int]
"""Process, and either thread and 0, or -1 and the number of a task."""

_NOTHING: Clock = {}
MOST_KNOWN = 64


@dataclass(slots=True)
class Strand:
    """A thread or a task while the events are replayed."""

    number: int
    thread: int
    matters: bool
    epoch: int = 1
    hard: Clock = field(default_factory=dict)
    full: Clock = field(default_factory=dict)
    held: dict[int, int] = field(
        default_factory=dict
    )  # lock (negative: it admits several): which acquisition
    inbox: object = None
    woken: object = None
    used: bool = False  # accesses since the clock was last given away
    given: tuple[Clock, Clock] | None = None
    known: dict[int, Clock] = field(default_factory=dict)  # clocks that were taken already, by address

    def give(self) -> tuple[Clock, Clock]:
        """The clocks as another strand may take them: all that happened here until now."""
        if self.given is None or self.used:
            if self.matters:
                mine = {self.number: self.epoch}
                self.given = {**self.hard, **mine}, {**self.full, **mine}
                self.epoch += 1
                self.used = False
            else:
                self.given = self.hard, self.full
        return self.given

    def take(self, clocks: tuple[Clock, Clock]) -> None:
        """What follows here happens after all that those clocks know."""
        hard, full = _joined(self.hard, clocks[0]), _joined(self.full, clocks[1])
        if hard is not self.hard or full is not self.full:
            self.hard, self.full, self.given = hard, full, None

    def take_by_chance(self, full: Clock) -> None:
        """It does, but need not have."""
        if id(full) in self.known:
            return
        if len(self.known) >= MOST_KNOWN:
            self.known.clear()
        self.known[id(full)] = full
        joined = _joined(self.full, full)
        if joined is not self.full:
            self.full, self.given = joined, None


@dataclass(frozen=True, slots=True)
class Moment:
    """A strand at one of its accesses."""

    strand: int
    thread: int
    epoch: int
    hard: Clock
    full: Clock
    held: dict[int, int]


def happened_before(first: Moment, second: Moment, *, by_chance: bool = False) -> bool:
    """Whether what was done at `first` is ordered before `second`; `by_chance`: in this run."""
    if first.strand == second.strand:
        return True
    return (second.full if by_chance else second.hard).get(first.strand, 0) >= first.epoch


def _joined(mine: Clock, other: Clock) -> Clock:
    if other is mine or not other:
        return mine
    if not mine:
        return other
    newer = {strand: epoch for strand, epoch in other.items() if mine.get(strand, 0) < epoch}
    return {**mine, **newer} if newer else mine


def strand_keys(events: Any) -> list[StrandKey]:
    """The strand of each event of a type that has a `task`."""
    processes, threads, tasks = (events[name].tolist() for name in ("process", "thread", "task"))
    return [
        (process, -1, task) if task else (process, thread, 0)
        for process, thread, task in zip(processes, threads, tasks, strict=True)
    ]


_ACCESS = -1
_LOCK, _ACQUIRED = LOCK.kind, int(LockStep.ACQUIRED)


def replay(
    trace: Trace,
    times: NDArray[np.int64],
    keys: list[StrandKey],
    threads: list[int],
    contexts: dict[int, int],
) -> list[Moment]:
    """The moments of accesses: their times, strands, threads. `contexts`: the task of each context that has one."""
    numbers: dict[StrandKey, int] = {}
    for key in keys:
        numbers.setdefault(key, len(numbers))
    history = _History(numbers, contexts)
    moments: list[Moment] = []
    for kind, row in _merged(trace, times):
        if kind == _ACCESS:
            moments.append(history.moment(keys[row], threads[row]))
        else:
            history.apply(kind, row)
    return moments


def _merged(trace: Trace, times: NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
    """All events in order of time: kind and named values, or the number of an access."""
    parts: list[tuple[NDArray[np.int64], int, Any]] = [(times, _ACCESS, range(len(times)))]
    for event, names in _READ:
        found = trace.probe_events(event)
        columns = [found[name].tolist() for name in ("process", "thread", *names)]
        parts.append((found["time_ns"], event.kind, list(zip(*columns, strict=True))))
    order = np.argsort(np.concatenate([part[0] for part in parts]), kind="stable")
    bounds = np.cumsum([0] + [len(part[0]) for part in parts])
    which = np.searchsorted(bounds, order, side="right") - 1
    for part, row in zip(which.tolist(), (order - bounds[which]).tolist(), strict=True):
        yield parts[part][1], parts[part][2][row]


_READ: tuple[tuple[EventType, tuple[str, ...]], ...] = (
    (LOCK, ("task", "step", "lock", "capacity")),
    (SIGNAL, ("task", "step", "channel", "kind", "item")),
    (THREAD, ("task", "step", "number")),
    (TASK, ("task", "step", "number")),
    (MESSAGE_SENT, ("context", "message")),
    (MESSAGE_RECEIVED, ("context", "message")),
    (MESSAGE_HANDLED, ("context", "message")),
    (MESSAGE_ANSWERED, ("context", "message")),
)


class _History:
    """The state of all strands, locks and channels while events are replayed."""

    def __init__(self, numbers: dict[StrandKey, int], contexts: dict[int, int]) -> None:
        self._numbers = numbers
        self._contexts = contexts
        self._strands: dict[StrandKey, Strand] = {}
        self._acquisitions = 0
        self._semaphores = False  # whether any lock was released by who had not acquired it
        self._locks: dict[tuple[int, int], Clock] = {}
        self._channels: dict[Any, tuple[Clock, Clock]] = {}
        self._barriers: dict[tuple[int, int], int] = {}  # arrivals so far
        self._arrivals: dict[tuple[int, int, int], int] = {}  # of a strand at a barrier: its last
        self._inboxes: dict[
            tuple[int, int], tuple[int, int]
        ] = {}  # process and thread: the loop that runs there

    def moment(self, key: StrandKey, thread: int) -> Moment:
        """Where a strand is now, at one of its accesses."""
        strand = self._strand(key, thread)
        strand.used = True
        return Moment(strand.number, thread, strand.epoch, strand.hard, strand.full, strand.held.copy())

    def apply(self, kind: int, values: tuple[int, ...]) -> None:
        """One event of synchronisation."""
        process, thread = values[:2]
        if kind == _LOCK:  # by far the commonest
            task = values[2]
            strand = self._strand((process, -1, task) if task else (process, thread, 0), thread)
            self._lock(strand, values[3], (process, values[4]), values[5])
            return
        if kind in _MESSAGES:
            task = self._contexts.get(values[2], 0)
        else:
            task = values[2]
        strand = self._strand((process, -1, task) if task else (process, thread, 0), thread)
        if kind in _MESSAGES:
            self._message(kind, strand, values[3])
        elif kind == SIGNAL.kind:
            self._signal(strand, process, thread, *values[3:])
        elif kind == THREAD.kind:
            self._thread(strand, process, *values[3:])
        else:
            self._task(strand, process, task, *values[3:])

    def _strand(self, key: StrandKey, thread: int) -> Strand:
        strand = self._strands.get(key)
        if strand is None:
            number = self._numbers.get(key, -1)
            strand = self._strands[key] = Strand(number, thread, number >= 0)
            created = self._channels.get(("task", key[0], key[2])) if key[2] else None
            if created is not None:
                strand.take(created)
        if key[2]:
            # A callback of the loop may have woken the task: it runs after all that the callback knew.
            loop_itself = self._strands.get((key[0], thread, 0))
            if loop_itself is not None and loop_itself.hard is not strand.woken:
                strand.woken = loop_itself.hard
                strand.take((loop_itself.hard, loop_itself.full))
        loop = self._inboxes.get((key[0], thread)) if self._inboxes else None
        if loop is not None:
            inbox = self._channels.get(("loop", *loop))
            if inbox is not None and inbox is not strand.inbox:
                strand.inbox = inbox
                strand.take(inbox)
        return strand

    def _add(self, channel: Any, clocks: tuple[Clock, Clock]) -> None:
        before = self._channels.get(channel)
        if before is not None:
            clocks = _joined(before[0], clocks[0]), _joined(before[1], clocks[1])
            if clocks[0] is before[0] and clocks[1] is before[1]:
                return
        self._channels[channel] = clocks

    def _take(self, strand: Strand, channel: Any) -> None:
        clocks = self._channels.get(channel)
        if clocks is not None:
            strand.take(clocks)

    def _lock(self, strand: Strand, step: int, lock: tuple[int, int], capacity: int) -> None:
        name = lock[1]
        if step == _ACQUIRED:
            before = self._locks.get(lock)
            if before is not None:
                strand.take_by_chance(before)
            if self._semaphores:
                self._take(strand, ("semaphore", *lock))
            self._acquisitions += 1
            # one that admits several excludes nobody
            strand.held[name if capacity <= 1 else -name] = self._acquisitions
            return
        held = name if name in strand.held else -name
        if held not in strand.held:  # a signal: who releases is not who acquired
            self._semaphores = True
            self._add(("semaphore", *lock), strand.give())
            return
        del strand.held[held]
        clock = strand.give()[1]
        if capacity != 1:  # else whoever holds it knows what it knew
            clock = _joined(self._locks.get(lock, _NOTHING), clock)
        self._locks[lock] = clock

    def _signal(
        self, strand: Strand, process: int, thread: int, step: int, channel: int, kind: int, item: int
    ) -> None:
        gives = step == SignalStep.GIVE
        if kind == Channel.LOOP:
            if gives:
                self._add(("loop", process, channel), strand.give())
            else:
                self._inboxes[process, thread] = process, channel
            return
        if kind == Channel.BARRIER:
            barrier = process, channel
            visit = process, channel, id(strand)
            if gives:
                number = self._barriers[barrier] = self._barriers.get(barrier, -1) + 1
                self._arrivals[visit] = number // max(1, item)
            generation = self._arrivals.get(visit, 0)
            if gives:
                self._add((kind, process, channel, generation), strand.give())
            else:
                self._take(strand, (kind, process, channel, generation))
            return
        where = (kind, process, channel, item)
        if not gives:
            self._take(strand, where)
        elif kind in (Channel.SUBMIT, Channel.FUTURE):
            self._channels[where] = strand.give()
        else:
            self._add(where, strand.give())

    def _thread(self, strand: Strand, process: int, step: int, number: int) -> None:
        if step == ThreadStep.STARTED:
            self._channels["thread", process, number] = strand.give()
        elif step == ThreadStep.BEGAN:
            # The operating system may give a thread the name, and a recording the row, of one that has ended.
            self._take(strand, ("thread", process, number))
        elif step == ThreadStep.ENDED:
            self._channels["ended", process, number] = strand.give()
        else:
            self._take(strand, ("ended", process, number))

    def _task(self, strand: Strand, process: int, task: int, step: int, number: int) -> None:
        if step == TaskStep.CREATED:
            self._channels["task", process, number] = strand.give()
        elif step == TaskStep.ENDED:
            ended = self._strand((process, -1, number), strand.thread).give()
            self._channels["task_ended", process, number] = ended
            if task:  # the creator, which need not wait for it
                strand.take_by_chance(ended[1])
            else:
                strand.take(ended)
        else:
            self._take(strand, ("task_ended", process, number))

    def _message(self, kind: int, strand: Strand, message: int) -> None:
        if kind == MESSAGE_SENT.kind:
            self._channels["message", message] = strand.give()
        elif kind == MESSAGE_RECEIVED.kind:
            self._take(strand, ("message", message))
        elif kind == MESSAGE_HANDLED.kind:
            self._channels["answer", message] = strand.give()
        else:
            self._take(strand, ("answer", message))


_MESSAGES = {MESSAGE_SENT.kind, MESSAGE_RECEIVED.kind, MESSAGE_HANDLED.kind, MESSAGE_ANSWERED.kind}
