"""Queries that are sent one by one where one would do (N+1), and the same query sent again and again.

A SELECT that an attribute caused (a relationship, a deferred or an expired column) counts with the instance whose
attribute it was: several distinct instances at one place in the code, within one scope, are an N+1. Where there is no
instance (Session.get(), statements of the program's own) distinct values count instead, of statements whose whole stack
is the same, as a loop's is. An eager loader's statements never count: they are the cure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.call_sites import call_site
from pyscope.analysis.entries import entries
from pyscope.analysis.flows import flow_of_contexts
from pyscope.analysis.query_advice import advice, explained
from pyscope.events.sql import STATEMENT, Load, Operation
from pyscope.findings import PerformanceIssue, PerformanceIssues
from pyscope.rows import Location

if TYPE_CHECKING:
    from pyscope.probe_events import ProbeEvents
    from pyscope.trace import Trace

__all__ = ["THRESHOLD", "find"]

THRESHOLD = 5
BURST_NS = 1_000_000_000
"""Statements without an instance that are further apart are not one loop: a poller's, say."""

_OF_ATTRIBUTES = (
    Load.COLLECTION, Load.SCALAR, Load.DEFERRED, Load.SUBCLASS, Load.EXPIRED, Load.REFRESH,
    Load.FOREIGN_KEY, Load.RELATED_SET, Load.LEFT_OUT,
)  # fmt: skip
_OF_PROGRAM = (Load.NONE, Load.QUERY)
_POLLED = (Load.EXPIRED, Load.REFRESH)
_TABLE = re.compile(r'\s*(?:insert\s+into|update|delete\s+from)\s+(?:[\w"`]+\.)?["`]?(\w+)', re.I)


def find(trace: Trace, threshold: int = THRESHOLD) -> PerformanceIssues:
    """The N+1 and the repeated queries of a trace, in order of time.

    `threshold`: how many distinct instances or values make an N+1, how many times the same a repetition; at least 2.
    Raises ValueError for less.
    """
    if threshold < 2:
        raise ValueError(f"threshold is {threshold}; it must be at least 2: one query is no repetition")
    return PerformanceIssues(_Search(trace, threshold).issues())


@dataclass(slots=True)
class _Group:
    kind: str
    load: Load
    rows: NDArray[np.intp]  # in order of time
    distinct: int


class _Search:
    def __init__(self, trace: Trace, threshold: int) -> None:
        self._trace = trace
        self._threshold = threshold
        self._all: ProbeEvents = trace.probe_events(STATEMENT)
        self._strings: list[str] = trace.strings
        failed = self._all["error"] != 0
        self._selects = np.flatnonzero((self._all["operation"] == Operation.SELECT) & ~failed)
        self._written = np.isin(
            self._all["operation"], (Operation.INSERT, Operation.UPDATE, Operation.DELETE)
        )
        self._units = _numbered(_unit_columns(trace, self._all))
        self._sites, self._paths = self._places()

    def issues(self) -> list[PerformanceIssue]:
        """All of them, in order of time."""
        groups = [
            *self._attributes(),
            *self._loops(Load.GET),
            *self._loops(Load.ONE),
            *self._loops(*_OF_PROGRAM),
        ]
        taken = np.zeros(len(self._all), bool)
        for group in groups:
            taken[group.rows] = True
        groups += self._repeated(taken)
        chains = {
            (int(self._units[group.rows[0]]), int(self._all["statement"][group.rows[0]])): group
            for group in groups
            if group.kind == "n_plus_one_query"
        }
        found = self._told(groups, chains)
        return sorted(found, key=lambda issue: issue.time_ns)

    # what belongs together

    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each statement a number of its call site, and one of its whole stack, recursion folded."""
        stacks, inverse = np.unique(self._all["stack"], return_inverse=True)
        sites: dict[Location, int] = {}
        paths: dict[tuple[Location, ...], int] = {}
        site_of, path_of = [], []
        for number in stacks.tolist():
            stack = self._trace.stack(number)
            site_of.append(sites.setdefault(call_site(stack), len(sites)))
            path_of.append(paths.setdefault(tuple(dict.fromkeys(stack)), len(paths)))
        return np.array(site_of, np.int64)[inverse], np.array(path_of, np.int64)[inverse]

    def _attributes(self) -> Iterator[_Group]:
        rows = self._selects[np.isin(self._all["load"][self._selects], _OF_ATTRIBUTES)]
        keys = [
            self._units,
            self._all["statement"],
            self._all["relationship"],
            self._sites,
            self._all["load"],
        ]
        for group in self._grouped(rows, keys):
            yield from self._enough("n_plus_one_query", group, self._all["parent"])

    def _loops(self, *loads: Load) -> Iterator[_Group]:
        """Statements with other values each time, in a loop."""
        rows = self._selects[np.isin(self._all["load"][self._selects], loads)]
        rows = rows[self._countable(rows, for_loop=True) & (self._all["paged"][rows] == 0)]
        for group in self._grouped(rows, [self._units, self._all["statement"], self._paths], burst=True):
            yield from self._enough("n_plus_one_query", group, self._all["arguments"])

    def _repeated(self, taken: NDArray[np.bool_]) -> Iterator[_Group]:
        """The same statement with the same values, with nothing written in between to its tables."""
        rows = self._selects[~taken[self._selects]]
        load = self._all["load"][rows]
        rows = rows[~np.isin(load, _POLLED) & (load != Load.EAGER) & self._countable(rows, for_loop=False)]
        within = np.where(self._all["scope"] == 0, self._all["transaction"], 0)
        keys = [self._units, within, self._all["statement"], self._all["arguments"]]
        for group in self._grouped(rows, keys, burst=True):
            for run in self._unwritten(group):
                if len(run) >= self._threshold:
                    yield _Group("repeated_query", Load(int(self._all["load"][run[0]])), run, 1)

    def _countable(self, rows: NDArray[np.intp], for_loop: bool) -> NDArray[np.bool_]:
        """Statements that read a table and take no locks; of a loop's, those that do not take many values already."""
        statements, inverse = np.unique(self._all["statement"][rows], return_inverse=True)
        verdict = []
        for number in statements.tolist():
            text = self._strings[number].upper()
            many = for_loop and "IN (?, …)" in text
            verdict.append(" FROM " in text and " FOR UPDATE" not in text and not many)
        return np.array(verdict, bool)[inverse]

    def _grouped(
        self, rows: NDArray[np.intp], keys: list[NDArray[Any]], burst: bool = False
    ) -> Iterator[NDArray[np.intp]]:
        """Rows with equal keys, in order of time, where there are enough of them."""
        if len(rows) < self._threshold:
            return
        columns = [key[rows] for key in keys]
        order = np.lexsort(columns[::-1])  # stable: in order of time within equal keys
        rows = rows[order]
        apart = np.zeros(len(rows), bool)
        for column in columns:
            column = column[order]
            apart[1:] |= column[1:] != column[:-1]
        if burst:
            end = self._all["time_ns"][rows]
            start = end - self._all["duration_ns"][rows]
            apart[1:] |= start[1:] - end[:-1] > BURST_NS
        starts = np.flatnonzero(apart)
        for first, last in zip([0, *starts.tolist()], [*starts.tolist(), len(rows)], strict=True):
            if last - first >= self._threshold:
                yield rows[first:last]

    def _enough(self, kind: str, rows: NDArray[np.intp], column: NDArray[np.int64]) -> Iterator[_Group]:
        distinct = len(set(column[rows].tolist()))  # there may be very many groups, mostly small
        if distinct >= self._threshold:
            yield _Group(kind, Load(int(self._all["load"][rows[0]])), rows, distinct)

    def _unwritten(self, rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        """A group cut where one of the statement's tables was written."""
        text = self._strings[int(self._all["statement"][rows[0]])]
        between = np.arange(int(rows[0]), int(rows[-1]))
        writes = between[self._written[between] & (self._units[between] == self._units[rows[0]])]
        cuts = [int(row) for row in writes if self._writes_to(int(row), text)]
        yield from np.split(rows, np.searchsorted(rows, cuts)) if cuts else [rows]

    def _writes_to(self, row: int, select: str) -> bool:
        match = _TABLE.match(self._strings[int(self._all["statement"][row])])
        return match is None or re.search(rf"\b{match[1]}\b", select, re.I) is not None

    # what is told

    def _told(
        self, groups: list[_Group], chains: dict[tuple[int, int], _Group]
    ) -> Iterator[PerformanceIssue]:
        """A finding for each group. What all need is read at once: a service may have an N+1 in every request."""
        if not groups:
            return
        columns = self._all
        firsts = np.array([group.rows[0] for group in groups], np.intp)
        lasts = np.array([group.rows[-1] for group in groups], np.intp)
        rows = np.concatenate([group.rows for group in groups])
        ends = np.cumsum([len(group.rows) for group in groups])
        starts = np.concatenate(([0], ends[:-1]))
        totals = np.add.reduceat(columns["duration_ns"][rows], starts).tolist()
        parents = columns["parent_statement"][rows].tolist()
        contexts = flow_of_contexts(self._trace, columns["context"][firsts]).tolist()
        for group, first, unit, end_ns, begin, end, total, flow in zip(
            groups,
            columns.records(firsts),
            self._units[firsts].tolist(),
            columns["time_ns"][lasts].tolist(),
            starts.tolist(),
            ends.tolist(),
            totals,
            contexts,
            strict=True,
        ):
            above = self._above(group, unit, parents[begin:end], chains)
            yield self._issue(group, first, end_ns, total, flow, *above)

    def _above(
        self, group: _Group, unit: int, parents: list[int], chains: dict[tuple[int, int], _Group]
    ) -> tuple[int, str]:
        """The statement that loaded most of the parents, and the relationship of its own N+1 if it is part of one."""
        parents = [text for text in parents if text]
        if not parents:
            return 0, ""
        distinct = set(parents)
        parent = max(distinct, key=parents.count) if len(distinct) > 1 else parents[0]
        above = chains.get((unit, parent))
        if above is None or above is group or above.load not in (Load.COLLECTION, Load.SCALAR):
            return parent, ""
        return parent, self._strings[int(self._all["relationship"][above.rows[0]])]

    def _issue(
        self, group: _Group, first: Any, end_ns: int, total_ns: int, flow: int, parent: int, outer: str
    ) -> PerformanceIssue:
        statement, relationship = first.statement, first.relationship
        start = first.time_ns - first.duration_ns
        count = len(group.rows)
        repeated = group.kind == "repeated_query"
        return PerformanceIssue(
            kind=group.kind,
            query_count=count,
            statement=statement,
            parent_statement=self._strings[parent],
            relationship=relationship,
            call_site=call_site(first.stack),
            suggestion=advice(group.load, statement, relationship, outer, repeated),
            total_ms=total_ns / 1e6,
            scope=first.scope,
            cause=_CAUSES[group.load],
            parents=group.distinct,
            explanation=explained(group.load, count, group.distinct, relationship, repeated),
            time_ns=start,
            duration_ns=end_ns - start,
            thread=self._trace.threads[first.thread].name,
            context=self._trace.contexts[flow].name if flow else None,
            stack=first.stack,
        )


_CAUSES = {load: load.name.lower() for load in Load} | {
    Load.NONE: "statement", Load.QUERY: "statement", Load.FOREIGN_KEY: "scalar", Load.RELATED_SET: "collection",
    Load.LEFT_OUT: "deferred", Load.ONE: "get",
}  # fmt: skip


def _unit_columns(trace: Trace, events: ProbeEvents) -> list[NDArray[np.int64]]:
    """What statements must share to be one loop: the scope, or the thread and task where there is none, and the call
    that a library made."""
    scope = events["scope"]
    alone = scope == 0
    entry = np.full(len(scope), -1, np.int64)
    rows = np.flatnonzero(alone)
    if len(rows) and len(trace.calls):
        entry[rows] = entries(
            trace, {name: events[name][rows] for name in ("call", "context", "time_ns", "stack")}
        )
    return [
        scope,
        np.where(alone, events["thread"], -1),
        np.where(alone, flow_of_contexts(trace, events["context"]), -1),
        entry,
    ]


def _numbered(columns: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One number for each distinct combination."""
    numbers = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        _, inverse = np.unique(column, return_inverse=True)
        numbers = np.unique(numbers * (len(column) + 1) + inverse, return_inverse=True)[1]
    return numbers
