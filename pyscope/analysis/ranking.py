"""All findings of a trace, worst first, and where the time of its requests, messages and reports went.

Findings of one kind at one place are one row: a service commits an N+1 in every request, and wants to hear of it once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from pyscope.analysis import (
    database_races,
    external,
    hotspots,
    overload,
    queries,
    races,
    resources,
    states,
    supervision,
    time_parts,
)
from pyscope.analysis.counting import counted, duration
from pyscope.analysis.external_advice import WELL, Trouble, advice, trouble
from pyscope.events.actors import ACTOR
from pyscope.findings import ExternalCall, PerformanceIssue, Race, ResourceIssue, SupervisorEvent
from pyscope.rows import Location

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["ON_PURPOSE", "Evidence", "Ranked", "Ranking", "RouteRow", "diagnose", "everything", "rank"]

Found = TypeVar("Found")
Evidence: TypeAlias = (
    Sequence[PerformanceIssue]
    | Sequence[Race]
    | Sequence[ExternalCall]
    | Sequence[SupervisorEvent]
    | Sequence[ResourceIssue]
)
"""The findings of one kind at one place that are one row."""
Row: TypeAlias = tuple["Ranked", Evidence]

# How bad, before how much: what corrupts data, what fails, what is slow, what may go wrong, what went well in the end.
CORRUPTS, FAILS, SLOW, MAY_FAIL, MENDED = 5, 4, 3, 2, 1
_MOST_NAMES = 3
_OUTCOMES = {Trouble.REFUSED: "refused", Trouble.CONFLICT: "met another writer"}
ON_PURPOSE = (
    *("", "normal", "shutdown", "exited", "killed by SIGTERM"),
    "killed by SIGPIPE",  # whoever read what it wrote had enough
    "ended, its exit code was not seen",
)
"""Reasons of ends that are no crash, as far as is known."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A finding for people. `what` happened, `where` in the program's own code (None: unknown), `why` it counts, what
    to `change`; `count`: how often. `severity`: 5 corrupts data, 4 fails, 3 is slow, 2 may fail, 1 was mended by a
    retry.
    """

    kind: str
    severity: int
    weight: float  # within the severity
    what: str
    where: Location | None
    why: str
    change: str
    count: int
    time_ns: int  # of the first


@dataclass(frozen=True, slots=True)
class RouteRow:
    """The requests of a route, the messages of an actor or the reports of a name: times in nanoseconds, each the sum
    but for the percentiles of the duration. `cpu_ns` is None where it is not known of all.
    """

    kind: str
    name: str
    count: int
    failed: int
    p50_ns: int
    p95_ns: int
    max_ns: int
    wall_ns: int
    cpu_ns: int | None
    sql_ns: int
    external_ns: int
    lock_ns: int
    sql_count: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """What probes told, put together. `more` and `more_routes`: findings and routes beyond the limit. `transitions`:
    how often each state was reached. `peak_memory`: bytes of the process that had most, 0 unknown; `processes`: of how
    many that was asked."""

    findings: Sequence[Ranked]
    more: int
    routes: Sequence[RouteRow]
    more_routes: int
    transitions: dict[str, int]
    peak_memory: int
    processes: int


def rank(trace: Trace, limit: int = 20) -> Ranking | None:
    """The ranking of a trace, at most `limit` findings and routes.

    None where no probe has told anything, and no process ended in the middle of a call.
    """
    if not trace.has_probe_events and not supervision.ends(trace, ()):
        return None
    found = [ranked for ranked, _ in everything(trace)]
    used = resources.find(trace)
    routes = _routes(trace)
    return Ranking(
        findings=found[:limit],
        more=max(0, len(found) - limit),
        routes=routes[:limit],
        more_routes=max(0, len(routes) - limit),
        transitions=dict(sorted(states.counted(trace).items(), key=lambda item: -item[1])),
        peak_memory=used.peak_memory,
        processes=sum(isinstance(key, int) for key in used.by_process),
    )


def diagnose(trace: Trace) -> list[Ranked]:
    """All that went wrong, or slowly, in a trace, worst first: what, where, why, and what to change.

    What probes were asked to watch can be found; without any, slow calls alone. Raises TypeError for anything but a
    trace, such as a path.
    """
    from pyscope.trace import Trace

    if not isinstance(trace, Trace):
        raise TypeError(
            f"diagnose takes a trace, not {type(trace).__name__}: pyscope.diagnose(pyscope.load(path))"
        )
    return [ranked for ranked, _ in everything(trace)]


def everything(trace: Trace, calls: list[ExternalCall] | None = None) -> list[Row]:
    """All findings, worst first, each with its evidence. `calls`: what `external.find` found, if that is known."""
    supervised = supervision.find(trace)
    found = [
        *_performance(trace, [*queries.find(trace), *hotspots.find(trace)]),
        *_races([*races.find(trace), *database_races.find(trace)]),
        *_external(external.find(trace, all_calls=False) if calls is None else calls),
        *_supervision([*supervised, *_actors(trace, supervised), *supervision.ends(trace, supervised)]),
        *_resources(overload.find(trace)),
    ]
    found.sort(key=lambda row: (-row[0].severity, -row[0].weight, row[0].time_ns))
    return found


def _grouped(found: Iterable[Found], key: Callable[[Found], Hashable]) -> Iterable[list[Found]]:
    groups: dict[Hashable, list[Found]] = defaultdict(list)
    for item in found:
        groups[key(item)].append(item)
    return groups.values()


def _known(location: Location) -> Location | None:
    return location if location.line else None


def _performance(trace: Trace, found: list[PerformanceIssue]) -> Iterable[Row]:
    titles = {"n_plus_one_query": "N+1 queries", "repeated_query": "the same query again and again"}
    for group in _grouped(
        found, lambda issue: (issue.kind, issue.relationship, issue.statement, issue.call_site)
    ):
        first = group[0]
        total_ms = sum(issue.total_ms for issue in group)
        count = sum(issue.count for issue in group)
        sent = sum(issue.query_count for issue in group)
        if first.kind in titles:
            subject = first.relationship or _shortened(first.statement)
            times = f" in {len(group)} scopes" if len(group) > 1 else ""
            what = f"{titles[first.kind]}: {subject}, {sent} statements{times}, {duration(1e6 * total_ms)}"
        else:
            name = "blocks the event loop" if first.kind == "blocking_call_in_event_loop" else "slow"
            what = f"{first.call_site.function or 'a callback'} {name}: {count} ×, {duration(1e6 * total_ms)}"
        worst = max(group, key=lambda issue: issue.total_ms)
        where = _known(first.call_site)
        why = worst.explanation if where else worst.explanation + _within(trace, group)
        severity = MAY_FAIL if first.kind == "repeated_query" else SLOW
        row = Ranked(first.kind, severity, total_ms, what, where, why, first.suggestion, count, first.time_ns)
        yield row, group


def _within(trace: Trace, group: list[PerformanceIssue]) -> str:
    """The requests and messages in which it was, for what has no place in the program's own code."""
    scopes = (trace.scopes.get(issue.scope) for issue in group)
    names = list(dict.fromkeys(_title(scope.name, scope.route) for scope in scopes if scope is not None))
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f" It was in {', '.join(names[:_MOST_NAMES])}{more}." if names else ""


def _races(found: list[Race]) -> Iterable[Row]:
    for group in _grouped(
        found, lambda race: (race.kind, race.subject, race.grade, race.accesses[-1].location)
    ):
        first = group[0]
        count = sum(race.count for race in group)
        severity = CORRUPTS if first.grade == "observed" else MAY_FAIL
        what = f"{first.kind.replace('_', ' ')} ({first.grade}): {first.subject}"
        where = _known(first.accesses[-1].location)
        time_ns = first.accesses[0].time_ns
        row = Ranked(
            first.kind, severity, count, what, where, first.explanation, first.suggestion, count, time_ns
        )
        yield row, group


def _external(found: list[ExternalCall]) -> Iterable[Row]:
    noted = [(call, trouble(call)) for call in found if call.retries or call.outcome not in WELL]
    for troubled in _grouped(
        noted,
        lambda one: (one[0].service, one[0].operation, one[0].peer, one[0].outcome, one[0].call_site, one[1]),
    ):
        first, kind = troubled[0]
        if kind is Trouble.NONE:
            continue
        group = [call for call, _ in troubled]
        most = max(call.retries for call in group)
        failed = first.outcome not in WELL
        errors = sorted({attempt.error for call in group for attempt in call.attempts if attempt.error})
        outcome = _OUTCOMES.get(kind, first.outcome.replace("_", " ")) if failed else first.outcome
        what = f"{first.service} {first.operation} {first.peer} {outcome}"
        why = counted(len(group), "call")
        if most:
            why += f", {'up to ' if len(group) > 1 else ''}{counted(most, 'retry', 'retries')}"
        if errors:
            why += f"; {_shortened('; '.join(errors), 200)}"
        severity = MENDED if not failed else FAILS if kind in (Trouble.AWAY, Trouble.BROKEN) else MAY_FAIL
        row = Ranked(
            "external_call", severity, len(group), what, _known(first.call_site), why,
            advice(kind, first.service, failed), len(group), first.start_ns,
        )  # fmt: skip
        yield row, group


def _actors(trace: Trace, supervised: list[SupervisorEvent]) -> list[SupervisorEvent]:
    """Actors that died of an exception and of which no supervisor told: it was not watched, or there is none."""
    told = {event.reason for event in supervised}
    return [
        SupervisorEvent(
            "child_terminated", "no supervisor watched", row.name, row.reason, -1, row.time_ns, 0, row.stack
        )
        for row in trace.probe_events(ACTOR).records()
        if row.what == "failed" and row.reason not in told
    ]


def _supervision(found: list[SupervisorEvent]) -> Iterable[Row]:
    crashed = [
        event
        for event in found
        if event.kind == "max_restarts_exceeded"
        or (event.kind == "child_terminated" and event.reason not in ON_PURPOSE)
    ]
    for group in _grouped(
        crashed, lambda event: (event.kind, event.supervisor, event.reason.partition(":")[0])
    ):
        first = group[0]
        children = sorted({event.child for event in group})
        who = ", ".join(children[:3]) + (f" and {len(children) - 3} more" if len(children) > 3 else "")
        place = _known(first.stack[0]) if first.stack else None
        if first.kind == "max_restarts_exceeded":
            what = f"{first.supervisor} gave up: {who} crashed more often than it may be restarted"
            change = "Mend the crash; a restart does not help where the child fails at its start or at every message."
            severity = CORRUPTS
        else:
            killed = ("was killed" if len(children) == 1 else "were killed") * first.reason.startswith(
                "killed by"
            )
            by = f" ({first.supervisor})" if first.supervisor else ""
            what = f"{who} {killed or 'crashed'}{by}"
            if first.reason.startswith(supervision.UNTOLD):
                what = f"{who} ended in {first.stack[0].function}"
            severity = FAILS
            if first.supervisor == "subprocess" and first.reason.startswith("exit code"):
                what = f"{who} ended with {first.reason}{by}"
                severity = MAY_FAIL  # of many programs it is an answer
            change = _change(first.reason)
        row = Ranked(
            first.kind, severity, len(group), what, place, first.reason, change, len(group), first.time_ns
        )
        yield row, group


def _change(reason: str) -> str:
    """What to do about a child that ended for this reason."""
    if reason.startswith("killed by SIGKILL"):
        return (
            "Find who kills it: the kernel where memory runs out (dmesg, the container's limit), a time limit of the "
            "server or the orchestrator, or the program itself."
        )
    if reason.startswith(("killed by SIGSEGV", "killed by SIGBUS", "killed by SIGABRT", "killed by SIGILL")):
        return "A crash in native code: PYTHONFAULTHANDLER=1 prints where each thread was when it happened."
    if reason.startswith("killed by"):
        return "Find who sends the signal, and handle it where the child is to end in order."
    if reason.startswith(supervision.UNTOLD):
        return (
            "Find what ended it: the kernel where memory runs out (dmesg), a signal, or a crash in native code, of "
            "which PYTHONFAULTHANDLER=1 prints the place."
        )
    if reason.startswith("exit code"):
        return "What the child wrote to its standard error says why; its own recording (children=True) shows where."
    return "Catch what is to be expected where it arises, and let the rest crash: the reason names the error."


def _resources(found: list[ResourceIssue]) -> Iterable[Row]:
    for group in _grouped(found, lambda issue: (issue.kind, issue.subject, issue.call_site)):
        worst = max(group, key=lambda issue: issue.amount)
        times = f" in {len(group)} of them" if len(group) > 1 else ""
        if worst.kind == "mailbox_backlog":
            severity, weight = SLOW, worst.waited_ns / 1e6
            what = f"{worst.amount} messages waited for {worst.subject} at once"
        else:
            severity, weight = MAY_FAIL, worst.amount / 2**20
            what = f"{worst.subject} took {worst.amount / 2**20:.0f} MiB of memory{times}"
        row = Ranked(
            worst.kind, severity, weight, what, _known(worst.call_site), worst.explanation, worst.suggestion,
            len(group), group[0].time_ns,
        )  # fmt: skip
        yield row, group


def _routes(trace: Trace) -> list[RouteRow]:
    scopes, sums = trace.scopes, time_parts.columns_of_scopes(trace)
    wall = scopes["end_ns"] - scopes["start_ns"]
    cpu = scopes["cpu_ns"]
    failed = (scopes["status"] >= 500) | np.array(
        [outcome == "raised" for outcome in scopes["outcome"]], bool
    )
    titles = map(_title, scopes["name"], scopes["route"])
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(scopes["kind"], titles, strict=True)):
        members[key].append(row)
    rows = []
    for (kind, name), group in members.items():
        at = np.array(group, np.intp)
        durations = wall[at]
        p50, p95 = np.percentile(durations, (50, 95), method="nearest").tolist()
        rows.append(
            RouteRow(
                kind=kind,
                name=name,
                count=len(group),
                failed=int(failed[at].sum()),
                p50_ns=int(p50),
                p95_ns=int(p95),
                max_ns=int(durations.max()),
                wall_ns=int(durations.sum()),
                cpu_ns=None if cpu[at].min() < 0 else int(cpu[at].sum()),
                sql_ns=int(sums["sql_ns"][at].sum()),
                external_ns=int(sums["external_ns"][at].sum()),
                lock_ns=int(sums["lock_ns"][at].sum()),
                sql_count=int(sums["sql_count"][at].sum()),
            )
        )
    return sorted(rows, key=lambda row: -row.wall_ns)


def _title(name: str, route: str) -> str:
    return f"{name.partition(' ')[0]} {route}" if route else name


def _shortened(statement: str, most: int = 60) -> str:
    text = " ".join(statement.split())
    return text if len(text) <= most else text[: most - 1] + "…"
