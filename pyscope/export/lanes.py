"""Lanes: the calls of a trace in rows where they never overlap but by nesting, as timeline viewers want them.

The calls of a thread itself are a lane. Its tasks and greenlets run between one another: each has a lane that it shares
with those that begin after its end.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["Lane", "Span", "lanes"]

Span = tuple[int, ...]
"""Row in `Trace.calls`, start and end in nanoseconds of Unix time, and what else was asked for."""

_BATCH = 50_000  # rows whose numbers are objects of Python at a time


@dataclass(frozen=True, slots=True)
class Lane:
    """`number` tells it from the others, `rows` are its calls in order of their begin."""

    number: int
    name: str
    pid: int
    rows: NDArray[np.intp]

    def spans(self, trace: Trace, *names: str) -> Iterator[Span]:
        """The calls, with their values in the columns of these names, each within the one around it: what outlives its
        caller, as generators do, ends with it."""
        around: list[int] = []
        for row, start, end, *others in self._values(trace, names):
            while around and around[-1] <= start:
                around.pop()
            end = min(end, around[-1]) if around else end
            around.append(end)
            yield row, start, end, *others

    def _values(self, trace: Trace, names: tuple[str, ...]) -> Iterator[tuple[int, ...]]:
        calls = trace.calls
        for at in range(0, len(self.rows), _BATCH):
            rows = self.rows[at : at + _BATCH]
            starts = calls["start_ns"][rows]
            columns = [
                rows,
                starts,
                starts + calls["duration_ns"][rows],
                *(calls[name][rows] for name in names),
            ]
            yield from zip(*(column.tolist() for column in columns), strict=True)


def lanes(trace: Trace) -> list[Lane]:
    """The lanes of a trace, thread by thread."""
    calls = trace.calls
    thread = calls["thread"].astype(np.int64)
    context = calls["context"].astype(np.int64)
    if not len(thread):
        return []
    start = calls["start_ns"]
    groups, which = np.unique(thread * (int(np.max(context)) + 1) + context, return_inverse=True)
    first = np.full(len(groups), np.iinfo(np.int64).max)
    last = np.full(len(groups), np.iinfo(np.int64).min)
    np.minimum.at(first, which, start)
    np.maximum.at(last, which, start + calls["duration_ns"])
    lane_of, names = _shared(trace, groups, int(np.max(context)) + 1, first, last)
    lane = lane_of[which]
    order = np.lexsort((start, lane))  # stable: callers stay before those that they called at once
    bounds = np.searchsorted(lane[order], np.arange(len(names) + 1))
    return [
        Lane(
            number,
            name,
            trace.processes[trace.threads[of].process].pid,
            order[bounds[number] : bounds[number + 1]],
        )
        for number, (of, name) in enumerate(names)
    ]


def _shared(
    trace: Trace, groups: NDArray[np.int64], contexts: int, first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[tuple[int, str]]]:
    """For each thread and context its lane; and of each lane thread and name."""
    lane_of = np.zeros(len(groups), np.int64)
    names: list[tuple[int, str]] = []
    free: dict[int, list[tuple[int, int]]] = {}  # of each thread: the end of the last in a lane, the lane
    taken: dict[int, int] = {}
    for at in np.lexsort((first, groups % contexts > 0, groups // contexts)).tolist():
        thread, context = divmod(int(groups[at]), contexts)
        name = trace.threads[thread].name
        waiting = free.setdefault(thread, [])
        if context and waiting and waiting[0][0] <= first[at]:
            lane = waiting[0][1]
            heapq.heapreplace(waiting, (int(last[at]), lane))
        else:
            lane = len(names)
            if context:
                taken[thread] = taken.get(thread, 0) + 1
                name = f"{name}, tasks {taken[thread]}"
                heapq.heappush(waiting, (int(last[at]), lane))
            names.append((thread, name))
        lane_of[at] = lane
    return lane_of, names
