"""What the recording does not hold, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyscope.analysis.summary import reason_of
from pyscope.views.values import TEXT, ms, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["message"]


def message(trace: Trace, limit: int = 200) -> dict[str, Any]:
    """The losses, the largest first where there are more than `limit`; `total` says how many there are."""
    found = trace.losses
    total = len(found)
    if total > limit:
        found = sorted(found, key=lambda loss: -loss.count)[:limit]
    return {
        "type": "losses",
        "total": total,
        "rows": [
            {
                "reason": reason_of(loss.reason),
                "count": loss.count,
                "start_ms": ms(loss.start_ns),
                "end_ms": ms(loss.end_ns),
                "pid": loss.pid,
                "detail": text(loss.detail, TEXT),
            }
            for loss in found
        ],
    }
