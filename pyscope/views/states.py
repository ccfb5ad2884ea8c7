"""State changes: which attribute of which object became what, by which call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyscope.analysis import states
from pyscope.findings import StateChange
from pyscope.views.values import NAME, identity, ms, place, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["count", "message"]


def message(trace: Trace, limit: int = 2000, *, since_ms: float | None = None) -> dict[str, Any]:
    """The last `limit` changes in order of time; `since_ms`: only those from then on."""
    found = states.find(trace, last=2 * limit) if limit > 0 else []
    if since_ms is not None:
        found = [change for change in found if change.time_ns >= since_ms * 1e6]
    seen: dict[tuple[object, ...], int] = {}
    return {"type": "state", "changes": [_change(change, seen) for change in found[-limit:]]}


def count(trace: Trace) -> int:
    """How many changes the trace has, without a row for each."""
    return sum(states.counted(trace).values())


def _change(change: StateChange, seen: dict[tuple[object, ...], int]) -> dict[str, Any]:
    key = (change.time_ns, change.thread, change.process, change.object, change.attribute)
    number = seen[key] = seen.get(key, -1) + 1
    return {
        "id": identity(*key, number),
        "process": text(change.process, NAME),
        "key": text(change.key, NAME),
        "object": str(change.object),
        "attribute": text(change.attribute, NAME),
        "old": _value(change.old),
        "new": _value(change.new),
        "transition": text(change.transition, NAME),
        "trigger": text(change.trigger, NAME),
        "time_ms": ms(change.time_ns),
        "thread": text(change.thread, NAME),
        "seen": change.seen,
        "scope": str(change.scope) if change.scope else "",
        "location": place(change.stack[0]) if change.stack else None,
    }


def _value(value: str | int | float | bool | None) -> str | int | float | bool | None:
    """Numbers that JSON or JavaScript cannot hold exactly become text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else text(value, NAME)
    if isinstance(value, float):
        return value if abs(value) < float("inf") else text(value, NAME)
    return text(value)
