"""Requests, messages, reports and tasks as they happen: kept row by row, from the events of each slice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyscope.events.external import EXTERNAL_BEGIN, EXTERNAL_END
from pyscope.events.scope import SCOPE_BEGIN, SCOPE_END
from pyscope.events.sql import STATEMENT
from pyscope.events.sync import LOCK, LockStep
from pyscope.live.slices import Slice
from pyscope.views.values import NAME, ms, text

__all__ = ["Ended", "RequestTable"]

MOST = 2000
_MOST_LASTING = 200
_MOST_OPEN_ATTEMPTS = 10_000


@dataclass(slots=True)
class _Request:
    """One scope, from its begin on. Where only what happened in it is known so far, `kind` is empty."""

    id: int
    kind: str = ""
    name: str = ""
    route: str = ""
    status: int = 0
    outcome: str = "open"
    error: str = ""
    start_ns: int = 0
    end_ns: int = 0
    left_ns: int = 0  # when its process ended, in which it was open
    parent: int = 0
    pid: int = 0
    thread: str = ""
    context: str | None = None
    cpu_ns: int = -1
    sql_ns: int = 0
    external_ns: int = 0
    lock_ns: int = 0
    queries: int = 0
    external: int = 0
    findings: int = 0

    def until(self, now_ns: int) -> int:
        """When it ended; now if it goes on."""
        return self.end_ns or self.left_ns or now_ns

    def row(self, now_ns: int) -> dict[str, Any]:
        """As in a message of type "traces"."""
        wall = max(0, self.until(now_ns) - self.start_ns)
        known = self.sql_ns + self.external_ns + self.lock_ns
        python = min(max(0, self.cpu_ns), max(0, wall - known))
        return {
            "id": str(self.id),
            "kind": text(self.kind, NAME),
            "name": text(self.name, NAME),
            "route": text(self.route, NAME),
            "status": self.status,
            "outcome": text(self.outcome, NAME),
            "error": text(self.error, NAME),
            "start_ms": ms(self.start_ns),
            "duration_ms": ms(wall),
            "parent": str(self.parent) if self.parent else "",
            "pid": self.pid,
            "thread": text(self.thread, NAME),
            "context": None if self.context is None else text(self.context, NAME),
            "parts": {
                "python_ms": ms(python),
                "sql_ms": ms(self.sql_ns),
                "external_ms": ms(self.external_ns),
                "lock_ms": ms(self.lock_ns),
                "wait_ms": ms(max(0, wall - known - python)),
                "cpu_ms": ms(self.cpu_ns) if self.cpu_ns >= 0 else None,
            },
            "queries": self.queries,
            "external": self.external,
            "findings": self.findings,
        }


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that has ended, or a message, report or job where there are none: what the meter counts. `failed`:
    answered 5xx, or left by an exception."""

    end_ns: int
    duration_ns: int
    failed: bool


class RequestTable:
    """The last requests, and older ones that are still open: what takes long is what one looks for.

    Ids of requests that changed are gathered until `changes` is called.
    """

    def __init__(self) -> None:
        self._rows: OrderedDict[int, _Request] = OrderedDict()
        self._lasting: OrderedDict[int, _Request] = OrderedDict()
        self._attempts: OrderedDict[int, int] = OrderedDict()  # scope by attempt
        self._changed: dict[int, None] = {}
        self._serves = False  # whether there are requests
        self.ended: list[Ended] = []

    def take(self, news: Slice) -> None:
        """Takes the events of a slice."""
        self._begins(news)
        self._waits(news)
        self._ends(news)
        while len(self._rows) > MOST:
            identity, row = self._rows.popitem(last=False)
            if row.kind and not row.end_ns:
                self._lasting[identity] = row
                if len(self._lasting) > _MOST_LASTING:
                    self._lasting.popitem(last=False)

    def changes(self, now_ns: int) -> list[dict[str, Any]]:
        """The rows that changed since the last call, of which the begin is known."""
        changed, self._changed = self._changed, {}
        rows = map(self._known, changed)
        return [row.row(now_ns) for row in rows if row is not None and row.kind]

    def all(self, now_ns: int) -> list[dict[str, Any]]:
        """The last rows, after those that began before them and are open."""
        rows = [row for row in self._rows.values() if row.kind]
        return [row.row(now_ns) for row in (*self._lasting.values(), *rows)]

    def get(self, identity: int, now_ns: int) -> tuple[dict[str, Any], int, int] | None:
        """One row, and when it began and ended (ns; now if it is open)."""
        row = self._known(identity)
        if row is None or not row.kind:
            return None
        return row.row(now_ns), row.start_ns, row.until(now_ns)

    def left(self, pid: int, now_ns: int) -> None:
        """A process has ended: what is open in it does not go on."""
        for identity, row in (*self._rows.items(), *self._lasting.items()):
            if row.pid == pid and not row.end_ns and not row.left_ns:
                row.left_ns = now_ns
                self._changed[identity] = None

    def found(self, counts: Mapping[int, int]) -> None:
        """How many findings belong to each request, by its id. A count never falls: what was found stays found."""
        for identity, count in counts.items():
            row = self._known(identity)
            if row is not None and count > row.findings:
                row.findings = count
                self._changed[identity] = None

    def _known(self, identity: int) -> _Request | None:
        return self._rows.get(identity) or self._lasting.get(identity)

    def _at(self, identity: int) -> _Request:
        row = self._known(identity)
        if row is None:
            row = self._rows[identity] = _Request(identity)
        return row

    def _begins(self, news: Slice) -> None:
        begins = news.probe_events(SCOPE_BEGIN).tuples(
            "id", "label", "name", "parent", "time_ns", "process", "thread", "context"
        )
        for identity, label, name, parent, time_ns, process, thread, context in begins:
            row = self._at(identity)
            row.kind, row.name, row.parent = label or "scope", name, parent
            self._serves |= label == "request"
            row.start_ns = time_ns
            row.pid = news.pids[process]
            row.thread = news.threads[thread].name
            row.context = news.contexts.name(context) if context else None
            self._changed[identity] = None

    def _ends(self, news: Slice) -> None:
        ends = news.probe_events(SCOPE_END).tuples(
            "id", "time_ns", "duration_ns", "route", "status", "cpu_ns", "outcome", "error"
        )
        for identity, time_ns, duration_ns, route, status, cpu_ns, outcome, error in ends:
            row = self._at(identity)
            if self._lasting.pop(identity, None):
                self._rows[identity] = row  # among the last that ended
            row.end_ns = time_ns
            if not row.start_ns:
                row.start_ns = time_ns - duration_ns
            row.route, row.status, row.cpu_ns = route, status, cpu_ns
            row.outcome, row.error = outcome or "returned", error
            self._changed[identity] = None
            if row.kind == "request" or (row.kind and not self._serves):  # as in views.metrics
                failed = row.status >= 500 or row.outcome == "raised"
                self.ended.append(Ended(row.end_ns, max(0, row.end_ns - row.start_ns), failed))

    def _waits(self, news: Slice) -> None:
        statements = news.probe_events(STATEMENT)
        for scope, spent, count in _by_scope(statements["scope"], statements["duration_ns"]):
            row = self._at(scope)
            row.sql_ns += spent
            row.queries += count
            self._changed[scope] = None
        locks = news.probe_events(LOCK)
        if len(locks):
            waited = np.where(locks["step"] == LockStep.ACQUIRED, locks["waited_ns"], 0)
            for scope, spent, _ in _by_scope(locks["scope"][waited > 0], waited[waited > 0]):
                self._at(scope).lock_ns += spent
                self._changed[scope] = None
        begins = news.probe_events(EXTERNAL_BEGIN)
        for attempt, scope in _pairs(begins, "attempt", "scope"):
            self._attempts[attempt] = scope
            if scope:
                self._at(scope).external += 1
                self._changed[scope] = None
        while len(self._attempts) > _MOST_OPEN_ATTEMPTS:
            self._attempts.popitem(last=False)
        for attempt, spent in _pairs(news.probe_events(EXTERNAL_END), "attempt", "duration_ns"):
            scope = self._attempts.pop(attempt, 0)
            if scope:
                self._at(scope).external_ns += spent
                self._changed[scope] = None


def _pairs(events: Any, first: str, second: str) -> Iterable[tuple[int, int]]:
    return zip(events[first].tolist(), events[second].tolist(), strict=True)


def _by_scope(scopes: Any, spent: Any) -> Iterator[tuple[int, int, int]]:
    """Scope, the sum of what was spent in it, and how often; what belongs to no scope is left out."""
    found: dict[int, list[int]] = {}
    for scope, one in zip(scopes.tolist(), spent.tolist(), strict=True):  # few: of one look
        if scope:
            sums = found.setdefault(scope, [0, 0])
            sums[0] += one
            sums[1] += 1
    for scope, (total, count) in found.items():
        yield scope, total, count
