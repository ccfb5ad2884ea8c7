"""What a person wants to know first of a trace: where time went, what was slow, what failed, what is missing.

One pass of numpy over the columns; nothing here loops over calls.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = [
    "CallRow",
    "Cost",
    "ExceptionRow",
    "FunctionRow",
    "LossRow",
    "ProcessRow",
    "Summary",
    "reason_of",
    "summarize",
]

Order: TypeAlias = Literal["self", "total", "calls"]


@dataclass(frozen=True, slots=True)
class FunctionRow:
    name: str  # module.qualname
    file: str
    line: int
    calls: int
    self_ns: int
    total_ns: int  # of a recursive function: its outermost calls only


@dataclass(frozen=True, slots=True)
class CallRow:
    name: str
    file: str
    line: int
    start_ns: int  # since the trace's start
    duration_ns: int
    self_ns: int
    pid: int
    thread: str
    context: str | None  # task or greenlet; None: the thread itself
    outcome: str
    exception: str | None


@dataclass(frozen=True, slots=True)
class ExceptionRow:
    exception: str
    name: str  # the function it first left
    file: str
    line: int
    count: int


@dataclass(frozen=True, slots=True)
class LossRow:
    reason: str
    pid: int | None  # None: unknown
    count: int | None  # events; None: unknown
    start_ns: int  # since the trace's start
    end_ns: int


@dataclass(frozen=True, slots=True)
class ProcessRow:
    pid: int
    command: str
    python: str
    backend: str
    state: str
    threads: int
    events: int


@dataclass(frozen=True, slots=True)
class Cost:
    """The recorder's own cost, of all processes."""

    events: int
    events_per_second: float
    file_bytes: int
    bytes_per_event: float | None
    drain_cpu_ns: int
    drain_share: float | None  # of one CPU, over the duration
    ring_bytes: int


_LIVED_IN = 0.8  # of the recording's time


@dataclass(frozen=True, slots=True)
class Summary:
    """What `summarize` found. Times are in nanoseconds; lists are cut at its `limit`, best first.

    `listed`, `all_slowest`, `all_exceptions`: how many rows the tables, `slowest` and
    `exceptions` would have without it.
    """

    start_ns: int  # Unix time
    duration_ns: int
    calls: int
    functions: int
    threads: int
    contexts: int
    processes: Sequence[ProcessRow]
    tables: dict[Order, Sequence[FunctionRow]]  # one, or by self and by total time
    self_ns: int  # of all functions together
    slowest: Sequence[CallRow]  # the slowest call of each function
    exceptions: Sequence[ExceptionRow]
    listed: int
    all_slowest: int
    all_exceptions: int
    losses: Sequence[LossRow]
    cost: Cost

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def summarize(
    trace: Trace, *, limit: int = 10, sort: str | None = None, pattern: str | None = None
) -> Summary:
    """The summary of a trace.

    Parameters: `limit`, rows of each list; `sort`, "self", "total" or "calls" for one table of functions in
    this order, None for two, by self and by total time; `pattern`, a glob that the module.qualname (or the
    qualname alone) of a function must match to be listed.
    """
    start, length = trace.start_ns, trace.duration_ns
    rows = _functions(trace)
    listed = np.fromiter((_matches(row.name, pattern) for row in rows), bool, len(rows))
    orders: tuple[Order, ...] = ("self", "total")
    if sort is not None:
        orders = tuple(order for order in ("self", "total", "calls") if order == sort)
    exceptions = _exceptions(trace, rows, listed)
    slowest, all_slowest = _slowest(trace, rows, listed, start, limit)
    return Summary(
        start_ns=start,
        duration_ns=length,
        calls=len(trace.calls),
        functions=sum(row.calls > 0 for row in rows),
        threads=len(trace.threads),
        contexts=len(trace.contexts) - 1,  # the first stands for the threads themselves
        processes=_processes(trace),
        tables={order: _hottest(rows, listed, order, limit) for order in orders},
        self_ns=sum(row.self_ns for row in rows),
        slowest=slowest,
        exceptions=exceptions[:limit],
        listed=sum(row.calls > 0 and bool(at) for row, at in zip(rows, listed, strict=True)),
        all_slowest=all_slowest,
        all_exceptions=len(exceptions),
        losses=_losses(trace, start),
        cost=_cost(trace, length),
    )


def _functions(trace: Trace) -> list[FunctionRow]:
    return [
        FunctionRow(_name(f.module, f.qualname), f.file, f.line, f.calls, f.self_ns, f.total_ns)
        for f in trace.functions
    ]


def _name(module: str, qualname: str) -> str:
    return f"{module}.{qualname}" if module else qualname


def _matches(name: str, pattern: str | None) -> bool:
    return pattern is None or fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")


def _hottest(
    rows: Sequence[FunctionRow], listed: NDArray[np.bool_], order: Order, limit: int
) -> list[FunctionRow]:
    def key(row: FunctionRow) -> int:
        return {"self": row.self_ns, "total": row.total_ns, "calls": row.calls}[order]

    chosen = [row for row, is_listed in zip(rows, listed, strict=True) if is_listed and row.calls]
    return sorted(chosen, key=key, reverse=True)[:limit]


def _slowest(
    trace: Trace, rows: Sequence[FunctionRow], listed: NDArray[np.bool_], start: int, limit: int
) -> tuple[list[CallRow], int]:
    """One row for each function: a slow function called often would fill the table otherwise. And how many there are.

    Of a service, what it lives in (its main function, a loop that follows a queue) is no slow call.
    """
    duration: NDArray[np.int64] = trace.calls["duration_ns"]
    function: NDArray[np.int32] = trace.calls["function"]
    most = _LIVED_IN * trace.duration_ns if len(trace.scopes) else math.inf
    shown = np.flatnonzero(listed[function] & (duration < most)) if len(duration) else np.zeros(0, np.intp)
    if not len(shown):
        return [], 0
    longest = np.full(len(rows), -1, np.int64)
    np.maximum.at(longest, function[shown], duration[shown])
    rows_of_longest = shown[duration[shown] == longest[function[shown]]]
    _, first = np.unique(function[rows_of_longest], return_index=True)
    candidates = rows_of_longest[first]
    best = np.argsort(-duration[candidates], kind="stable")[:limit]
    return [_call(trace, rows, start, int(row)) for row in candidates[best]], len(candidates)


def _call(trace: Trace, rows: Sequence[FunctionRow], start: int, index: int) -> CallRow:
    from pyscope.trace import OUTCOMES

    columns = trace.calls
    function = rows[int(columns["function"][index])]
    thread = trace.threads[int(columns["thread"][index])]
    context_index = int(columns["context"][index])
    exception = int(columns["exception"][index])
    return CallRow(
        name=function.name,
        file=function.file,
        line=function.line,
        start_ns=int(columns["start_ns"][index]) - start,
        duration_ns=int(columns["duration_ns"][index]),
        self_ns=int(columns["self_ns"][index]),
        pid=trace.processes[thread.process].pid,
        thread=thread.name,
        context=trace.contexts[context_index].name if context_index else None,
        outcome=OUTCOMES[int(columns["outcome"][index])],
        exception=trace.exceptions[exception] if exception >= 0 else None,
    )


def _exceptions(trace: Trace, rows: Sequence[FunctionRow], listed: NDArray[np.bool_]) -> list[ExceptionRow]:
    """Each exception counts once, in the function it left first, not in those it passed through."""
    from pyscope.trace import OUTCOMES

    columns = trace.calls
    left = np.flatnonzero(columns["outcome"] == OUTCOMES.index("raised"))
    if not len(left):
        return []
    exception = columns["exception"][left].astype(np.int64)
    parent = columns["parent"][left].astype(np.int64)
    kinds = len(trace.exceptions) + 1
    passed_on_to = parent[parent >= 0] * kinds + exception[parent >= 0] + 1
    first = ~np.isin(left * kinds + exception + 1, passed_on_to)
    function = columns["function"][left][first].astype(np.int64)
    first[first] = listed[function]
    function = columns["function"][left][first].astype(np.int64)
    pairs, counts = np.unique(function * kinds + exception[first] + 1, return_counts=True)
    found = []
    for at in np.argsort(-counts, kind="stable"):
        row = rows[int(pairs[at]) // kinds]
        number = int(pairs[at]) % kinds - 1
        name = trace.exceptions[number] if number >= 0 else "an exception"
        found.append(ExceptionRow(name, row.name, row.file, row.line, int(counts[at])))
    return found


_REASONS = {
    "ring_full": "the ring was full: drain or disk did not keep up",
    "stack_guard": "the hook stepped aside: little C stack was left",
    "fork": "between fork and the restart in the child",
    "fault": "an internal fault of the recorder",
    "write_error": "could not be written: the disk was full or failed",
    "overwritten": "older than the flight recorder's ring holds",
    "duty_cycle": "C calls outside the armed windows",
    "missing_pages": "pages are missing",
    "damaged_chunk": "part of the file is damaged",
    "damaged_block": "part of the file is damaged",
    "damaged_summary": "the recorder's own figures are damaged",
    "damaged_part": "the part of a child process is damaged",
    "truncated": "the file ends too early",
    "ring_gone": "the process was killed and its ring is gone",
}


def reason_of(reason: str) -> str:
    """Why something was lost, in words."""
    return _REASONS.get(reason, reason.replace("_", " "))


def _losses(trace: Trace, start: int) -> list[LossRow]:
    return [
        LossRow(
            reason=reason_of(loss.reason) + (f" ({loss.detail})" if loss.detail else ""),
            pid=loss.pid or None,
            count=loss.count or None,
            start_ns=loss.start_ns - start,
            end_ns=loss.end_ns - start,
        )
        for loss in trace.losses
    ]


def _processes(trace: Trace) -> list[ProcessRow]:
    threads = [thread.process for thread in trace.threads]
    return [
        ProcessRow(
            pid=process.pid,
            command=" ".join(process.argv),
            python=process.python,
            backend=process.backend,
            state=process.state,
            threads=threads.count(index),
            events=process.events,
        )
        for index, process in enumerate(trace.processes)
    ]


def _cost(trace: Trace, length: int) -> Cost:
    events = sum(process.events for process in trace.processes)
    file_bytes = sum(process.file_bytes for process in trace.processes)
    drain_ns = sum(process.drain_cpu_ns for process in trace.processes)
    return Cost(
        events=events,
        events_per_second=events / (length / 1e9) if length > 0 else 0.0,
        file_bytes=file_bytes,
        bytes_per_event=file_bytes / events if events else None,
        drain_cpu_ns=drain_ns,
        drain_share=drain_ns / length if length > 0 else None,
        ring_bytes=sum(process.ring_bytes for process in trace.processes),
    )
