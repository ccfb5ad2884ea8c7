"""Events of databases: statements, steps of transactions, rows that a committed transaction touched."""

from __future__ import annotations

from enum import IntEnum

from pyscope.events import EventType

__all__ = ["ROW", "STATEMENT", "TRANSACTION", "Load", "Operation", "Step", "Touch"]


class Operation(IntEnum):
    """What a statement does."""

    OTHER = 0
    SELECT = 1
    INSERT = 2
    UPDATE = 3
    DELETE = 4


class Load(IntEnum):
    """Why a SELECT was sent."""

    NONE = 0  # the program asked for it, without the ORM
    QUERY = 1  # the program asked the ORM for it
    COLLECTION = 2  # a relationship to many was touched that was not loaded yet
    SCALAR = 3  # a relationship to one
    DEFERRED = 4  # a column was touched that had been deferred
    EXPIRED = 5  # an attribute was touched that had expired
    REFRESH = 6  # Session.refresh()
    GET = 7  # Session.get()
    SUBCLASS = 8  # a column of a subclass's own table was touched, where the base class had been selected
    EAGER = 9  # an eager loader's own, for many parents at once
    FOREIGN_KEY = (
        10  # Django: a ForeignKey or OneToOneField, or its other side, was touched that was not loaded yet
    )
    RELATED_SET = 11  # Django: a related manager was read
    LEFT_OUT = 12  # Django: a column was touched that defer() or only() had left out
    ONE = 13  # Django: QuerySet.get()


class Step(IntEnum):
    """A step of a transaction."""

    BEGIN = 1
    COMMIT = 2  # told before the database commits
    ROLLBACK = 3
    FAILED = 4  # the commit before it was refused: nothing of the transaction holds
    SAVEPOINT = 5
    RELEASE = 6
    ROLLBACK_TO = 7  # to the savepoint


class Touch(IntEnum):
    """What a transaction did with a row."""

    READ = 1  # found by a condition
    READ_KEY = 2  # asked for by its key
    READ_LOCKED = 3  # FOR UPDATE
    READ_GROUP = 4  # `row` stands for all rows of a table that meet an equality
    WRITE = 5
    INSERT = 6
    DELETE = 7
    INSERT_CHECKED = 8  # `row` stands for the group: it was read before, and a row was put into it


STATEMENT = EventType(
    10,
    "sql",
    "number duration_ns statement:string operation connection transaction rows stack:stack arguments load "
    "relationship:string parent parent_statement:string paged error:string",
)
"""A statement that was sent to the database; its time is the end.

`number`: unique in the recording. `statement`: its text, values taken out. `rows`: the driver's row count, -1 unknown.
`arguments`, `parent`: salted hashes of the values and of the instance whose attribute was touched; 0 none.
`relationship`: "Class.attribute". `parent_statement`: what loaded that instance. `paged`: it asks for a page of a
longer list. `error`: the exception's type.
"""

TRANSACTION = EventType(11, "transaction", "step transaction connection isolation:string stack:stack")
"""A step of a transaction."""

ROW = EventType(
    12,
    "row",
    "transaction number touch table:string row columns:string computed:string guards:string autocommit",
)
"""A row that a transaction touched, told as it commits.

`number`: the statement's. `row`: a salted hash of database, table and key. `columns`: of a write, those that were set
to values that the program had computed; of a read, those of its condition. `computed`: those that rest on nothing
which was read: set by the database, `x = x + 1`, or to the present time.
`guards`: columns that the write's condition compared besides the key. Column names are joined by commas, in order.
"""
