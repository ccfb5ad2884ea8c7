"""Findings, worst first, each with its place, its cure and what it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pyscope.analysis import ranking
from pyscope.analysis.ranking import Evidence, Ranked
from pyscope.findings import (
    Access,
    ExternalCall,
    PerformanceIssue,
    Race,
    ResourceIssue,
    SupervisorEvent,
    TimeParts,
)
from pyscope.views import external
from pyscope.views.values import NAME, STATEMENT, identity, ms, place, places, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["Found", "by_scope", "find", "linked", "message"]

Found: TypeAlias = Sequence[tuple[Ranked, Evidence]]
"""Findings with their evidence, worst first."""

_SEVERITIES = {
    ranking.CORRUPTS: "error",
    ranking.FAILS: "error",
    ranking.SLOW: "warning",
    ranking.MAY_FAIL: "warning",
    ranking.MENDED: "info",
}
_MOST_ACCESSES = 10


def find(trace: Trace, calls: list[ExternalCall] | None = None) -> Found:
    """All findings of a trace. `calls`: what `pyscope.analysis.external.find` found, if that is known."""
    return ranking.everything(trace, calls) if trace.has_probe_events or len(trace.calls) else []


def message(trace: Trace, limit: int = 200, *, found: Found | None = None) -> dict[str, Any]:
    """The `limit` worst; `total` says how many there are. `found`: what `find` gave, if that is known."""
    rows = find(trace) if found is None else found
    return {
        "type": "findings",
        "at_ms": ms(trace.end_ns),
        "total": len(rows),
        "findings": [_finding(ranked, evidence) for ranked, evidence in rows[: max(0, limit)]],
    }


def by_scope(found: Found) -> dict[int, int]:
    """How many findings belong to a request, message, report or task, by its id."""
    counts: Counter[int] = Counter()
    for _, evidence in found:
        counts.update({scope for one in evidence for scope in _scopes(one)} - {0})
    return dict(counts)


def linked(shown: Mapping[str, Any]) -> list[int]:
    """The ids of the requests that the findings of a message lead to, in their order."""
    return [int(one["scope"]) for one in shown["findings"] if one["scope"]]


def _scopes(one: object) -> tuple[int, ...]:
    if isinstance(one, Race):
        return tuple(access.scope for access in one.accesses)
    if isinstance(one, PerformanceIssue | ExternalCall | ResourceIssue):
        return (one.scope,)
    return ()


def _finding(ranked: Ranked, evidence: Evidence) -> dict[str, Any]:
    kind, scope, key, details = _of(ranked, evidence)
    where = ranked.where
    return {
        "id": identity(kind, *key, *((where.file, where.function, where.line) if where else ())),
        "kind": kind,
        "severity": _SEVERITIES[ranked.severity],
        "title": text(ranked.what),
        "where": place(where),
        "why": text(ranked.why),
        "cure": text(ranked.change),
        "count": ranked.count,
        "time_ms": ms(ranked.time_ns),
        "scope": str(scope) if scope else "",
        "details": details,
    }


def _of(ranked: Ranked, evidence: Evidence) -> tuple[str, int, tuple[object, ...], dict[str, Any]]:
    """Kind, scope, what tells the finding from others, and the details: of the worst, where there are several."""
    first = evidence[0]
    if isinstance(first, PerformanceIssue):
        issues = [issue for issue in evidence if isinstance(issue, PerformanceIssue)]
        worst = max(issues, key=lambda issue: issue.total_ms)
        details = _queries(worst, issues) if worst.statement else _time(worst)
        scope = worst.scope or next((issue.scope for issue in issues if issue.scope), 0)
        return ranked.kind, scope, (first.relationship, first.statement), details
    if isinstance(first, Race):
        scope = next((access.scope for access in first.accesses if access.scope), 0)
        return ranked.kind, scope, (first.subject, first.grade), _race(first)
    if isinstance(first, ExternalCall):
        calls = [call for call in evidence if isinstance(call, ExternalCall)]
        most = max(calls, key=lambda call: (call.retries, call.duration_ns))
        kind = "timeout" if first.outcome == "timed_out" else ranked.kind
        kind = "retry" if ranked.severity == ranking.MENDED else kind
        return kind, most.scope, (ranked.what, ranked.change), external.row(most) | {"calls": len(calls)}
    if isinstance(first, ResourceIssue):
        overloads = [issue for issue in evidence if isinstance(issue, ResourceIssue)]
        taker = max(overloads, key=lambda issue: issue.amount)
        return ranked.kind, taker.scope, (first.subject,), _overload(taker)
    kind = "crash" if ranked.kind == "child_terminated" else ranked.kind
    cause = (first.supervisor, first.reason.partition(":")[0])
    return kind, 0, cause, _crash(first, [one for one in evidence if isinstance(one, SupervisorEvent)])


def _queries(worst: PerformanceIssue, issues: Sequence[PerformanceIssue]) -> dict[str, Any]:
    return {
        "statement": text(worst.statement, STATEMENT),
        "parent_statement": text(worst.parent_statement, STATEMENT),
        "relationship": text(worst.relationship, NAME),
        "cause": worst.cause,
        "query_count": worst.query_count,
        "parents": worst.parents,
        "total_ms": round(worst.total_ms, 4),
        "scopes": len({issue.scope for issue in issues} - {0}),
        "thread": text(worst.thread, NAME),
        "context": None if worst.context is None else text(worst.context, NAME),
        "stack": places(worst.stack),
    }


def _time(worst: PerformanceIssue) -> dict[str, Any]:
    return {
        "duration_ms": ms(worst.duration_ns),
        "total_ms": round(worst.total_ms, 4),
        "parts": None if worst.parts is None else _parts(worst.parts),
        "thread": text(worst.thread, NAME),
        "context": None if worst.context is None else text(worst.context, NAME),
        "stack": places(worst.stack),
    }


def _parts(parts: TimeParts) -> dict[str, Any]:
    known = parts.sql_ns + parts.external_ns + parts.lock_ns
    python = min(max(0, parts.cpu_ns), max(0, parts.wall_ns - known))
    return {
        "python_ms": ms(python),
        "sql_ms": ms(parts.sql_ns),
        "external_ms": ms(parts.external_ns),
        "lock_ms": ms(parts.lock_ns),
        "wait_ms": ms(max(0, parts.wall_ns - known - python)),
        "cpu_ms": ms(parts.cpu_ns) if parts.cpu_ns >= 0 else None,
    }


def _overload(worst: ResourceIssue) -> dict[str, Any]:
    taken = (
        {"messages": worst.amount, "sent_from_there": worst.senders, "longest_wait_ms": ms(worst.waited_ns)}
        if worst.kind == "mailbox_backlog"
        else {"bytes_added": worst.amount}
    )
    return {
        "subject": text(worst.subject, NAME),
        **taken,
        "duration_ms": ms(worst.duration_ns),
        "stack": places(worst.stack),
    }


def _race(race: Race) -> dict[str, Any]:
    """Of many accesses the first, and the last, by which it became one."""
    accesses, half = race.accesses, _MOST_ACCESSES // 2
    shown = accesses if len(accesses) <= _MOST_ACCESSES else (*accesses[:half], *accesses[-half:])
    return {
        "subject": text(race.subject, NAME),
        "grade": race.grade,
        "accesses": [_access(access) for access in shown],
        "accesses_left_out": len(accesses) - len(shown),
    }


def _access(access: Access) -> dict[str, Any]:
    return {
        "operation": text(access.operation, NAME),
        "thread": text(access.thread, NAME),
        "context": None if access.context is None else text(access.context, NAME),
        "time_ms": ms(access.time_ns),
        "location": place(access.location),
        "stack": places(access.stack),
        "scope": str(access.scope) if access.scope else "",
    }


def _crash(event: SupervisorEvent, events: Sequence[SupervisorEvent]) -> dict[str, Any]:
    children = sorted({one.child for one in events})
    return {
        "supervisor": text(event.supervisor, NAME),
        "children": [text(child, NAME) for child in children[:50]],
        "reason": text(event.reason),
        "restart_count": max(one.restart_count for one in events),
        "pid": event.pid,
        "stack": places(event.stack),
    }
