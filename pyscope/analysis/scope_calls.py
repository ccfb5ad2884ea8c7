"""Which calls belong to a scope: those that ran in its thread and context meanwhile, those around what probes saw of
it elsewhere (in tasks, greenlets and threads that worked for it), and all that these called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.placement import Placement
from pyscope.events.external import EXTERNAL_BEGIN
from pyscope.events.sql import STATEMENT
from pyscope.events.sync import LOCK
from pyscope.scopes import ScopeRow

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["ByScope", "ScopeCalls"]

_DEEPEST = 1000
_MOST_EVENTS = 20_000


class ByScope:
    """Rows of events by their scope."""

    def __init__(self, scopes: NDArray[np.int64]) -> None:
        self._order = np.argsort(scopes, kind="stable")
        self._sorted = scopes[self._order]

    def rows(self, scope: int) -> NDArray[np.intp]:
        """Those of a scope, in order."""
        first = np.searchsorted(self._sorted, scope, side="left")
        last = np.searchsorted(self._sorted, scope, side="right")
        return self._order[first:last]


class ScopeCalls:
    """Finds the calls of scopes; what they have in common is made once."""

    def __init__(self, trace: Trace, placement: Placement) -> None:
        self._trace = trace
        self._parent = placement.parent
        self._start: NDArray[np.int64] = trace.calls["start_ns"]
        self._order = np.argsort(self._start, kind="stable")
        self._sorted = self._start[self._order]
        self._told = [
            (events["call"], ByScope(events["scope"]))
            for events in map(trace.probe_events, (STATEMENT, EXTERNAL_BEGIN, LOCK))
        ]

    def rows(self, scope: ScopeRow) -> NDArray[np.intp]:
        """The rows in `Trace.calls` that began within a scope and belong to it, in order of their begin."""
        first = np.searchsorted(self._sorted, scope.start_ns, side="left")
        last = np.searchsorted(self._sorted, scope.end_ns, side="right")
        within = self._order[first:last]
        calls = self._trace.calls
        mine = (calls["thread"][within] == scope.thread) & (calls["context"][within] == scope.context)
        chosen = np.zeros(len(self._start) + 1, bool)  # one more: the caller of those that have none
        chosen[within[mine]] = True
        chosen[self._around(scope)] = True
        candidates = within[~chosen[within]]
        while len(candidates):  # level by level: greenlets and generators run in contexts of their own
            more = candidates[chosen[self._parent[candidates]]]
            if not len(more):
                break
            chosen[more] = True
            candidates = candidates[~chosen[candidates]]
        return within[chosen[within]]

    def _around(self, scope: ScopeRow) -> list[int]:
        """The calls, begun within the scope, around what probes saw of it."""
        found: set[int] = set()
        for calls, by_scope in self._told:
            for row in np.unique(calls[by_scope.rows(scope.id)[:_MOST_EVENTS]]).tolist():
                at = int(row)
                for _ in range(_DEEPEST):
                    if at < 0 or at in found or not scope.start_ns <= self._start[at] <= scope.end_ns:
                        break
                    found.add(at)
                    at = int(self._parent[at])
        return sorted(found)
