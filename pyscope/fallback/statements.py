"""What the SQLAlchemy probe keeps for each statement, where the native recorder is not built.

The compiled classes (native/hook_statements.pxi) have the same fields, and the compiled path of a statement reads them
without asking Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = [
    "ConnectionFields",
    "KnownFields",
    "LoadsFields",
    "StatementsFields",
    "TransactionFields",
    "identity_number",
    "loaded",
]


class ConnectionFields:
    """Of a connection: a weak reference to it, its number, its dialect and the transaction that it is in."""

    __slots__ = ("dialect", "number", "of", "transaction")

    dialect: str
    number: int
    of: Any
    transaction: Any


class TransactionFields:
    """Of a transaction: its number, the loads of the threads that ran it, the number of its first run of loading, and
    the SELECTs in it that name rows: number, `Known`, values and the number of rows of each."""

    __slots__ = ("first_run", "loads", "looks", "number")

    first_run: int
    loads: list[Any]
    looks: list[tuple[int, Any, Any, int]] | tuple[()]
    number: int


class KnownFields:
    """Of a statement as such: `Known` says what."""

    __slots__ = (
        "asked_load",
        "entities",
        "load",
        "names",
        "names_rows",
        "operation",
        "orm",
        "paged",
        "relationship",
        "template",
    )

    asked_load: int
    entities: bool
    load: int
    names: tuple[int, int, int]
    names_rows: bool
    operation: int
    orm: bool
    paged: bool
    relationship: str
    template: str


class LoadsFields:
    """Of a thread: the statements that it sent lately, the rows that it loaded, how many at most of each, and the run
    that was asked for last. `Loads` says more."""

    __slots__ = ("last", "most", "most_rows", "rows", "sent")

    last: tuple[int, str]
    most: int
    most_rows: int
    rows: tuple[list[Any], list[int]]
    sent: tuple[list[int], list[int], list[Any], list[Any]]

    def shorten_rows(self) -> None:
        """Forgets the older rows."""


class StatementsFields:
    """Of the probe: whether it watches, the loads of the calling thread (`here.loads`), the counter of runs."""

    __slots__ = ("here", "new_run", "watching")

    here: Any
    new_run: Callable[[], int]
    watching: bool


def loaded(statements: StatementsFields) -> Callable[..., None]:
    """A listener that notes the rows of instances as they are loaded."""

    def note(state: Any, context: Any, _attributes: Any = None) -> None:
        if context is not None:
            loads: LoadsFields = statements.here.loads
            states, runs = loads.rows
            states.append(state)
            runs.append(context.runid)
            if len(states) >= loads.most_rows:
                loads.shorten_rows()

    return note


def identity_number(salt: int, class_address: int, key: int) -> int:
    """A salted hash of an instance whose key is one integer, never 0."""
    return hash((salt, class_address, key)) or 1
