"""State changes of watched objects: attributes that were set, and containers that were changed in place."""

from __future__ import annotations

from enum import IntEnum

from pyscope.events import EventType

__all__ = ["STATES", "STATE_CHANGE", "Seen", "ValueKind"]

STATES = ("status", "state")
"""The attributes whose words name a transition. Of others the values that a constructor gives are no changes."""


class ValueKind(IntEnum):
    """How the text of an old or new value is to be read."""

    ABSENT = 0  # there was no such attribute
    TEXT = 1  # a str (or a str enum member's value): the text is the value
    LITERAL = 2  # None, a bool, an int or a float, as Python writes it
    SHOWN = 3  # anything else: a bounded description
    UNKNOWN = 4  # it could not be told without running the program's code, or a query


class Seen(IntEnum):
    """How a change was noticed."""

    WRITE = 0  # the attribute was set or deleted: the stack is that of the change
    BOUNDARY = 1  # at the end of a call of the object's method, or of a message: `trigger` did it
    BETWEEN = 2  # at the beginning of `trigger`: something before did it
    STATEMENT = 3  # an UPDATE of the mapped class's table was executed


STATE_CHANGE = EventType(
    70,
    "state_change",
    "object seen initial old_kind new_kind owner:string attribute:string trigger:string stack:stack "
    "key:text old:text new:text",
)
"""`object` numbers the object (0: a row that no object stood for); `owner` is the name of its class; `key`
tells it from others of the class where that is known (a primary key); `initial`: a value that a new object
was given."""
