"""What took very much of a resource: mailboxes in which messages pile up, and work in which memory grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.call_sites import call_site, calling_stack
from pyscope.analysis.counting import duration
from pyscope.events.actors import MESSAGE_RECEIVED, MESSAGE_SENT
from pyscope.events.resources import MAILBOX_SAMPLE, PROCESS_SAMPLE
from pyscope.findings import ResourceIssue
from pyscope.rows import Location

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["BACKLOG", "GROWTH_BYTES", "find"]

BACKLOG = 100
"""So many messages that wait in one mailbox are a backlog."""

GROWTH_BYTES = 64 << 20
"""So much more memory within one request, message, report or job is a finding, if it is also a quarter of what there
was."""

_GROWTH_SHARE = 0.25
_WORK = ("request", "message", "report", "job")
_MOST_OF_IT = 0.5  # of a growth: the innermost call that saw so much of it is to blame
_LONG_NS = 10_000_000  # what is over sooner is not seen to grow
_OPEN_ENDED = ("generator", "async_generator")
_NOWHERE = Location("", 0, "")


def find(trace: Trace, *, backlog: int = BACKLOG, growth_bytes: int = GROWTH_BYTES) -> list[ResourceIssue]:
    """The longest backlog of each mailbox, and growths of memory within a request, message, report or job (in a process
    that has none: within a call), in order of time.

    Where work overlaps, a growth is told once: of what saw all of it, and of that the shortest.
    """
    found = [*_backlogs(trace, backlog), *_growths(trace, growth_bytes)]
    return sorted(found, key=lambda issue: issue.time_ns)


# --- mailboxes -------------------------------------------------------------------------------------


def _backlogs(trace: Trace, least: int) -> Iterator[ResourceIssue]:
    sent, samples = trace.probe_events(MESSAGE_SENT), trace.probe_events(MAILBOX_SAMPLE)
    actor = np.concatenate([sent["actor"], samples["actor"]])
    length = np.concatenate([sent["length"] + 1, samples["length"]])  # what is sent waits too
    name = np.concatenate([sent["actor_name"], samples["name"]])
    time = np.concatenate([sent["time_ns"], samples["time_ns"]])
    for number in np.unique(actor[length >= least]).tolist():
        mine = np.flatnonzero(actor == number)
        peak = mine[np.lexsort((time[mine], -length[mine]))[0]]
        issue = _backlog(trace, number, trace.strings[int(name[peak])], int(length[peak]), int(time[peak]))
        if issue is not None:
            yield issue


def _backlog(trace: Trace, actor: int, name: str, amount: int, end: int) -> ResourceIssue | None:
    sent, received = trace.probe_events(MESSAGE_SENT), trace.probe_events(MESSAGE_RECEIVED)
    # Those that waited are the last that were sent: a mailbox hands out the oldest first.
    during = np.flatnonzero((sent["actor"] == actor) & (sent["time_ns"] <= end))[-amount:]
    mine = received["actor"] == actor
    if not len(during) and mine.any():
        return None  # a live view that has forgotten how it came to be
    begin = int(sent["time_ns"][during[0]]) if len(during) else end
    stacks, counts = np.unique(sent["stack"][during], return_counts=True)
    stack: tuple[Location, ...] = ()
    senders, scope = 0, 0
    if len(stacks):
        most = int(np.argmax(counts))
        stack, senders = trace.stack(int(stacks[most])), int(counts[most])
        scopes, times = np.unique(
            sent["scope"][during][sent["stack"][during] == stacks[most]], return_counts=True
        )
        scope = int(scopes[np.argmax(times)])
    later = received["waited_ns"][mine & (received["time_ns"] >= begin)]
    waited = int(later.max(initial=0))
    site = call_site(stack)
    by = f", {senders} of them sent by {site.function}" if senders and site.line else ""
    late = f"; the longest waited {duration(waited)}" if waited > 0 else ""
    return ResourceIssue(
        kind="mailbox_backlog",
        subject=name,
        amount=amount,
        time_ns=end,
        duration_ns=end - begin,
        waited_ns=max(0, waited),
        call_site=site,
        explanation=f"{amount} messages waited for {name} at once{by}{late}: whoever asks it something now waits "
        "behind all of them.",
        suggestion="Send one message that says what has changed instead of one for each thing, or leave out those that "
        "a waiting one makes needless; bound the mailbox, so that senders feel it; share the work among several actors "
        "where it is too much for one.",
        stack=stack,
        senders=senders,
        scope=scope,
    )


# --- memory ----------------------------------------------------------------------------------------


def _growths(trace: Trace, least: int) -> Iterator[ResourceIssue]:
    samples = trace.probe_events(PROCESS_SAMPLE)
    for number, process in enumerate(trace.processes):
        mine = np.flatnonzero(samples["pid"] == process.pid)
        if len(mine) < 2:
            continue
        mine = mine[np.argsort(samples["time_ns"][mine], kind="stable")]
        calls = _calls_of(trace, number)
        memory = _Memory(number, samples["time_ns"][mine], samples["rss"][mine]).without(
            _imports(trace, calls)
        )
        yield from _growths_within(trace, memory, calls, least)


@dataclass(frozen=True, slots=True)
class _Memory:
    """The samples of one process, in order of time. `resident`: without what imports added."""

    process: int
    time: NDArray[np.int64]
    resident: NDArray[np.int64]

    def during(self, begin: NDArray[np.int64], end: NDArray[np.int64], more: int = 0) -> tuple[Any, Any]:
        """For each of some times the samples from the last before it (or the first within) to the last within, and
        `more` after that: the first of them, and the one behind the last."""
        first = np.maximum(np.searchsorted(self.time, begin, side="right") - 1, 0)
        behind = np.searchsorted(self.time, end, side="right") + more
        return first, np.minimum(behind, len(self.time))

    def without(self, work: _Work) -> _Memory:
        """As it would be had some work added nothing."""
        first, behind = self.during(work.begin, work.end, more=1)
        added = np.diff(self.resident, prepend=self.resident[:1])
        for low, high in zip(first.tolist(), behind.tolist(), strict=True):
            added[low + 1 : high] = np.minimum(added[low + 1 : high], 0)
        return _Memory(self.process, self.time, self.resident[0] + np.cumsum(added))


@dataclass(frozen=True, slots=True)
class _Work:
    """What runs in a process: scopes, or calls where it has none, by their rows."""

    rows: NDArray[np.intp]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]


def _scopes_of(trace: Trace, process: int) -> _Work:
    scopes = trace.scopes
    kinds = np.array([kind in _WORK for kind in scopes["kind"]], bool)
    rows = np.flatnonzero(kinds & (scopes["process"] == process))
    return _Work(rows, scopes["start_ns"][rows], scopes["end_ns"][rows])


def _calls_of(trace: Trace, process: int) -> _Work:
    """Calls that take a while; generators are mostly context managers, open for as long as their block."""
    calls = trace.calls
    threads = [number for number, thread in enumerate(trace.threads) if thread.process == process]
    opened = np.array([function.kind in _OPEN_ENDED for function in trace.functions], bool)
    mine = np.isin(calls["thread"], threads) & (calls["duration_ns"] >= _LONG_NS)
    rows = np.flatnonzero(mine & ~opened[calls["function"]])
    return _Work(rows, calls["start_ns"][rows], calls["start_ns"][rows] + calls["duration_ns"][rows])


def _imports(trace: Trace, calls: _Work) -> _Work:
    """Of some calls those that import a module: what that takes is needed once, and is no finding."""
    modules = np.array([f.qualname == "<module>" and f.module != "__main__" for f in trace.functions], bool)
    chosen = modules[trace.calls["function"][calls.rows]]
    return _Work(calls.rows[chosen], calls.begin[chosen], calls.end[chosen])


def _growths_within(trace: Trace, memory: _Memory, calls: _Work, least: int) -> Iterator[ResourceIssue]:
    scopes = _scopes_of(trace, memory.process)
    work = scopes if len(scopes.rows) else calls
    resident = memory.resident
    first, behind = memory.during(work.begin, work.end)
    sampled = np.flatnonzero(behind - first >= 2)
    durations = work.end - work.begin
    grown: list[tuple[int, int, int, int, int]] = []  # -growth, lasted, row, first sample, that of the peak
    for row, low, high, lasted in zip(
        *(column[sampled].tolist() for column in (work.rows, first, behind, durations)), strict=True
    ):
        top = low + int(np.argmax(resident[low:high]))
        growth = int(resident[top] - resident[low])
        if growth >= least and growth >= _GROWTH_SHARE * resident[low]:
            grown.append((-growth, lasted, row, low, top))
    told: list[tuple[int, int]] = []
    for _, _, row, low, top in sorted(grown):
        if any(low < end and begin < top for begin, end in told):
            continue  # a part of what is told already
        told.append((low, top))
        stack = _blamed(trace, memory, calls, low, top)
        if not stack or stack[0].function != "<module>":  # a program's own body: it is run once
            yield _growth(trace, memory, row if work is scopes else -1, low, top, stack)


def _blamed(trace: Trace, memory: _Memory, calls: _Work, low: int, top: int) -> tuple[Location, ...]:
    """The innermost call in which most of a growth happened, and its callers."""
    resident = memory.resident
    growth = resident[top] - resident[low]
    first, behind = memory.during(calls.begin, calls.end, more=1)
    inside = np.flatnonzero((first < top) & (behind > low + 1))
    durations = calls.end - calls.begin
    for at in inside[np.argsort(durations[inside], kind="stable")].tolist():
        mine = resident[max(first[at], low) : behind[at]]
        if len(mine) and np.max(mine) - mine[0] >= _MOST_OF_IT * growth:
            return calling_stack(trace, int(calls.rows[at]))
    return ()


def _growth(
    trace: Trace, memory: _Memory, scope: int, low: int, top: int, stack: tuple[Location, ...]
) -> ResourceIssue:
    growth = int(memory.resident[top] - memory.resident[low])
    if scope < 0:
        subject, identity, what = f"process {trace.processes[memory.process].pid}", 0, "program"
    else:
        row = trace.scopes.at(scope)
        name = f"{row.name.partition(' ')[0]} {row.route}" if row.route else row.name
        subject, identity, what = f"{row.kind} {name}".strip(), row.id, row.kind
    where = f", most of it in {stack[0].function}" if stack else ""
    return ResourceIssue(
        kind="memory_growth",
        subject=subject,
        amount=growth,
        time_ns=int(memory.time[top]),
        duration_ns=int(memory.time[top] - memory.time[low]),
        waited_ns=0,
        call_site=stack[0] if stack else _NOWHERE,
        explanation=f"The process took {growth / 2**20:.0f} MiB more during this {what}{where}: several at once take "
        "so much each, and what one has taken the process seldom gives back.",
        suggestion="Go through the data a part at a time (yield_per and a server-side cursor, a generator, a chunked "
        "response) instead of holding all of it, and keep no copies.",
        stack=stack,
        scope=identity,
    )
