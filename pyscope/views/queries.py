"""The statements sent to databases, each distinct text once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.call_sites import call_site
from pyscope.events.sql import STATEMENT as SENT
from pyscope.views.values import STATEMENT, ms, place, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["table"]


def table(trace: Trace, limit: int = 200) -> dict[str, Any]:
    """The statements with the most time, at most `limit` of `total`; `call_site` is where most of each were sent."""
    sent = trace.probe_events(SENT)
    if not len(sent):
        return {"total": 0, "queries": []}
    statements, which = np.unique(sent["statement"], return_inverse=True)
    duration = sent["duration_ns"]
    count = np.bincount(which)
    total = np.bincount(which, duration)
    longest = np.zeros(len(statements), np.int64)
    np.maximum.at(longest, which, duration)
    of_scopes, scopes, _ = _pairs(which, sent["scope"])
    requests = np.bincount(of_scopes[scopes != 0], minlength=len(statements))
    of_stacks, stacks, how_often = _pairs(which, sent["stack"])
    best: dict[int, int] = {}
    for at in np.argsort(how_often, kind="stable").tolist():
        best[int(of_stacks[at])] = int(stacks[at])
    return {
        "total": len(statements),
        "queries": [
            {
                "statement": text(trace.strings[int(statements[at])], STATEMENT),
                "count": int(count[at]),
                "total_ms": ms(total[at]),
                "mean_ms": ms(total[at] / count[at]),
                "max_ms": ms(longest[at]),
                "call_site": place(call_site(trace.stack(best[at]))),
                "requests": int(requests[at]),
            }
            for at in np.argsort(-total, kind="stable")[: max(0, limit)].tolist()
        ],
    }


def _pairs(
    first: NDArray[np.intp], second: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The distinct pairs of two columns, the first of small numbers, and how often each is there."""
    values, number = np.unique(second, return_inverse=True)
    pairs, counts = np.unique(first.astype(np.int64) * len(values) + number, return_counts=True)
    return pairs // len(values), values[pairs % len(values)], counts.astype(np.int64)
