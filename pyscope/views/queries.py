"""The statements sent to databases, each distinct text once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pyscope.analysis.call_sites import call_site
from pyscope.events.sql import STATEMENT as SENT
from pyscope.views.values import STATEMENT, ms, place, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["table"]


def table(trace: Trace, limit: int = 200) -> dict[str, Any]:
    """The statements with the most time, at most `limit`; `call_site` is where most of each were sent."""
    sent = trace.probe_events(SENT)
    if not len(sent):
        return {"queries": []}
    statements, which = np.unique(sent["statement"], return_inverse=True)
    duration = sent["duration_ns"]
    count = np.bincount(which)
    total = np.bincount(which, duration)
    longest = np.zeros(len(statements), np.int64)
    np.maximum.at(longest, which, duration)
    pairs = np.unique(np.stack([which, sent["scope"]]), axis=1)
    requests = np.bincount(pairs[0][pairs[1] != 0], minlength=len(statements))
    places, how_often = np.unique(np.stack([which, sent["stack"]]), axis=1, return_counts=True)
    best: dict[int, int] = {}
    for at in np.argsort(how_often, kind="stable").tolist():
        best[int(places[0, at])] = int(places[1, at])
    return {
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
        ]
    }
