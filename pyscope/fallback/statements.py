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


_NO_LOADS: list[Any] = []


class ConnectionFields:
    """What is known of one checked-out connection: a weak reference to it, its number, a hash by which the connections
    of one database are known, the dialect's name, the transaction that it is in, the one that it commits, how many
    savepoints it has made, and whether its driver says how many rows a SELECT gave (SQLite's never does, and two
    functions of Python stand before the number)."""

    __slots__ = (
        "committing",
        "counts_selected",
        "database",
        "dialect",
        "number",
        "of",
        "savepoints",
        "transaction",
    )

    def __init__(self, of: Callable[[], Any], number: int, database: int, dialect: str) -> None:
        self.of = of
        self.number = number
        self.database = database
        self.dialect = dialect
        self.counts_selected = dialect != "sqlite"
        self.transaction: Any = None
        self.committing: Any = None
        self.savepoints = 0


class TransactionFields:
    """Of a transaction: its number, the loads of the threads that ran it, the number of its first run of loading, the
    SELECTs in it that name rows (number, `Known`, values and the number of rows of each). `Transaction` says more."""

    __slots__ = (
        "autocommit",
        "batch",
        "begun",
        "connection",
        "database",
        "earlier",
        "ended",
        "first_run",
        "found_rows",
        "isolation",
        "loads",
        "looks",
        "number",
        "savepoints",
        "writes",
    )

    def __init__(self, number: int, connection: int, database: int, isolation: str, loads: list[Any]) -> None:
        self.number = number
        self.connection = connection
        self.database = database
        self.isolation = isolation
        self.autocommit = isolation == "AUTOCOMMIT"
        self.ended = False
        self.savepoints: Any = ()
        self.batch: Any = None
        self.loads = loads
        self.begun: LoadsFields = loads[0]
        self.first_run = 0
        self.looks: Any = ()
        self.earlier: Any = ()
        self.found_rows: Any = ()
        self.writes: Any = ()

    def forget(self) -> None:
        """Drops what was gathered: it has ended."""
        self.looks = self.writes = self.earlier = self.found_rows = self.savepoints = ()
        self.ended = True
        self.loads = _NO_LOADS
        self.begun.ended()


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
    """Of a thread: the statements that it sent lately, the rows that it loaded, how many at most of each, the run that
    was asked for last, how many transactions are open, and the list of these loads alone. `Loads` says more."""

    __slots__ = ("alone", "few_rows", "last", "most", "most_rows", "open", "rows", "sent")

    alone: list[Any]
    few_rows: int
    last: tuple[int, str]
    most: int
    most_rows: int
    open: int
    rows: tuple[list[Any], list[int]]
    sent: tuple[list[int], list[int], list[Any], list[Any]]

    def shorten_rows(self) -> None:
        """Forgets the older rows."""

    def ended(self) -> None:
        """A transaction has ended. When none is open, what was read is of no more interest."""
        if self.open:
            self.open -= 1
        if not self.open and self.rows[0]:
            self.rows = [], []
            self.most_rows = self.few_rows


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
