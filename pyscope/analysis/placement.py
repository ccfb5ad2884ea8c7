"""Which call an event belongs to where it happened in a greenlet that has no recorded call of its own.

SQLAlchemy's asynchronous engine runs statements in greenlets: the call that waits for them stands in the task around.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.rows import OUTCOMES

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["Placement"]

_OPEN = OUTCOMES.index("open")
_DEEPEST = 1000


class Placement:
    """Finds calls by context and time. `parent`: of each call, across greenlets too."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        calls = trace.calls
        self._start: NDArray[np.int64] = calls["start_ns"]
        self._end: NDArray[np.int64] = self._start + calls["duration_ns"]
        self._own_parent: NDArray[np.int32] = calls["parent"]
        self._context: NDArray[np.int32] = calls["context"]
        self._index: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = None
        self.parent = self._own_parent
        greenlets = self._greenlets(np.unique(self._context))
        if greenlets:
            roots = np.flatnonzero((self._own_parent < 0) & np.isin(self._context, list(greenlets)))
            if len(roots):
                self.parent = self._own_parent.copy()
                self.parent[roots] = self._outside(self._context[roots], self._start[roots], greenlets)

    def calls(self, events: Any, times: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """The row in `Trace.calls` for each of some events, -1 for none."""
        rows = np.array(events["call"], np.int64)
        lost = np.flatnonzero(rows < 0)
        if len(lost):
            contexts = events["context"][lost]
            greenlets = self._greenlets(np.unique(contexts))
            mine = np.isin(contexts, list(greenlets))
            if mine.any():
                lost, contexts = lost[mine], contexts[mine]
                when = (events["time_ns"] if times is None else times)[lost]
                rows[lost] = self._outside(contexts, when, greenlets)
        return rows

    def _greenlets(self, contexts: NDArray[np.int32]) -> dict[int, int]:
        """Of some contexts, the greenlets, each with the first context around that is none."""
        known = self._trace.contexts
        outer = known.around("greenlet", contexts)
        inside = (outer > 0) & known.of_kind("greenlet", contexts)
        return dict(zip(contexts[inside].tolist(), outer[inside].tolist(), strict=True))

    def _outside(
        self, contexts: NDArray[np.int32], times: NDArray[np.int64], greenlets: dict[int, int]
    ) -> NDArray[np.int64]:
        """The innermost call that ran in the context around at a time."""
        if self._index is None:
            ranks = np.argsort(np.argsort(self._start, kind="stable"), kind="stable").astype(np.int64)
            key = self._context.astype(np.int64) * (len(ranks) + 1) + ranks
            order = np.argsort(key)
            self._index = np.sort(self._start), key[order], order
        starts, keys, order = self._index
        if not len(order):
            return np.full(len(times), -1, np.int64)
        outer = np.array([greenlets[context] for context in contexts.tolist()], np.int64)
        rank = np.searchsorted(starts, times, side="right") - 1
        at = np.searchsorted(keys, outer * (len(starts) + 1) + rank, side="right") - 1
        rows = np.where(at >= 0, order[np.maximum(at, 0)], -1).astype(np.int64)
        rows[(rows >= 0) & (self._context[np.maximum(rows, 0)] != outer)] = -1
        for _ in range(_DEEPEST):
            over = (rows >= 0) & (self._end[np.maximum(rows, 0)] < times)
            if not over.any():
                break
            rows[over] = self._own_parent[rows[over]]
        return rows
