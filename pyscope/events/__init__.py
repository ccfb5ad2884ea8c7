"""What probes tell: the types of their events, declared once for those who write and those who read them.

A type is a number, a name and its fields, for example

    SQL = EventType(10, "sql", "duration_ns statement:string rows stack:stack error:text")

A bare field is a whole number (64 bits, signed). `:string` is the number of an interned string, for few distinct
values: statements, names. `:stack` is the number of a calling stack. `:text` is text in line, for values and messages;
texts stand last, and what does not fit into 4096 bytes is cut. Numbers by domain: scope 1 to 9, sql 10, redis 20,
external calls 25, actors 50, supervision 60, state 70, resources 80, synchronisation 90, garbage collection and event
loop 130.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["COMMON", "EventType", "known"]

COMMON = ("time_ns", "process", "thread", "context", "call", "scope")
"""The fields that every event has: when, where, in which recorded call (row of `Trace.calls`, -1 none) and scope."""

_KINDS = ("number", "string", "stack", "text")
_known: dict[int, EventType] = {}


class EventType:
    """A type of event. `fields` maps each field's name to its kind, in order.

    Raises ValueError for a bad declaration.
    """

    __slots__ = ("fields", "kind", "name", "numbers", "texts")
    fields: Mapping[str, str]
    name: str

    def __init__(self, kind: int, name: str, fields: str) -> None:
        parsed: dict[str, str] = {}
        for field in fields.split():
            label, _, what = field.partition(":")
            what = what or "number"
            if what not in _KINDS or label in parsed or label in COMMON:
                raise ValueError(
                    f"event type {name}: {field!r} is no field; write name or name:{'|'.join(_KINDS[1:])}"
                )
            if what != "text" and "text" in parsed.values():
                raise ValueError(f"event type {name}: texts stand behind all other fields")
            parsed[label] = what
        if kind in _known:
            raise ValueError(f"event type {name}: {kind} is {_known[kind].name} already")
        self.kind = kind
        self.name = name
        self.fields = MappingProxyType(parsed)
        self.numbers = tuple(label for label, what in parsed.items() if what != "text")
        self.texts = tuple(label for label, what in parsed.items() if what == "text")
        _known[kind] = self

    def __repr__(self) -> str:
        return f"<EventType {self.kind} {self.name}: {' '.join(self.fields)}>"


def known() -> Mapping[int, EventType]:
    """The types declared so far, by number."""
    return MappingProxyType(_known)
