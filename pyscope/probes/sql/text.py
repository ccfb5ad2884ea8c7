"""Reads simple SQL that was written by hand: one table, conditions joined by AND."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pyscope.events.sql import Operation

__all__ = ["Literal", "Parsed", "operation", "parse"]

_MOST_TEXT = 16_384


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that stands in the statement itself."""

    value: Any


@dataclass(slots=True)
class Parsed:
    """What `parse` found; see `pyscope.probes.sql.shape.Shape`."""

    operation: Operation
    table: str
    equalities: dict[str, str | int | Literal] = field(default_factory=dict)
    compared: set[str] = field(default_factory=set)
    ranges: set[str] = field(default_factory=set)
    exact: bool = True
    locked: bool = False
    aggregate: bool = False
    paged: bool = False
    sets: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    values: dict[str, str | int | Literal] = field(default_factory=dict)


_WORD = re.compile(r"\s*(?:/\*.*?\*/\s*|--[^\n]*\n\s*)*(\w+)", re.DOTALL)
_OPERATIONS = {
    "select": Operation.SELECT,
    "insert": Operation.INSERT,
    "update": Operation.UPDATE,
    "delete": Operation.DELETE,
}
_TOKEN = re.compile(
    r"(?P<comment>/\*.*?\*/|--[^\n]*)|'(?P<string>(?:[^']|'')*)'|(?<![\w.:$])(?P<number>-?\d+(?:\.\d+)?)(?![\w.])"
    r"|%\((?P<python>\w+)\)s|(?<![:\w]):(?P<colon>[A-Za-z_]\w*)|\$(?P<dollar>\d+)|(?P<place>\?|%s)",
    re.DOTALL,
)
_NAME = r'(?:[\w"]+\.)?"?(?P<table>\w+)"?'
_ALIAS = r"(?:\s+(?:as\s+)?(?!where\b|group\b|order\b|limit\b|offset\b|fetch\b|returning\b|having\b|for\b|set\b)\w+)?"
_REST = r"(?:\s+(?:group|order|limit|offset|fetch|returning|having)\b.*?)?"
_TAIL = _REST + r"(?P<lock>\s+for\s+(?:no\s+key\s+)?update\b.*)?"
_SELECT = re.compile(
    rf"select\s+(?P<columns>.*?)\s+from\s+{_NAME}{_ALIAS}(?:\s+where\s+(?P<where>.*?))?{_TAIL}\s*;?",
    re.I | re.S,
)
_UPDATE = re.compile(
    rf"update\s+{_NAME}{_ALIAS}\s+set\s+(?P<sets>.*?)(?:\s+where\s+(?P<where>.*?))?{_TAIL}\s*;?", re.I | re.S
)
_DELETE = re.compile(
    rf"delete\s+from\s+{_NAME}{_ALIAS}(?:\s+where\s+(?P<where>.*?))?{_TAIL}\s*;?", re.I | re.S
)
_INSERT = re.compile(
    rf"insert\s+into\s+{_NAME}\s*\((?P<columns>[^()]*)\)\s*values\s*\((?P<values>[^()]*)\){_TAIL}\s*;?",
    re.I | re.S,
)
_PATTERNS = {
    Operation.SELECT: _SELECT,
    Operation.UPDATE: _UPDATE,
    Operation.DELETE: _DELETE,
    Operation.INSERT: _INSERT,
}
_SLOT = re.compile(r"@(\d+)(?:::\w+)?")
_COLUMN = re.compile(r'(?:[\w"]+\.)?"?([A-Za-z_]\w*)"?')
_EQUALITY = re.compile(rf"{_COLUMN.pattern}\s*=\s*@(\d+)(?:::\w+)?")
_TRUTH = re.compile(rf"(?P<no>not\s+)?{_COLUMN.pattern}", re.I)
_IDENTIFIER = re.compile(r"(?<![@\w:])[A-Za-z_]\w*(?!\w|\s*\()")
_RANGE = re.compile(r"[<>](?!>)(?<!<>)|\bbetween\b", re.I)
_KEYWORDS = frozenset(
    (
        "and",
        "or",
        "not",
        "is",
        "null",
        "in",
        "like",
        "ilike",
        "between",
        "exists",
        "any",
        "all",
        "true",
        "false",
        "case",
        "when",
        "then",
        "else",
        "end",
    )
)


def operation(statement: str) -> Operation:
    """What a statement does, by its first word."""
    match = _WORD.match(statement[:_MOST_TEXT])
    return _OPERATIONS.get(match[1].lower(), Operation.OTHER) if match else Operation.OTHER


def parse(statement: str) -> Parsed | None:
    """A statement's parts; None if it is not simple enough to be sure of them."""
    if len(statement) > _MOST_TEXT:
        return None
    kind = operation(statement)
    if kind not in _PATTERNS:
        return None
    slots: list[str | int | Literal] = []
    body = _TOKEN.sub(lambda match: _slot(match, slots), statement).strip()
    match = _PATTERNS[kind].fullmatch(body)
    if match is None:
        return None
    found = Parsed(kind, match["table"].lower(), locked=bool(match["lock"]))
    if kind is Operation.INSERT:
        columns = [_name(column) for column in match["columns"].split(",")]
        for column, value in zip(columns, match["values"].split(","), strict=False):
            slot = _SLOT.fullmatch(value.strip())
            if slot:
                found.values[column] = slots[int(slot[1])]
        return found
    if kind is Operation.SELECT:
        found.aggregate = "(" in match["columns"]
        limited = re.search(r"\blimit\b|\bfetch\b", body, re.I) is not None
        paged = re.search(r"\boffset\b", body, re.I) is not None
        found.paged = paged or (limited and re.search(r"[<>]", match["where"] or "") is not None)
    if kind is Operation.UPDATE:
        found.sets, found.computed = _assignments(match["sets"], slots, found.values)
    _conditions(match["where"] or "", slots, found)
    return found


def _slot(match: re.Match[str], slots: list[str | int | Literal]) -> str:
    if match["comment"] is not None:
        return " "
    if match["string"] is not None:
        slots.append(Literal(match["string"].replace("''", "'")))
    elif match["number"] is not None:
        number = match["number"]
        slots.append(Literal(float(number) if "." in number else int(number)))
    elif match["dollar"] is not None:
        slots.append(int(match["dollar"]) - 1)
    elif match["place"] is not None:
        slots.append(sum(type(slot) is int for slot in slots))
    else:
        slots.append(match["python"] or match["colon"])
    return f"@{len(slots) - 1}"


def _conditions(where: str, slots: list[str | int | Literal], found: Parsed) -> None:
    if re.search(r"\bor\b|\bselect\b", where, re.I):
        found.exact = False
        found.compared |= set(_columns(where))
        return
    for conjunct in re.split(r"\s+and\s+", where.strip(), flags=re.I) if where.strip() else []:
        conjunct = conjunct.strip().removeprefix("(").removesuffix(")").strip()
        equality = _EQUALITY.fullmatch(conjunct)
        truth = None if equality else _TRUTH.fullmatch(conjunct)
        if equality:
            found.equalities[equality[1].lower()] = slots[int(equality[2])]
            found.compared.add(equality[1].lower())
        elif truth and truth[2].lower() not in _KEYWORDS:  # a column of truth values, alone
            found.equalities[truth[2].lower()] = Literal(truth["no"] is None)
            found.compared.add(truth[2].lower())
        else:
            found.exact = False
            found.compared |= set(_columns(conjunct))
            if _RANGE.search(conjunct):
                found.ranges |= set(_columns(conjunct))


def _assignments(
    text: str, slots: list[str | int | Literal], values: dict[str, str | int | Literal]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    sets: list[str] = []
    computed: list[str] = []
    for item in _split(text):
        column, _, value = item.partition("=")
        name, slot = _name(column), _SLOT.fullmatch(value.strip())
        if slot:
            sets.append(name)
            values[name] = slots[int(slot[1])]
        else:
            computed.append(name)
    return tuple(sorted(sets)), tuple(sorted(computed))


def _split(text: str) -> Iterator[str]:
    depth = start = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            yield text[start:at]
            start = at + 1
    yield text[start:]


def _columns(text: str) -> Iterator[str]:
    for match in _IDENTIFIER.finditer(text):
        name = match[0].lower()
        if name not in _KEYWORDS:
            yield name


def _name(text: str) -> str:
    return text.strip().rpartition(".")[2].strip('"`').lower()
