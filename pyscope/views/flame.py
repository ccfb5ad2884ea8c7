"""The flame graph: call paths merged, by wall time within a window.

Threads, tasks and greenlets are merged: their outermost calls stand side by side at the root. The wall time of a
coroutine includes its suspensions, so that a wait shows where it was waited for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.placement import Placement
from pyscope.views.values import NAME, ms, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["tree"]

DEEPEST = 200
"""Levels that are told apart: what is called from deeper counts for the call there. A JSON parser nests no further."""

_MOST_NODES = 6000


@dataclass(slots=True)
class _Level:
    """The merged paths of one depth: `above` is the number of each one's caller in the level before."""

    function: NDArray[np.int64]
    above: NDArray[np.int64]
    value: NDArray[np.int64]
    calls: NDArray[np.int64]


def tree(
    trace: Trace,
    from_ms: float | None = None,
    to_ms: float | None = None,
    *,
    least_share: float = 0.001,
    placement: Placement | None = None,
) -> dict[str, Any]:
    """The merged paths between two times (Unix ms; None: from the begin, to the end), calls clipped to them.

    What has less than `least_share` of all time is folded into a node "…" beside its siblings.
    """
    start = trace.start_ns if from_ms is None else int(from_ms * 1e6)
    end = trace.end_ns if to_ms is None else int(to_ms * 1e6)
    levels = _levels(trace, start, max(start, end), placement or Placement(trace))
    _widen(levels)
    total = int(levels[0].value.sum()) if levels else 0
    least = int(total * least_share)
    while True:
        kept = _keep(levels, least)
        if sum(int(keep.sum()) for keep in kept) <= _MOST_NODES:
            break
        least = max(2 * least, 1)
    root = {
        "name": "all",
        "value": ms(total),
        "self_ms": 0.0,
        "calls": int(levels[0].calls.sum()) if levels else 0,
        "location": None,
        "window": {"from_ms": ms(start), "to_ms": ms(max(start, end))},
        "children": [],
    }
    _grow(trace, root, levels, kept)
    return root


def _levels(trace: Trace, start: int, end: int, placement: Placement) -> list[_Level]:
    """Merges level by level: a path is its caller's path and a function."""
    calls = trace.calls
    parent = placement.parent
    began: NDArray[np.int64] = calls["start_ns"]
    ended = began + calls["duration_ns"]
    rows = np.flatnonzero((began < end) & (ended > start))
    if not len(rows):
        return []
    first, last = np.maximum(began[rows], start), np.minimum(ended[rows], end)
    function = calls["function"][rows].astype(np.int64)
    number = np.full(len(calls), -1, np.int64)
    number[rows] = np.arange(len(rows))
    above = np.where(parent[rows] >= 0, number[np.maximum(parent[rows], 0)], -1)
    whole = parent is calls["parent"] and np.array_equal(above < 0, parent[rows] < 0)
    order, bounds = _by_depth(calls["depth"][rows] if whole else _depth(above))
    path = np.zeros(len(rows), np.int64)
    names = int(np.max(function)) + 1
    levels = []
    for depth in range(len(bounds) - 1):
        mine = order[bounds[depth] : bounds[depth + 1]]
        caller = path[above[mine]] if depth else np.zeros(len(mine), np.int64)
        if depth:  # a generator may outlive the call that began it: what it does then is not that call's
            last[mine] = np.minimum(last[mine], last[above[mine]])
        duration = np.maximum(last[mine] - first[mine], 0)
        keys, path[mine] = _numbered(caller * names + function[mine], names)
        levels.append(
            _Level(
                keys % names,
                keys // names,
                np.bincount(path[mine], duration, len(keys)).astype(np.int64),
                np.bincount(path[mine], minlength=len(keys)),
            )
        )
    return levels


def _numbered(keys: NDArray[np.int64], names: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As np.unique with the inverse, without sorting where a table of all possible keys is small."""
    size = (int(np.max(keys)) // names + 1) * names
    if size > 4 * len(keys) + 1_000_000:
        distinct, numbers = np.unique(keys, return_inverse=True)
        return distinct, numbers
    there = np.zeros(size, bool)
    there[keys] = True
    distinct = np.flatnonzero(there)
    lookup = np.zeros(size, np.int64)
    lookup[distinct] = np.arange(len(distinct))
    return distinct, lookup[keys]


def _depth(above: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many callers each row has: each round doubles how far up is looked."""
    depth = (above >= 0).astype(np.int64)
    jump = above.copy()
    going = np.flatnonzero(jump >= 0)
    while len(going) and int(np.max(depth)) <= len(above):  # more: callers that go round in a circle
        at = jump[going]
        depth[going] += depth[at]
        jump[going] = jump[at]
        going = going[jump[going] >= 0]
    return depth


def _by_depth(depth: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows level by level, and where each level begins; those below DEEPEST are left out."""
    order = np.argsort(np.minimum(depth, DEEPEST).astype(np.int16), kind="stable")  # 16 bits: no comparisons
    counts = np.bincount(np.minimum(depth, DEEPEST))[:DEEPEST]
    return order, np.concatenate([[0], np.cumsum(counts)])


def _widen(levels: list[_Level]) -> None:
    """A caller is at least as wide as what it called: generators of one call take turns."""
    for upper, lower in zip(levels[-2::-1], levels[:0:-1], strict=True):
        inside = np.bincount(lower.above, lower.value, len(upper.value)).astype(np.int64)
        np.maximum(upper.value, inside, out=upper.value)


def _keep(levels: list[_Level], least: int) -> list[NDArray[np.bool_]]:
    """The paths that are wide enough; below one that is not, none is."""
    kept: list[NDArray[np.bool_]] = []
    for depth, level in enumerate(levels):
        keep = level.value >= max(least, 1)
        if depth:
            keep &= kept[-1][level.above]
        kept.append(keep)
    return kept


def _grow(trace: Trace, root: dict[str, Any], levels: list[_Level], kept: list[NDArray[np.bool_]]) -> None:
    names = _Names(trace)
    upper: dict[int, dict[str, Any]] = {0: root}
    for depth, (level, keep) in enumerate(zip(levels, kept, strict=True)):
        width = len(levels[depth - 1].value) if depth else 1
        inside = np.bincount(level.above, level.value, width)
        small = np.bincount(level.above[~keep], level.value[~keep], width)
        small_calls = np.bincount(level.above[~keep], level.calls[~keep], width)
        lower: dict[int, dict[str, Any]] = {}
        for at in np.flatnonzero(keep).tolist():
            value = ms(level.value[at])
            node = names.node(int(level.function[at]), value, int(level.calls[at]))
            upper[int(level.above[at])]["children"].append(node)
            lower[at] = node
        for above, node in upper.items():
            if small_calls[above]:
                node["children"].append(
                    {
                        "name": "…",
                        "value": ms(small[above]),
                        "self_ms": ms(small[above]),
                        "calls": int(small_calls[above]),
                        "location": None,
                        "children": [],
                    }
                )
            node["children"].sort(key=lambda child: -child["value"])
            node["self_ms"] = max(0.0, round(node["value"] - ms(inside[above]), 4))
        upper = lower


class _Names:
    def __init__(self, trace: Trace) -> None:
        self._functions = trace._names.functions
        self._known: dict[int, tuple[str, dict[str, Any]]] = {}

    def node(self, number: int, value: float, calls: int) -> dict[str, Any]:
        """A node without children."""
        known = self._known.get(number)
        if known is None:
            function = self._functions[number]
            name = text(f"{function.module}.{function.qualname}".removeprefix("."), NAME)
            location = {
                "file": text(function.file, NAME),
                "line": function.line,
                "function": text(function.qualname, NAME),
            }
            known = self._known[number] = name, location
        name, location = known
        return {
            "name": name,
            "value": value,
            "self_ms": value,
            "calls": calls,
            "location": location,
            "children": [],
        }
