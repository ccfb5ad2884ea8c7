"""By which call a library came into the program's own code: a server's handler, a worker's job, a callback.

What two of them do is no loop of the program's, though one thread makes them one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.call_sites import made_at_run_time
from pyscope.analysis.placement import Placement
from pyscope.rows import Location

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["entries"]

_MOST_FRAMES = 32  # of a stack: one that has as many is cut


def entries(trace: Trace, events: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """For each of some events with a stack the outermost call of its thread or task, in whose callers there is no loop
    of the program's; -1 where there may be one, in code that is not recorded."""
    placement = Placement(trace)
    rows, inverse = np.unique(placement.calls(events), return_inverse=True)
    outermost = rows.copy()
    while True:
        above = np.where(outermost >= 0, placement.parent[outermost], -1)
        if not (above >= 0).any():
            break
        outermost = np.where(above >= 0, above, outermost)
    found = outermost[inverse].astype(np.int64)
    function = np.where(found >= 0, trace.calls["function"][found], -1).astype(np.int64)
    recorded = {(each.file, each.qualname) for each in trace.functions}
    pairs, of = np.unique(np.stack([function, events["stack"]]), axis=1, return_inverse=True)
    verdict = [
        number >= 0 and _entered(trace.functions[number], trace.stack(stack), recorded)
        for number, stack in pairs.T.tolist()
    ]
    return np.where(np.array(verdict, bool)[of.ravel()], found, -1)


def _entered(function: Any, stack: tuple[Location, ...], recorded: set[tuple[str, str]]) -> bool:
    """Whether whatever of the program's own code called a function ran in another thread or task: it is recorded, and
    would be the outermost call otherwise."""
    frames = [(place.file, place.function) for place in stack]
    own = function.file, function.qualname
    if len(frames) >= _MOST_FRAMES or own not in frames:
        return False
    outside = frames[len(frames) - frames[::-1].index(own) :]
    return all(frame in recorded or made_at_run_time(frame[0]) for frame in outside)
