"""Slow calls, and calls that keep an event loop from its work: what took the time, and what to change.

A slow call is one that takes long itself: neither most of it in one callee, which is the one then, nor a
frame that the whole program or a worker's loop runs in. Where libraries are recorded too, their calls are part of the
program's call that made them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis import blocking
from pyscope.analysis.asked import Asked, waited_for
from pyscope.analysis.call_sites import calling_stack, of_the_program
from pyscope.analysis.counting import counted, duration
from pyscope.analysis.placement import Placement
from pyscope.analysis.time_parts import Spent, of_calls, spent
from pyscope.findings import PerformanceIssue, TimeParts
from pyscope.rows import OUTCOMES, Location

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["BLOCKING_MS", "SLOW_MS", "find"]

SLOW_MS = 500.0
BLOCKING_MS = 100.0  # as asyncio's own slow_callback_duration

_MOST_OF_IT = 0.5  # a callee with so much of a call's time is the slow one
_NEARLY_ALL = 0.9
_MOST_CANDIDATES = 20_000
_OPEN_ENDED = ("generator", "async_generator")
_ENDED = tuple(OUTCOMES.index(name) for name in ("returned", "raised", "closed"))


def find(
    trace: Trace, *, slow_ms: float = SLOW_MS, blocking_ms: float = BLOCKING_MS, limit: int = 100
) -> list[PerformanceIssue]:
    """Slow calls (`slow_ms` and longer) and calls that block an event loop (`blocking_ms` and longer), in
    milliseconds.

    One finding a function, or a place that blocks; `count` says how often, `total_ms` how long altogether. In
    order of time; at most `limit` of each kind, those with the most time.
    """
    placement = Placement(trace)
    waits = spent(trace, placement)
    slow = _slow_calls(trace, placement, waits, int(slow_ms * 1e6))
    blocked = blocking.find(trace, int(blocking_ms * 1e6))
    found = [*_worst(slow, limit), *_worst(blocked, limit)]
    return sorted(found, key=lambda issue: issue.time_ns)


def _worst(issues: Iterable[PerformanceIssue], limit: int) -> list[PerformanceIssue]:
    return sorted(issues, key=lambda issue: -issue.total_ms)[:limit]


def _slow_calls(
    trace: Trace, placement: Placement, waits: dict[str, Spent], least: int
) -> list[PerformanceIssue]:
    calls = trace.calls
    duration: NDArray[np.int64] = calls["duration_ns"]
    slow = np.flatnonzero((duration >= least) & np.isin(calls["outcome"], _ENDED))
    if not len(slow):
        return []
    own = of_the_program(trace)
    slow = slow[own[calls["function"][slow]]]
    if len(slow) > _MOST_CANDIDATES:
        slow = np.sort(slow[np.argsort(-duration[slow], kind="stable")[:_MOST_CANDIDATES]])
    blamed = np.zeros(len(duration), bool)  # calls that have most of their time in one callee
    caller = _callers(placement.parent, slow, own, calls["function"])
    mine, caller = slow[caller >= 0], caller[caller >= 0]
    blamed[caller[duration[mine] >= _MOST_OF_IT * duration[caller]]] = True
    frames = _ProgramFrames(trace, placement, own)
    # A generator is mostly a context manager, open for as long as its block; an import is slow once.
    passed_over = np.array([f.kind in _OPEN_ENDED or f.qualname == "<module>" for f in trace.functions], bool)
    candidates = slow[~blamed[slow] & ~passed_over[calls["function"][slow]]]
    rows = [row for row in candidates.tolist() if not frames.has(row)]
    if not rows:
        return []
    parts = of_calls(trace, placement, waits)
    rows = [
        row
        for row in rows
        if frames.waited_for(row)
        or (
            _active(trace, row, parts) >= least
            and (_known(row, parts) >= _MOST_OF_IT * duration[row] or not frames.lets_others_work(row))
        )
    ]
    by_function: dict[int, list[int]] = {}
    for row in rows:
        by_function.setdefault(int(calls["function"][row]), []).append(row)
    return [_slow_issue(trace, function, rows, parts) for function, rows in by_function.items()]


def _active(trace: Trace, row: int, parts: dict[str, NDArray[np.int64]]) -> int:
    """What a call did, or waited for in ways that are known, in ns. A coroutine may wait for hours for its turn."""
    calls = trace.calls
    if trace.functions[int(calls["function"][row])].kind not in ("coroutine", "async_generator"):
        return int(calls["duration_ns"][row])
    children = trace.call(row).children().rows
    kinds = [trace.functions[int(calls["function"][child])].kind for child in children.tolist()]
    plain = children[np.array([kind in ("function", "c_function") for kind in kinds], bool)]
    return int(calls["self_ns"][row]) + int(calls["duration_ns"][plain].sum()) + _known(row, parts)


def _known(row: int, parts: dict[str, NDArray[np.int64]]) -> int:
    return sum(int(parts[name][row]) for name in ("sql_ns", "external_ns", "lock_ns"))


def _callers(
    parent: NDArray[np.int32], rows: NDArray[np.int64], own: NDArray[np.bool_], function: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The calls of the program's own that these were made by, through libraries too; -1 without one."""
    caller = parent[rows]
    while len(within := np.flatnonzero((caller >= 0) & ~own[function[caller]])):
        caller[within] = parent[caller[within]]
    return caller


class _ProgramFrames:
    """Tells calls from the frames that a program, a worker's loop or an event loop lives in: those take as long as
    there is something to do, and nobody waits for them."""

    def __init__(self, trace: Trace, placement: Placement, own: NDArray[np.bool_]) -> None:
        self._trace = trace
        self._start: NDArray[np.int64] = trace.calls["start_ns"]
        self._end: NDArray[np.int64] = self._start + trace.calls["duration_ns"]
        self._thread: NDArray[np.int32] = trace.calls["thread"]
        self._context: NDArray[np.int32] = trace.calls["context"]
        self._parent = placement.parent
        self._function: NDArray[np.int32] = trace.calls["function"]
        # A script's own top level calls its main(), and library code what a thread runs.
        scripts = [f.qualname == "<module>" and f.module == "__main__" for f in trace.functions]
        self._calls_program = np.array(scripts, bool) | ~own
        self._scopes = _ScopeTimes(trace)
        self._served = any(kind != "job" for kind in trace.scopes["kind"])
        self._switched: dict[int, NDArray[np.int64]] = {}
        self._entries: tuple[NDArray[np.intp], NDArray[np.int64]] | None = None

    def _in_tasks(self, thread: int) -> NDArray[np.int64]:
        """When calls in tasks and greenlets began on a thread, in order."""
        found = self._switched.get(thread)
        if found is None:
            found = np.sort(self._start[(self._thread == thread) & (self._context > 0)])
            self._switched[thread] = found
        return found

    def waited_for(self, row: int) -> bool:
        """Whether a call is part of a request, message or report: somebody waits for it, whatever it does."""
        return self._scopes.cover(int(self._thread[row]), int(self._context[row]), int(self._start[row]))

    def has(self, row: int) -> bool:
        """Whether a call is such a frame."""
        thread, context = int(self._thread[row]), int(self._context[row])
        start, end = int(self._start[row]), int(self._end[row])
        if self.waited_for(row):
            return False
        if self._served:  # what belongs to no scope of a service is the service's own running
            return True
        if not context:
            first, last = np.searchsorted(self._in_tasks(thread), [start, end])
            if last > first:  # it ran an event loop
                return True
        around = int(self._parent[row])
        while around >= 0 and self._calls_program[self._function[around]]:
            around = int(self._parent[around])
        return around < 0 and len(self._trace.call(row).children()) > 1

    def lets_others_work(self, row: int) -> bool:
        """Whether a call is the main thread's, as long as it is there, that waits while other threads do the work."""
        thread = int(self._thread[row])
        found = self._trace.threads[thread]
        if found.os_tid != self._trace.processes[found.process].pid or not self._is_outer(row):
            return False
        if self._trace.calls["self_ns"][row] < _NEARLY_ALL * (self._end[row] - self._start[row]):
            return False
        return self._entries_elsewhere(thread, int(self._start[row]), int(self._end[row])) > 1

    def _is_outer(self, row: int) -> bool:
        """Whether a call is the outermost of its thread, but for an import and for calls that do nothing else."""
        while (parent := int(self._parent[row])) >= 0:
            lasts_as_long = self._end[row] - self._start[row] >= _NEARLY_ALL * (
                self._end[parent] - self._start[parent]
            )
            function = self._trace.functions[int(self._trace.calls["function"][parent])]
            if not lasts_as_long and function.qualname != "<module>":
                return False
            row = parent
        return True

    def _entries_elsewhere(self, thread: int, start: int, end: int) -> int:
        """How often other threads of the process came into the program's code: jobs of a pool, handlers of a server,
        for which the main thread waits."""
        if self._entries is None:
            rows = np.flatnonzero((self._parent < 0) & (self._context == 0))
            of = np.array([each.process for each in self._trace.threads], np.int64)[self._thread[rows]]
            self._entries = rows, of
        rows, of = self._entries
        starts = self._start[rows]
        there = (of == self._trace.threads[thread].process) & (self._thread[rows] != thread)
        return int((there & (starts > start) & (starts < end)).sum())


class _ScopeTimes:
    """When scopes ran that somebody waits for, by thread and context."""

    def __init__(self, trace: Trace) -> None:
        scopes = trace.scopes
        self._spans: dict[tuple[int, int], list[tuple[int, int]]] = {}
        columns = (scopes[name].tolist() for name in ("thread", "context", "start_ns", "end_ns"))
        for thread, context, start, end, name, kind in zip(
            *columns, scopes["name"], scopes["kind"], strict=True
        ):
            # The first is open for as long as its client likes; a job's caller has gone on.
            if name.startswith("WEBSOCKET") or kind == "job":
                continue
            self._spans.setdefault((thread, context), []).append((start, end))

    def cover(self, thread: int, context: int, time: int) -> bool:
        """Whether a scope ran there then."""
        return any(start <= time < end for start, end in self._spans.get((thread, context), ()))


def _slow_issue(
    trace: Trace, number: int, rows: list[int], parts: dict[str, NDArray[np.int64]]
) -> PerformanceIssue:
    calls = trace.calls
    function = trace.functions[number]
    durations = calls["duration_ns"][rows]
    worst = rows[int(np.argmax(durations))]
    total = int(durations.sum())
    sums: dict[str, Any] = {name: int(column[rows].sum()) for name, column in parts.items()}
    time_parts = TimeParts(wall_ns=total, **sums)
    asked = waited_for(trace, worst) if _known_share(time_parts) < _MOST_OF_IT else None
    place = Location(function.file, function.line, function.qualname)
    context = int(calls["context"][worst])
    start = int(calls["start_ns"][worst])
    scope = _scope_at(trace, int(calls["thread"][worst]), context, start)
    around = trace.scopes.get(scope)
    return PerformanceIssue(
        kind="slow_call",
        query_count=time_parts.sql_count,
        statement="",
        parent_statement="",
        relationship="",
        call_site=place,
        suggestion=_suggestion(
            function.name,
            time_parts,
            function.kind,
            asked,
            served=around is not None and around.kind != "job",
        ),
        total_ms=total / 1e6,
        scope=scope,
        explanation=_explanation(function.qualname, len(rows), int(durations.max()), time_parts, asked),
        time_ns=start,
        duration_ns=int(durations.max()),
        thread=trace.threads[int(calls["thread"][worst])].name,
        context=trace.contexts[context].name if context else None,
        stack=calling_stack(trace, worst),
        count=len(rows),
        parts=time_parts,
    )


def _scope_at(trace: Trace, thread: int, context: int, time: int) -> int:
    scopes = trace.scopes
    inside = (
        (scopes["thread"] == thread)
        & (scopes["context"] == context)
        & (scopes["start_ns"] <= time)
        & (scopes["end_ns"] > time)
    )
    rows = np.flatnonzero(inside)
    return int(scopes["id"][rows[-1]]) if len(rows) else 0


def _known_share(parts: TimeParts) -> float:
    return parts.sql_share + parts.external_share + parts.lock_share


def _explanation(name: str, count: int, longest: int, parts: TimeParts, asked: Asked | None) -> str:
    often = "once" if count == 1 else f"{count} times"
    shares = [
        f"{share:.0%} {what}"
        for share, what in (
            (parts.sql_share, f"in {counted(parts.sql_count, 'SQL statement')}"),
            (parts.external_share, f"in {counted(parts.external_count, 'attempt')} to call other services"),
            (parts.lock_share, "waiting for locks"),
        )
        if share >= 0.01
    ]
    if asked is not None:
        shares.append(
            f"it waited for {asked.actor}'s answer to {asked.message}, which stood in the mailbox for "
            f"{duration(asked.waited_ns)} and took {duration(asked.handled_ns)}"
        )
    where = (
        f": {', '.join(shares)}" if shares else ": none of it in SQL, calls to other services or lock waits"
    )
    return f"{name} was slow {often}, up to {duration(longest)}{where}."


def _suggestion(name: str, parts: TimeParts, kind: str, asked: Asked | None, *, served: bool) -> str:
    if asked is not None and asked.waited_ns > asked.handled_ns:
        return (
            f"{asked.actor} handles one message after another, and this one stood behind others: see what they take, "
            "shorten it, or share the work among several actors."
        )
    if asked is not None:
        return f"Shorten what {asked.actor} does for {asked.message}, or do not wait for its answer."
    share, what = max(
        (parts.sql_share, "sql"),
        (parts.external_share, "external"),
        (parts.lock_share, "lock"),
        key=lambda part: part[0],
    )
    if share < _MOST_OF_IT:
        if kind in ("coroutine", "async_generator"):
            return f"{name} computes, or waits for something that is not watched: see what it awaits."
        elsewhere = ", or do it after the answer" if served else ""  # nobody waits for a job's
        return f"{name} computes, or waits for something that is not watched: profile it{elsewhere}."
    if what == "sql" and parts.sql_count > 10:
        return (
            f"{parts.sql_count} statements: load what they fetch in a few, and see the findings of queries."
        )
    if what == "sql":
        return "A few statements take this time: look at their plans (EXPLAIN) and indexes, and fetch less."
    if what == "external" and parts.external_count > 1:
        return (
            "Call the other services side by side where none needs another's answer, and set short timeouts."
        )
    if what == "external":
        return "Set a short timeout, keep the answer in a cache, or do it after the caller has been answered."
    return "Hold the lock for less time, or split what it guards: take slow work out of the locked part."
