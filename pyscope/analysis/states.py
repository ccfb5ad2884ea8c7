"""State changes: which attribute of which object became what, by which call."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from pyscope.events.state import STATE_CHANGE, STATES, Seen, ValueKind
from pyscope.findings import StateChange

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["counted", "find", "transition"]

Value = str | int | float | bool | None

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_CONSTANTS: dict[str, Value] = {"None": None, "True": True, "False": False}


def find(trace: Trace, last: int | None = None) -> list[StateChange]:
    """The changes in order of time; of the last so many events only, if `last` is given.

    The values that a new object is given are no changes, but for an attribute named status or state.
    """
    events = trace.probe_events(STATE_CHANGE)
    found = []
    rows = None if last is None else range(max(0, len(events) - last), len(events))
    for row in events.records(rows):
        if row.initial and row.attribute not in STATES:
            continue
        new = _value(row.new_kind, row.new)
        found.append(
            StateChange(
                process=row.owner,
                attribute=row.attribute,
                old=_value(row.old_kind, row.old),
                new=new,
                transition=transition(
                    row.owner, row.attribute, new if row.new_kind == ValueKind.TEXT else None
                ),
                trigger=_trigger(trace, row),
                time_ns=row.time_ns,
                thread=trace.threads[row.thread].name,
                key=row.key,
                object=row.object,
                seen=Seen(row.seen).name.lower(),
                known=row.old_kind != ValueKind.UNKNOWN and row.new_kind != ValueKind.UNKNOWN,
                stack=row.stack,
                scope=row.scope,
            )
        )
    return found


def counted(trace: Trace) -> dict[str, int]:
    """How often each transition happened, without a row for each change."""
    events = trace.probe_events(STATE_CHANGE)
    strings = trace.strings
    kinds = events["new_kind"].tolist()
    texts = [
        text if kind == ValueKind.TEXT else None for kind, text in zip(kinds, events["new"], strict=True)
    ]
    changes = Counter(
        zip(
            events["owner"].tolist(),
            events["attribute"].tolist(),
            events["initial"].tolist(),
            texts,
            strict=True,
        )
    )
    found: Counter[str] = Counter()
    for (owner, attribute, initial, new), count in changes.items():
        if not initial or strings[attribute] in STATES:
            found[transition(strings[owner], strings[attribute], new)] += count
    return dict(found)


def transition(owner: str, attribute: str, new: Value) -> str:
    """The name of a change: `task_assigned`, or `<attribute>_changed`."""
    if attribute in STATES and isinstance(new, str) and _WORD.match(new):
        return f"{_HUMP.sub('_', owner).lower()}_{new.lower().replace('-', '_')}"
    return f"{attribute or 'content'}_changed"


def _value(kind: int, text: str) -> Value:
    if kind in (ValueKind.ABSENT, ValueKind.UNKNOWN):
        return None
    if kind != ValueKind.LITERAL:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:  # cut
        return text


def _trigger(trace: Trace, row: Any) -> str:
    if row.trigger:
        return str(row.trigger)
    if row.stack:
        return str(row.stack[0].function)
    return trace.call(row.call).qualname if row.call >= 0 else ""
