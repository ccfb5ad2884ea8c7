"""Statements without their values: what may be recorded of SQL, and hashes of what may not."""

from __future__ import annotations

import datetime
import decimal
import random
import re
import uuid
from functools import lru_cache

__all__ = ["SALT", "fingerprint", "mixed", "plain", "template"]

_MOST_TEXT = 2000
_MOST_RAW = 16_384
_MOST_VALUES = 64
_MOST_STRING = 4096

SALT = random.SystemRandom().getrandbits(62)

_PLAIN_TYPES = (
    int,
    str,
    bool,
    float,
    bytes,
    type(None),
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
)
_PLAIN = frozenset(map(id, _PLAIN_TYPES))  # by identity: no metaclass is asked for its hash

_COMMENTS = r"/\*.*?(?:\*/|\Z)|--[^\n]*"
_VALUES = r"\$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z)|[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)|%s"
_NAMES = r'"(?:[^"]|"")*(?:"|\Z)|`[^`]*(?:`|\Z)|\[[A-Za-z_][^\]\n]*\]'
_PLACEHOLDERS = r"%\(\w+\)s|%s|\$\d+|(?<![:\w]):[A-Za-z_]\w*|\?"
_NUMBERS = r"(?<![\w.$])(?:0x[0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(?!\w)"


def _pattern(strings: str, names: str) -> re.Pattern[str]:
    values = f"{_VALUES % strings}|{_PLACEHOLDERS}|{_NUMBERS}"
    return re.compile(f"(?P<space>(?:\\s+|{_COMMENTS})+)|(?P<name>{names})|(?P<value>{values})", re.DOTALL)


_STANDARD = _pattern(r"'(?:[^']|'')*(?:'|\Z)", _NAMES)
_MYSQL = _pattern(r"""'(?:[^'\\]|\\.|'')*(?:'|\Z)|"(?:[^"\\]|\\.|"")*(?:"|\Z)""", r"`[^`]*(?:`|\Z)")

_LIST = re.compile(r"\(\s*\?(?:::[\w ]+)?(?:\s*,\s*\?(?:::[\w ]+)?)+\s*\)")
_ROWS = re.compile(r"(\(\?[^()]*\))(?:\s*,\s*\(\?[^()]*\))+")


def template(statement: str, dialect: str = "") -> str:
    """A statement's text with `?` for each value and `(?, …)` for lists of them, so that it stands for all its kind.

    At most 2000 characters. `dialect`: SQLAlchemy's name of it; MySQL's strings may stand in double quotes.
    """
    if len(statement) > _MOST_RAW:
        return _template.__wrapped__(statement[:_MOST_RAW], dialect)
    return _template(statement, dialect)


@lru_cache(maxsize=4096)
def _template(statement: str, dialect: str) -> str:
    pattern = _MYSQL if dialect in ("mysql", "mariadb") else _STANDARD
    text = pattern.sub(_replaced, statement).strip()
    text = _ROWS.sub(r"\1, …", _LIST.sub("(?, …)", text))
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"


def _replaced(match: re.Match[str]) -> str:
    if match["space"] is not None:
        return " "
    return match["name"] if match["name"] is not None else "?"


def plain(value: object) -> object:
    """A value that can be hashed without running anybody's code: itself if of a built-in type, else None."""
    if id(type(value)) not in _PLAIN:
        return None
    if type(value) in (str, bytes) and len(value) > _MOST_STRING:  # type: ignore[arg-type]
        return (len(value), value[:_MOST_STRING])  # type: ignore[arg-type, index]
    return str(value) if type(value) is uuid.UUID else value


def mixed(*values: object) -> int:
    """A salted 64-bit hash of plain values, never 0. The salt is the process's own and is not recorded."""
    return hash((SALT, *values)) or 1


def fingerprint(statement: str, parameters: object) -> int:
    """A salted hash of a statement and its parameters, as the driver gets them.

    Values of other than built-in types count by their identity, since their own `__hash__` is not to be called.
    """
    if type(parameters) is tuple and len(parameters) == 1 and type(parameters[0]) is int:
        return hash((SALT, statement, 1, parameters[0])) or 1  # the commonest, by far
    if type(parameters) is dict:
        values = list(parameters.values())
    elif type(parameters) in (tuple, list):
        values = list(parameters)  # type: ignore[call-overload]
    else:
        return mixed(statement)
    count = len(values)
    found = []
    for value in values[:_MOST_VALUES]:
        safe = plain(value)
        if safe is None and value is not None:
            if type(value) in (tuple, list):  # an array; not what is within one of its own
                safe = (
                    len(value),
                    *(id(each) if plain(each) is None else plain(each) for each in value[:_MOST_VALUES]),
                )
            else:
                safe = id(value)
        found.append(safe)
    return mixed(statement, count, *found)
