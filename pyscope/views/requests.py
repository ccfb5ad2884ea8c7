"""Requests, messages, reports and tasks: one row each, with where its time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.time_parts import columns_of_scopes
from pyscope.views.values import NAME, ms, text

if TYPE_CHECKING:
    from pyscope.analysis.placement import Placement
    from pyscope.trace import Trace

__all__ = ["Requests", "message", "notable"]


def message(
    trace: Trace,
    limit: int = 1000,
    *,
    since_ms: float | None = None,
    findings: Mapping[int, int] | None = None,
    rows: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """The last `limit` requests in order of their begin.

    `since_ms`: only those that ended or still ran then. `findings`: how many belong to a scope, by its id. `rows`:
    these rows of `Trace.scopes` instead; `total` says then how many the trace has.
    """
    scopes = trace.scopes
    chosen = rows is not None
    if rows is not None:
        rows = np.sort(rows)
    elif since_ms is not None:
        rows = np.flatnonzero(scopes["end_ns"] >= int(since_ms * 1e6))
    else:
        rows = np.arange(len(scopes))
    shown = Requests(trace, findings)
    return {
        "type": "traces",
        "at_ms": ms(trace.end_ns),
        "requests": [shown.at(int(row)) for row in rows[-limit:]] if limit > 0 else [],
    } | ({"total": len(scopes)} if chosen else {})


def notable(
    trace: Trace, limit: int, findings: Mapping[int, int], linked: Sequence[int] = ()
) -> NDArray[np.int64]:
    """Rows of the requests that one would ask for, the most wanted first.

    First those with the ids `linked`, in their order. Then in turn: the slowest of each route, those with findings,
    those that failed, the slowest of all, the last.
    """
    scopes = trace.scopes
    count = len(scopes)
    slowest = np.argsort(scopes["start_ns"] - scopes["end_ns"], kind="stable")
    failed = (scopes["status"] >= 500) | np.array(
        [outcome == "raised" for outcome in scopes["outcome"]], bool
    )
    with_findings = np.isin(scopes["id"], np.array(list(findings), np.int64))
    routes: dict[tuple[str, str], int] = {}
    names = zip(scopes["name"], scopes["route"], strict=True)
    route = np.array([routes.setdefault(name, len(routes)) for name in names], np.int64)
    _, worst = np.unique(route[slowest], return_index=True)
    columns = (
        slowest[np.sort(worst)],
        slowest[with_findings[slowest]],
        slowest[failed[slowest]],
        slowest,
        np.arange(count - 1, -1, -1),
    )
    # By rank within its column, then by column; a row counts where it comes first.
    rank = np.concatenate([np.arange(len(rows)) for rows in columns])
    rows = np.concatenate(columns)[np.argsort(rank, kind="stable")]
    row_of = {int(scopes["id"][row]): row for row in np.flatnonzero(np.isin(scopes["id"], linked)).tolist()}
    first_of_all = [row_of[identity] for identity in linked if identity in row_of]
    rows = np.concatenate((np.array(first_of_all, np.int64), rows))
    found, first = np.unique(rows, return_index=True)
    wanted: NDArray[np.int64] = found[np.argsort(first)][: max(0, limit)].astype(np.int64)
    return wanted


class Requests:
    """Makes the rows of requests; `findings` as for `message`."""

    def __init__(
        self, trace: Trace, findings: Mapping[int, int] | None = None, placement: Placement | None = None
    ) -> None:
        self._trace = trace
        self._findings = findings or {}
        self._sums = columns_of_scopes(trace, placement)

    def at(self, row: int) -> dict[str, Any]:
        """The request in a row of `Trace.scopes`."""
        trace = self._trace
        scope = trace.scopes.at(row)
        sums = {name: int(column[row]) for name, column in self._sums.items()}
        wall = max(0, scope.duration_ns)
        known = sum(sums[name] for name in ("sql_ns", "external_ns", "lock_ns"))
        # What a driver computes counts as SQL: Python has what the clock leaves of the CPU time.
        python = min(max(0, scope.cpu_ns), max(0, wall - known))
        return {
            "id": str(scope.id),
            "kind": text(scope.kind, NAME),
            "name": text(scope.name, NAME),
            "route": text(scope.route, NAME),
            "status": scope.status,
            "outcome": text(scope.outcome, NAME),
            "error": text(scope.error, NAME),
            "start_ms": ms(scope.start_ns),
            "duration_ms": ms(wall),
            "parent": str(scope.parent) if scope.parent else "",
            "pid": trace.processes[scope.process].pid,
            "thread": text(trace.threads[scope.thread].name, NAME),
            "context": text(trace.contexts[scope.context].name, NAME) if scope.context else None,
            "parts": {
                "python_ms": ms(python),
                "sql_ms": ms(sums["sql_ns"]),
                "external_ms": ms(sums["external_ns"]),
                "lock_ms": ms(sums["lock_ns"]),
                "wait_ms": ms(max(0, wall - known - python)),
                "cpu_ms": ms(scope.cpu_ns) if scope.cpu_ns >= 0 else None,
            },
            "queries": sums["sql_count"],
            "external": sums["external_count"],
            "findings": self._findings.get(scope.id, 0),
        }
