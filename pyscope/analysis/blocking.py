"""Calls that block an event loop: what ran in one step of a task for so long that nothing else could.

Told of by the probe of the loop, which samples the stack meanwhile; found in the recorded calls where a plain
function, which cannot suspend, ran in a task; and in blocking calls and synchronous statements that probes
saw in a task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.call_sites import call_site, calling_stack
from pyscope.analysis.counting import duration
from pyscope.events.external import EXTERNAL_BEGIN, EXTERNAL_END
from pyscope.events.runtime_health import LOOP_BLOCKED, LOOP_LAG
from pyscope.events.sql import STATEMENT
from pyscope.events.sync import LOCK, LOCK_MADE, LockStep
from pyscope.findings import PerformanceIssue
from pyscope.format import Kind
from pyscope.rows import Location

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["find"]

_MOST_OF_IT = 0.5
_TICK_NS = 20_000_000  # how well the probe of the loop knows a duration
_PLAIN = ("function", "c_function")
_RUNNING = (Kind.CALL, Kind.RETURN, Kind.RAISE, Kind.GEN_START, Kind.GEN_RESUME, Kind.GEN_THROW, Kind.GEN_RETURN,
            Kind.GEN_RAISE)  # fmt: skip


@dataclass(slots=True)
class _Stretch:
    """A time in which a task did not let go of its thread, and what is known of where."""

    thread: int
    context: int
    start_ns: int
    end_ns: int
    stack: tuple[Location, ...] = ()
    what: str = ""  # a name for what took the time
    advice: str = ""
    task: str = ""
    scope: int = 0

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


def find(trace: Trace, least_ns: int) -> list[PerformanceIssue]:
    """The places that blocked an event loop for `least_ns` and longer; one finding each."""
    found: list[_Stretch] = []
    for inside in (_external, _statements, _locks, _plain_calls, _own_steps):
        for stretch in inside(trace, least_ns):
            _merge(found, stretch)
    found += _told(trace, found, least_ns)
    found = _without_cells(trace, found)
    places: dict[tuple[Location, str], list[_Stretch]] = {}
    for stretch in found:
        places.setdefault((call_site(stretch.stack), stretch.what), []).append(stretch)
    return [_issue(trace, stretches) for stretches in places.values()]


def _merge(found: list[_Stretch], new: _Stretch) -> None:
    """What was found first says best what took the time; what comes later may show that it took longer."""
    for known in reversed(found):
        overlap = min(known.end_ns, new.end_ns) - max(known.start_ns, new.start_ns)
        if known.thread == new.thread and known.context == new.context and overlap > 0:
            if overlap >= _MOST_OF_IT * new.duration_ns:
                known.start_ns = min(known.start_ns, new.start_ns)
                known.end_ns = max(known.end_ns, new.end_ns)
                known.stack = known.stack or new.stack
                return
            if overlap >= _MOST_OF_IT * known.duration_ns:  # a part of it only
                continue
    found.append(new)


def _told(trace: Trace, found: list[_Stretch], least_ns: int) -> list[_Stretch]:
    """What the probe of the loop saw. It knows to a tick how long, and of when only the round of the loop; but where.

    What is found by other means is given the place where it was seen; the rest is returned.
    """
    events = trace.probe_events(LOOP_BLOCKED)
    rows = np.flatnonzero(events["duration_ns"] >= least_ns)
    rounds = trace.probe_events(LOOP_LAG)
    others = []
    taken: set[int] = set()
    for row in events.records(rows):
        lags = np.flatnonzero((rounds["loop"] == row.loop) & (rounds["time_ns"] <= row.time_ns))
        began = row.time_ns - (int(rounds["lag_ns"][lags[-1]]) if len(lags) else row.duration_ns) - _TICK_NS
        same = [
            stretch
            for stretch in found
            if stretch.thread == row.thread
            and id(stretch) not in taken
            and stretch.start_ns >= began
            and stretch.end_ns <= row.time_ns
            and row.task in ("", trace.contexts[stretch.context].name)  # which makes one step a round
        ]
        unknown = row.duration_ns - sum(stretch.duration_ns for stretch in same)
        if same:
            best = max(same, key=lambda stretch: stretch.duration_ns)
            taken.add(id(best))
            if row.stack and (not best.stack or row.stack[0].function == best.stack[0].function):
                best.stack = row.stack
        if unknown - _TICK_NS >= least_ns:
            others.append(
                _Stretch(
                    row.thread,
                    row.context,
                    row.time_ns - row.duration_ns,
                    row.time_ns,
                    stack=row.stack,
                    task=row.task,
                    scope=row.scope,
                )
            )
    return others


def _without_cells(trace: Trace, found: list[_Stretch]) -> list[_Stretch]:
    """Without what cells of a notebook run as plain code: the loop around them is the kernel's, and waits for them."""
    kernels = {
        number for number, process in enumerate(trace.processes) if "ipykernel_launcher" in process.argv[:3]
    }
    if not kernels:
        return found
    coroutines = {(each.file, each.qualname) for each in trace.functions if each.kind == "coroutine"}
    return [
        stretch
        for stretch in found
        if trace.threads[stretch.thread].process not in kernels
        or any((place.file, place.function) in coroutines for place in stretch.stack)
    ]


def _external(trace: Trace, least_ns: int) -> list[_Stretch]:
    """Clients that wait in the thread itself."""
    begins, ends = trace.probe_events(EXTERNAL_BEGIN), trace.probe_events(EXTERNAL_END)
    long = ends["duration_ns"] >= least_ns
    durations = dict(zip(ends["attempt"][long].tolist(), ends["duration_ns"][long].tolist(), strict=True))
    rows = np.flatnonzero(
        (begins["blocking"] > 0)
        & np.isin(begins["attempt"], list(durations))
        & trace.contexts.of_kind("task", begins["context"])
    )
    return [
        _Stretch(
            row.thread,
            row.context,
            row.time_ns,
            row.time_ns + durations[row.attempt],
            stack=row.stack,
            what=f"{row.client}: {row.operation} to {row.peer}",
            advice="Use the client's asynchronous interface, or await asyncio.to_thread(...).",
            scope=row.scope,
        )
        for row in begins.records(rows)
    ]


def _statements(trace: Trace, least_ns: int) -> list[_Stretch]:
    """Statements of a synchronous driver: an asynchronous engine's run in greenlets."""
    events = trace.probe_events(STATEMENT)
    rows = np.flatnonzero(
        (events["duration_ns"] >= least_ns) & trace.contexts.of_kind("task", events["context"])
    )
    return [
        _Stretch(
            row.thread,
            row.context,
            row.time_ns - row.duration_ns,
            row.time_ns,
            stack=row.stack,
            what=f"SQL: {row.statement[:120]}",
            advice="Use SQLAlchemy's asynchronous engine, or run it with await asyncio.to_thread(...).",
            scope=row.scope,
        )
        for row in events.records(rows)
    ]


def _locks(trace: Trace, least_ns: int) -> list[_Stretch]:
    """Locks of `threading` that a task waited for; those of asyncio suspend it, and count as semaphores."""
    made = trace.probe_events(LOCK_MADE)
    names = trace.strings
    of_threads = [names[name] != "semaphore" for name in made["name"].tolist()]
    events = trace.probe_events(LOCK)
    rows = np.flatnonzero(
        (events["step"] == LockStep.ACQUIRED)
        & (events["waited_ns"] >= least_ns)
        & np.isin(events["lock"], made["lock"][np.array(of_threads, bool)])
        & trace.contexts.of_kind("task", events["context"])
    )
    return [
        _Stretch(
            row.thread,
            row.context,
            row.time_ns - row.waited_ns,
            row.time_ns,
            stack=calling_stack(trace, row.call),
            what="a lock that another thread holds",
            advice="Use asyncio.Lock between tasks; take a threading.Lock with await asyncio.to_thread(...).",
            scope=row.scope,
        )
        for row in events.records(rows)
    ]


def _plain_calls(trace: Trace, least_ns: int) -> list[_Stretch]:
    """Plain functions in tasks, the outermost of each stack, named after the callee that took the time."""
    calls = trace.calls
    plain = np.array([function.kind in _PLAIN for function in trace.functions] or [False])
    rows = np.flatnonzero(calls["duration_ns"] >= least_ns)
    rows = rows[plain[calls["function"][rows]] & trace.contexts.of_kind("task", calls["context"][rows])]
    parent = calls["parent"]
    found = []
    chosen = set(rows.tolist())
    for row in rows.tolist():
        if int(parent[row]) in chosen:
            continue
        start = int(calls["start_ns"][row])
        inner = _takes_most(trace, row)
        function = trace.functions[int(calls["function"][inner])]
        found.append(
            _Stretch(
                int(calls["thread"][row]),
                int(calls["context"][row]),
                start,
                start + int(calls["duration_ns"][row]),
                stack=calling_stack(trace, inner),
                what=function.qualname,
                advice=f"Run {function.name} with await asyncio.to_thread(...), or in a process if it computes.",
            )
        )
    return found


def _takes_most(trace: Trace, row: int) -> int:
    """The innermost callee with most of a call's time."""
    duration = trace.calls["duration_ns"]
    for _ in range(1000):
        children = trace.call(row).children().rows
        if not len(children):
            return row
        longest = int(children[np.argmax(duration[children])])
        if duration[longest] < _MOST_OF_IT * duration[row]:
            return row
        row = longest
    return row


def _own_steps(trace: Trace, least_ns: int) -> list[_Stretch]:
    """Coroutines that hold the thread themselves: two of their events far apart, and no suspension between."""
    calls = trace.calls
    plain = np.array([function.kind in _PLAIN for function in trace.functions] or [False])
    rows = np.flatnonzero(calls["self_ns"] >= least_ns)
    rows = rows[~plain[calls["function"][rows]] & trace.contexts.of_kind("task", calls["context"][rows])]
    if not len(rows):
        return []
    events = trace.events
    mine = np.flatnonzero(
        np.isin(events["context"], np.unique(calls["context"][rows]))
        & (events["kind"] != Kind.PAYLOAD)  # says nothing of who runs; the event before it does
    )
    order = mine[np.lexsort((events["time_ns"][mine], events["context"][mine], events["thread"][mine]))]
    time, context, thread = (events[name][order] for name in ("time_ns", "context", "thread"))
    far = np.flatnonzero(
        (np.diff(time) >= least_ns)
        & (np.diff(context) == 0)
        & (np.diff(thread) == 0)
        & np.isin(events["kind"][order[:-1]], _RUNNING)
    )
    found = []
    for at in far.tolist():
        row = _running(trace, rows, int(thread[at]), int(context[at]), int(time[at]), int(time[at + 1]))
        if row is None:
            continue
        function = trace.functions[int(calls["function"][row])]
        found.append(
            _Stretch(
                int(thread[at]),
                int(context[at]),
                int(time[at]),
                int(time[at + 1]),
                stack=calling_stack(trace, row),
                what=function.qualname,
                advice=f"Something in {function.name} blocks (time.sleep, a file, a computation): await its "
                "asynchronous form, or run it with await asyncio.to_thread(...).",
            )
        )
    return found


def _running(
    trace: Trace, rows: NDArray[np.int64], thread: int, context: int, start: int, end: int
) -> int | None:
    """Which of some calls was the innermost that ran from `start` to `end`."""
    calls = trace.calls
    inside = rows[
        (calls["thread"][rows] == thread)
        & (calls["context"][rows] == context)
        & (calls["start_ns"][rows] <= start)
        & (calls["start_ns"][rows] + calls["duration_ns"][rows] >= end)
    ]
    return int(inside[np.argmax(calls["depth"][inside])]) if len(inside) else None


def _issue(trace: Trace, stretches: list[_Stretch]) -> PerformanceIssue:
    worst = max(stretches, key=lambda stretch: stretch.duration_ns)
    total = sum(stretch.duration_ns for stretch in stretches)
    often = "once" if len(stretches) == 1 else f"{len(stretches)} times"
    place = call_site(worst.stack)
    name = worst.what or place.function or "a callback"
    task = worst.task or (trace.contexts[worst.context].name if worst.context else "")
    return PerformanceIssue(
        kind="blocking_call_in_event_loop",
        query_count=0,
        statement="",
        parent_statement="",
        relationship="",
        call_site=place,
        suggestion=worst.advice
        or "Await the asynchronous form of what is called there, or run it with await asyncio.to_thread(...).",
        total_ms=total / 1e6,
        scope=worst.scope,
        explanation=f"{name} blocked the event loop {often}, up to {duration(worst.duration_ns)}: no other task of "
        "the thread could run.",
        time_ns=worst.start_ns,
        duration_ns=worst.duration_ns,
        thread=trace.threads[worst.thread].name,
        context=task or None,
        stack=worst.stack,
        count=len(stretches),
    )
