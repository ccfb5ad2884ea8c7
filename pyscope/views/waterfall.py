"""One request, span by span: its calls, statements, calls to other services and waits for locks; the messages that it
sent are spans too, with all that was done for them."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis import external
from pyscope.analysis.call_sites import call_site
from pyscope.analysis.counting import duration
from pyscope.analysis.placement import Placement
from pyscope.analysis.scope_calls import ByScope, ScopeCalls
from pyscope.events.sql import STATEMENT
from pyscope.events.sync import LOCK, LOCK_MADE, LockStep
from pyscope.findings import ExternalCall
from pyscope.rows import OUTCOMES, Location
from pyscope.scopes import ScopeRow
from pyscope.views.recorded_values import RecordedValues
from pyscope.views.requests import Requests
from pyscope.views.values import NAME, TEXT, ms, place, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["MOST_SPANS", "Waterfalls", "of_request"]

MOST_SPANS = 4000

_MOST_SCOPES = 200
_MOST_EVENTS = 20_000
_MOST_ATTEMPTS = 100
_DEEPEST = 1000
_SHORTEST_WAIT_NS = 10_000


def of_request(trace: Trace, identity: str, limit: int = MOST_SPANS) -> dict[str, Any] | None:
    """The request with this id and its spans, the `limit` longest; None if there is no such request."""
    return Waterfalls(trace).of(identity, limit)


@dataclass(slots=True)
class _Span:
    kind: str
    name: str
    start_ns: int
    duration_ns: int
    self_ns: int = -1
    detail: str = ""
    outcome: str = ""
    error: str = ""
    location: dict[str, Any] | None = None
    above: _Span | None = None
    number: int = field(default=0)
    depth: int = 0
    row: int = -1  # in Trace.calls


class Waterfalls:
    """Waterfalls of one trace: what they have in common is made once.

    `calls`, `findings`: what `pyscope.analysis.external.find` and `pyscope.views.findings.by_scope` gave, if known.
    """

    def __init__(
        self,
        trace: Trace,
        *,
        calls: Sequence[ExternalCall] | None = None,
        findings: dict[int, int] | None = None,
        placement: Placement | None = None,
    ) -> None:
        self._trace = trace
        self._placement = placement or Placement(trace)
        self._requests = Requests(trace, findings, self._placement)
        self._calls_of = ScopeCalls(trace, self._placement)
        self._statements = ByScope(trace.probe_events(STATEMENT)["scope"])
        self._values = RecordedValues(trace)
        locks = trace.probe_events(LOCK)
        waited = (locks["step"] == LockStep.ACQUIRED) & (locks["waited_ns"] >= _SHORTEST_WAIT_NS)
        self._waits = ByScope(np.where(waited, locks["scope"], 0))
        self._inner = ByScope(trace.scopes["parent"])
        self._external: dict[int, list[ExternalCall]] = {}
        for call in external.find(trace) if calls is None else calls:
            if call.scope:
                self._external.setdefault(call.scope, []).append(call)

    def of(self, identity: str, limit: int = MOST_SPANS) -> dict[str, Any] | None:
        """As `of_request`."""
        if not (identity.isascii() and identity.isdigit() and len(identity) < 20):
            return None
        row = self._trace.scopes.row(int(identity))
        if row < 0:
            return None
        limit = max(1, limit)
        spans, left_out = self._spans(self._trace.scopes.at(row), limit)
        kept = _longest(spans, limit)
        start = spans[0].start_ns
        return {
            "request": self._requests.at(row),
            "spans": [_plain(span, start) for span in kept],
            "cut": left_out + len(spans) - len(kept),
        }

    # what belongs to it

    def _spans(self, scope: ScopeRow, limit: int) -> tuple[list[_Span], int]:
        """The request's own first, and enough of each kind to choose from; and how many others were left out."""
        scopes, left_out = self._scopes(scope)
        spans = {one.id: _scope_span(one, self._values.of_scope(one.id)) for one in scopes}
        for one in scopes[1:]:
            spans[one.id].above = spans[one.parent]
        calls: dict[int, _Span] = {}
        by_scope: dict[int, list[_Span]] = {}
        taken = np.zeros(len(self._trace.calls), bool)
        for one in reversed(scopes):  # what a message did is not its sender's
            rows = self._calls_of.rows(one)
            rows = rows[~taken[rows]]
            taken[rows] = True
            kept = _widest(rows, self._trace.calls["duration_ns"], limit)
            left_out += len(rows) - len(kept)
            by_scope[one.id] = self._calls(kept.tolist(), spans[one.id])
            calls |= {span.row: span for span in by_scope[one.id]}
        for one in scopes[1:]:  # sent by the call that ran then
            spans[one.id].above = _running(by_scope[one.parent], spans[one.id].start_ns) or spans[one.parent]
        found = [*spans.values(), *calls.values()]
        for one in scopes:
            statements = self._statements.rows(one.id)
            kept = _widest(statements, self._trace.probe_events(STATEMENT)["duration_ns"], limit)
            left_out += len(statements) - len(kept)
            found += self._queries(kept, spans[one.id], calls)
            external_calls = self._external.get(one.id, [])
            left_out += max(0, len(external_calls) - _MOST_EVENTS)
            left_out += sum(max(0, len(call.attempts) - _MOST_ATTEMPTS) for call in external_calls)
            left_out += max(0, len(self._waits.rows(one.id)) - _MOST_EVENTS)
            found += self._external_calls(external_calls, spans[one.id], calls)
            found += self._locks(one.id, spans[one.id], calls)
        return found, left_out

    def _scopes(self, scope: ScopeRow) -> tuple[list[ScopeRow], int]:
        """A scope and those within it, outer ones first; and how many more there are."""
        found, seen = [scope], {scope.id}
        for outer in found:
            for row in self._inner.rows(outer.id).tolist():
                inner = self._trace.scopes.at(row)
                if inner.id not in seen:
                    seen.add(inner.id)
                    if len(found) < _MOST_SCOPES:
                        found.append(inner)
        return found, len(seen) - len(found)

    def _calls(self, rows: list[int], above: _Span) -> list[_Span]:
        made = {row: self._call(row) for row in rows}
        for row, span in made.items():
            span.above = made.get(self._known(row, made), above)
        return list(made.values())

    def _known(self, row: int, made: dict[int, _Span]) -> int:
        """The nearest caller that has a span, -1 for none."""
        parent = self._placement.parent
        for _ in range(_DEEPEST):
            row = int(parent[row])
            if row < 0 or row in made:
                return row
        return -1

    # spans

    def _call(self, row: int) -> _Span:
        call = self._trace.call(row)
        function = self._trace._names.functions[int(self._trace.calls["function"][row])]
        where = call.context or call.thread
        return _Span(
            "call",
            f"{call.module}.{call.qualname}".removeprefix("."),
            call.start_ns,
            call.duration_ns,
            call.self_ns,
            where,
            OUTCOMES[int(self._trace.calls["outcome"][row])],
            call.exception or "",
            place(Location(function.file, function.line, function.qualname)),
            row=row,
        )

    def _queries(self, rows: NDArray[np.intp], above: _Span, calls: dict[int, _Span]) -> Iterable[_Span]:
        events = self._trace.probe_events(STATEMENT)
        where = _Rows(events, rows)
        calls_of = self._placement.calls(where).tolist()
        for row, record, call in zip(rows.tolist(), events.records(rows), calls_of, strict=True):
            parameters = self._values.of_statement(row)
            is_whole = len(record.statement) <= NAME and not parameters
            yield _Span(
                "query",
                " ".join(record.statement.split())[:NAME],
                record.time_ns - record.duration_ns,
                record.duration_ns,
                -1,
                "" if is_whole else "\n".join(filter(None, (record.statement, parameters))),
                "raised" if record.error else "returned",
                record.error,
                place(call_site(record.stack)),
                self._nearest(call, calls, above),
            )

    def _external_calls(
        self, found: list[ExternalCall], above: _Span, calls: dict[int, _Span]
    ) -> Iterable[_Span]:
        for call in found[:_MOST_EVENTS]:
            span = _external_span(call)
            span.above = self._nearest(call.call, calls, above)
            yield span
            if len(call.attempts) > 1:
                yield from _attempts(call, span)

    def _locks(self, scope: int, above: _Span, calls: dict[int, _Span]) -> Iterable[_Span]:
        rows = self._waits.rows(scope)[:_MOST_EVENTS]
        if not len(rows):
            return
        names = dict(zip(*_columns(self._trace, LOCK_MADE, "lock", "name"), strict=True))
        for record in self._trace.probe_events(LOCK).records(rows):
            name = names.get(record.lock, "")
            yield _Span(
                "lock",
                f"waited for {name or 'a lock'}",
                record.time_ns - record.waited_ns,
                record.waited_ns,
                above=self._nearest(record.call, calls, above),
            )

    def _nearest(self, row: int, calls: dict[int, _Span], above: _Span) -> _Span:
        if row in calls:
            return calls[row]
        return calls.get(self._known(row, calls), above) if row >= 0 else above


class _Rows:
    """Some rows of events, as columns."""

    def __init__(self, events: Any, rows: NDArray[np.intp]) -> None:
        self._events = events
        self._rows = rows

    def __getitem__(self, name: str) -> Any:
        return self._events[name][self._rows]


def _columns(trace: Trace, event: Any, number: str, string: str) -> tuple[list[int], list[str]]:
    events = trace.probe_events(event)
    strings = trace.strings
    return events[number].tolist(), [strings[at] for at in events[string].tolist()]


def _scope_span(scope: ScopeRow, values: str) -> _Span:
    name = scope.name or scope.kind
    return _Span(
        "scope",
        name,
        scope.start_ns,
        max(0, scope.duration_ns),
        -1,
        "\n".join(filter(None, (scope.route, values))),
        scope.outcome,
        scope.error,
    )


def _widest(rows: NDArray[np.intp], durations: NDArray[np.int64], limit: int) -> NDArray[np.intp]:
    """The longest of some rows, in their order: more is not shown."""
    if len(rows) <= limit:
        return rows
    return rows[np.sort(np.argsort(-durations[rows], kind="stable")[:limit])]


def _running(calls: list[_Span], time_ns: int) -> _Span | None:
    """The innermost of some calls, in order of their begin, that ran at a time."""
    last = bisect.bisect_right(calls, time_ns, key=lambda span: span.start_ns)
    for span in calls[max(0, last - _DEEPEST) : last][::-1]:
        if span.start_ns + span.duration_ns > time_ns:
            return span
    return None


def _external_span(call: ExternalCall) -> _Span:
    error = next((attempt.error for attempt in reversed(call.attempts) if attempt.error), "")
    return _Span(
        "external",
        f"{call.service} {call.operation} {call.peer}".strip(),
        call.start_ns,
        call.duration_ns,
        -1,
        call.client,
        call.outcome,
        error if call.outcome != "succeeded" else "",
        place(call.call_site),
    )


def _attempts(call: ExternalCall, above: _Span) -> Iterable[_Span]:
    for number, attempt in enumerate(call.attempts[:_MOST_ATTEMPTS], 1):
        after = f"after {duration(attempt.backoff_ns)}" if attempt.backoff_ns else ""
        yield _Span(
            "attempt",
            f"attempt {number}",
            attempt.start_ns,
            attempt.duration_ns,
            -1,
            after,
            attempt.outcome,
            attempt.error,
            above=above,
        )


# --- what is shown ---------------------------------------------------------------------------------


def _longest(spans: list[_Span], limit: int) -> list[_Span]:
    """The longest spans, as a tree in order of time; the first is the request. What hung below one that is cut hangs
    below the nearest that is not."""
    root = spans[0]
    kept = spans
    if len(spans) > limit:
        kept = [root, *sorted(spans[1:], key=lambda span: -span.duration_ns)[: limit - 1]]
    chosen = set(map(id, kept))
    children: dict[int, list[_Span]] = {}
    for span in kept:
        if span is root:
            continue
        above = span.above
        for _ in range(_DEEPEST):
            if above is None or id(above) in chosen:
                break
            above = above.above
        else:
            above = None
        span.above = root if above is None or above is span else above
        children.setdefault(id(span.above), []).append(span)
    found: list[_Span] = []
    waiting = [root]
    seen: set[int] = set()
    while waiting:
        span = waiting.pop()
        if id(span) in seen:
            continue
        seen.add(id(span))
        span.depth = span.above.depth + 1 if span is not root and span.above is not None else 0
        found.append(span)
        span.number = len(found)
        below = sorted(children.get(id(span), ()), key=lambda one: one.start_ns, reverse=True)
        alone = _alone(span, below)  # of a call less than the recorder knows: it sees no statements
        span.self_ns = alone if span.self_ns < 0 else min(span.self_ns, alone)
        waiting += below
    return found


def _alone(span: _Span, below: list[_Span]) -> int:
    """The time of a span that no span below it covers; `below` from the last to the first."""
    covered, until = 0, span.start_ns
    end = span.start_ns + span.duration_ns
    for one in reversed(below):
        start = max(one.start_ns, until)
        stop = min(one.start_ns + one.duration_ns, end)
        if stop > start:
            covered += stop - start
            until = stop
    return max(0, span.duration_ns - covered)


def _plain(span: _Span, start: int) -> dict[str, Any]:
    return {
        "id": span.number,
        "parent": span.above.number if span.above is not None else 0,
        "kind": span.kind,
        "name": text(span.name, NAME),
        "detail": text(span.detail, TEXT),
        "start_ms": ms(span.start_ns - start),
        "duration_ms": ms(span.duration_ns),
        "self_ms": ms(span.self_ns),
        "depth": span.depth,
        "outcome": text(span.outcome, NAME),
        "error": text(span.error, NAME),
        "location": span.location,
    }
