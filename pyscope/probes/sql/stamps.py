"""Columns that an UPDATE sets to the time of the writing: when somebody logged in, was seen, or changed the row last.

Whoever writes such a time over another's has lost nothing: it rests on no value that was read.
"""

from __future__ import annotations

import datetime
from time import time
from typing import Any

from pyscope.probes.sql.shape import Shape, value_of

__all__ = ["stamps"]

_AGE = 60.0  # seconds: what a request may have taken since it looked at the clock
_AHEAD = 1.0  # a whole second may have been rounded up
_NONE: frozenset[str] = frozenset()


def stamps(shape: Shape, parameters: Any) -> frozenset[str]:
    """Of the columns that a statement sets with these parameters those that are set to the present time."""
    found = None
    for column, source in shape.values:
        try:
            value = value_of(source, parameters)
        except (LookupError, TypeError):
            continue
        if value is not None and _is_now(value):
            found = [column] if found is None else [*found, column]
    return _NONE if found is None else frozenset(found)


def _is_now(value: Any) -> bool:
    kind = type(value)
    if kind is bool or kind is bytes:
        return False
    if kind is int or kind is float:
        return bool(-_AHEAD <= time() - value <= _AGE)
    if kind is str:  # as SQLite has them
        if not 19 <= len(value) <= 32 or value[4] != "-" or value[7] != "-":
            return False
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return False
    if isinstance(value, datetime.datetime):
        try:
            age = time() - value.timestamp()
            if -_AHEAD <= age <= _AGE:
                return True
            if value.tzinfo is not None:
                return False
            return -_AHEAD <= time() - value.replace(tzinfo=datetime.UTC).timestamp() <= _AGE
        except Exception:  # years that the platform does not know, or a time zone of the program's own
            return False
    return isinstance(value, datetime.date) and value in (
        datetime.date.today(),
        datetime.datetime.now(datetime.UTC).date(),
    )
