"""Where time went: in SQL, in calls to other services, in waits for locks; of each call and of each scope."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.placement import Placement
from pyscope.events.external import EXTERNAL_BEGIN, EXTERNAL_END
from pyscope.events.sql import STATEMENT
from pyscope.events.sync import LOCK, LockStep
from pyscope.findings import ScopeTime, TimeParts

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["Spent", "columns_of_scopes", "of_calls", "of_scopes", "spent"]

_DEEPEST = 100_000
_FIELDS = ("sql_ns", "external_ns", "lock_ns", "sql_count", "external_count")


class Spent:
    """Waits of one kind: their duration, the call (row, -1 none) and the scope (id, 0 none) around each."""

    def __init__(
        self, duration: NDArray[np.int64], call: NDArray[np.int64], scope: NDArray[np.int64]
    ) -> None:
        self.duration = duration
        self.call = call
        self.scope = scope


def spent(trace: Trace, placement: Placement) -> dict[str, Spent]:
    """All waits that probes told of: "sql", "external", "lock"."""
    statements = trace.probe_events(STATEMENT)
    locks = trace.probe_events(LOCK)
    waited = np.flatnonzero((locks["step"] == LockStep.ACQUIRED) & (locks["waited_ns"] > 0))
    durations: NDArray[np.int64] = statements["duration_ns"]
    return {
        "sql": Spent(durations, placement.calls(statements), statements["scope"]),
        "external": _external(trace, placement),
        "lock": Spent(
            locks["waited_ns"][waited], locks["call"][waited].astype(np.int64), locks["scope"][waited]
        ),
    }


def _external(trace: Trace, placement: Placement) -> Spent:
    """An attempt belongs where it began: its answer may be read to the end somewhere else."""
    begins, ends = trace.probe_events(EXTERNAL_BEGIN), trace.probe_events(EXTERNAL_END)
    duration = np.zeros(len(begins), np.int64)
    if len(begins) and len(ends):
        order = np.argsort(begins["attempt"], kind="stable")
        ids = begins["attempt"][order]
        at = np.minimum(np.searchsorted(ids, ends["attempt"]), len(ids) - 1)
        known = ids[at] == ends["attempt"]
        duration[order[at[known]]] = ends["duration_ns"][known]
    return Spent(duration, placement.calls(begins), begins["scope"])


def of_calls(trace: Trace, placement: Placement, waits: dict[str, Spent]) -> dict[str, NDArray[np.int64]]:
    """For each call the nanoseconds in SQL, external calls and lock waits, its callees' included, and how many."""
    count = len(trace.calls)
    found = {name: np.zeros(count, np.int64) for name in _FIELDS}
    for kind, one in waits.items():
        inside = one.call >= 0
        _inclusive(found[f"{kind}_ns"], one.call[inside], one.duration[inside], placement.parent)
        if f"{kind}_count" in found:
            ones = np.ones(int(inside.sum()), np.int64)
            _inclusive(found[f"{kind}_count"], one.call[inside], ones, placement.parent)
    return found


def _inclusive(
    totals: NDArray[np.int64], rows: NDArray[np.int64], values: NDArray[np.int64], parent: NDArray[np.int32]
) -> None:
    """Adds values to calls and to all that called them, one level at a time."""
    for _ in range(_DEEPEST):
        if not len(rows):
            return
        rows, where = np.unique(rows, return_inverse=True)
        summed = np.zeros(len(rows), np.int64)
        np.add.at(summed, where, values)
        totals[rows] += summed
        above = parent[rows].astype(np.int64)
        rows, values = above[above >= 0], summed[above >= 0]


def columns_of_scopes(trace: Trace, placement: Placement | None = None) -> dict[str, NDArray[np.int64]]:
    """For each scope the nanoseconds in SQL, external calls and lock waits, and how many of the first two."""
    scopes = trace.scopes
    waits = spent(trace, placement or Placement(trace))
    sums = {name: np.zeros(len(scopes), np.int64) for name in _FIELDS}
    for kind, one in waits.items():
        rows = scopes.rows(one.scope)
        known = rows >= 0
        np.add.at(sums[f"{kind}_ns"], rows[known], one.duration[known])
        if f"{kind}_count" in sums:
            np.add.at(sums[f"{kind}_count"], rows[known], 1)
    return sums


def of_scopes(trace: Trace) -> list[ScopeTime]:
    """Every scope, in order of its begin, with the time that it spent in SQL, external calls, lock waits and CPU."""
    columns = {name: column.tolist() for name, column in columns_of_scopes(trace).items()}
    return [
        ScopeTime(
            id=row.id,
            kind=row.kind,
            name=row.name,
            route=row.route,
            status=row.status,
            outcome=row.outcome,
            start_ns=row.start_ns,
            parts=TimeParts(
                wall_ns=row.duration_ns,
                cpu_ns=row.cpu_ns,
                **{name: column[at] for name, column in columns.items()},
            ),
        )
        for at, row in enumerate(trace.scopes)
    ]
