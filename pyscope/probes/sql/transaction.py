"""A transaction as it is watched: the rows it reads and writes, bounded, told when it commits something."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pyscope import emitter
from pyscope.events.sql import ROW, Operation, Touch
from pyscope.probes.sql.shape import Shape, listed, value_of
from pyscope.probes.sql.template import mixed, plain

__all__ = ["Entity", "Statement", "Transaction", "row_of"]

MOST_READS = 1000
MOST_WRITES = 1000
_MOST_CHECKS = 200
_ROW = ROW.kind

_bases: dict[str, str] = {}
"""Tables of subclasses in joined inheritance, to the table that has the row's identity."""


class Statement:
    """A statement that has been sent. `origin`: SQLAlchemy's state of its compilation, by which loaded rows find it."""

    __slots__ = ("number", "origin", "shape", "template", "transaction")

    def __init__(
        self, number: int, template: str, shape: Shape, transaction: Transaction | None, origin: Any
    ) -> None:
        self.number = number
        self.template = template
        self.shape = shape
        self.transaction = transaction
        self.origin = origin


Entity = tuple[Statement, Any, Any]
"""An instance that was loaded: by which statement, its identity key, its class manager."""


def row_of(database: int, table: str, key: Iterable[Any]) -> int:
    """The salted hash by which a row is known; 0 if its key is of a type that cannot be hashed safely."""
    values = []
    for value in key:
        safe = plain(value)
        if safe is None:
            return 0
        values.append(safe)
    return mixed(database, _bases.get(table, table), *values)


def _group_of(database: int, shape: Shape, parameters: Any) -> int:
    """The salted hash of "all rows of this table that equal these values"; 0 without an equality."""
    values: list[object] = []
    for column, source in shape.equalities:
        value = value_of(source, parameters)
        safe = plain(value)
        if safe is None and value is not None:
            return 0
        values += (column, safe)
    return mixed(database, shape.table, "group", *values) if values else 0


class _Touched:
    __slots__ = ("computed", "number", "row", "shape", "table", "touch")

    def __init__(self, number: int, touch: Touch, table: str, row: int, shape: Shape) -> None:
        self.number = number
        self.touch = touch
        self.table = table
        self.row = row
        self.shape = shape


class _Check(NamedTuple):
    row: int
    statement: Statement
    rows: int  # that the driver counted, -1 unknown


class Transaction:
    """One transaction of one connection, from its begin to its end."""

    __slots__ = (
        "_checks",
        "_reads",
        "_writes",
        "autocommit",
        "connection",
        "database",
        "isolation",
        "number",
        "savepoints",
    )

    def __init__(self, number: int, connection: int, database: int, isolation: str) -> None:
        self.number = number
        self.connection = connection
        self.database = database
        self.isolation = isolation
        self.autocommit = isolation == "AUTOCOMMIT"
        self.savepoints: list[tuple[str, int]] = []
        self._reads: list[Entity | _Touched] = []
        self._writes: list[_Touched] = []
        # What was asked for by equality, to see whether something is put there: the checks of a table, by columns.
        self._checks: dict[str, dict[tuple[str, ...], list[_Check]]] = {}

    def loaded(self, entity: Entity) -> None:
        """An instance was filled from the database."""
        if len(self._reads) < MOST_READS:
            self._reads.append(entity)

    def executed(self, statement: Statement, parameters: Any, rows: int, entities: bool) -> None:
        """A statement was sent. `parameters`: of each execution; `entities`: whether it loads instances."""
        shape = statement.shape
        if shape.operation is Operation.SELECT:
            if shape.table:
                self._selected(statement, parameters[0], rows, entities)
        elif shape.operation is Operation.INSERT:
            self._inserted(statement, parameters)
        elif rows != 0 and shape.table:
            self._written(statement, parameters, rows)

    def _written(self, statement: Statement, parameters: Any, rows: int) -> None:
        """An UPDATE or DELETE. Where fewer rows were changed than named it is not known which: none counts."""
        shape = statement.shape
        if shape.key is not None:
            keys = [[value_of(source, each) for source in shape.key] for each in parameters[:MOST_WRITES]]
        elif shape.keys is not None and len(parameters) == 1:
            keys = [[value] for value in listed(shape.keys, parameters[0])]
        else:
            return
        if 0 <= rows < len(keys):
            return
        touch = Touch.DELETE if shape.operation is Operation.DELETE else Touch.WRITE
        for key in keys[: MOST_WRITES - len(self._writes)]:
            row = row_of(self.database, shape.table, key)
            if row:
                self._writes.append(_Touched(statement.number, touch, shape.table, row, shape))

    def _selected(self, statement: Statement, parameters: Any, rows: int, entities: bool) -> None:
        shape = statement.shape
        if len(self._reads) >= MOST_READS:
            return
        if not entities:  # of instances only those count that were filled: an old one keeps its old values
            keys: list[list[Any]] = []
            if shape.key is not None:
                keys = [[value_of(source, parameters) for source in shape.key]]
            elif shape.keys is not None:
                keys = [[value] for value in listed(shape.keys, parameters)]
            touch = Touch.READ_LOCKED if shape.locked else Touch.READ_KEY
            for key in keys:
                row = row_of(self.database, shape.table, key)
                if row:
                    self._reads.append(_Touched(statement.number, touch, shape.table, row, shape))
        if shape.exact and shape.equalities:
            row = _group_of(self.database, shape, parameters)
            if row:
                if shape.aggregate:
                    self._reads.append(_Touched(statement.number, Touch.READ_GROUP, shape.table, row, shape))
                columns = tuple(column for column, _ in shape.equalities)
                known = self._checks.setdefault(shape.table, {}).setdefault(columns, [])
                if len(known) < _MOST_CHECKS:
                    known.append(_Check(row, statement, rows))

    def _inserted(self, statement: Statement, parameters: Any) -> None:
        shape = statement.shape
        values = dict(shape.values)
        for each in parameters[: MOST_WRITES - len(self._writes)]:
            if shape.key is not None:
                try:
                    key = [value_of(source, each) for source in shape.key]
                except (LookupError, TypeError):
                    key = []  # the database makes it
                row = row_of(self.database, shape.table, key) if key else 0
                if row:
                    self._writes.append(_Touched(statement.number, Touch.INSERT, shape.table, row, shape))
            for columns, checks in self._checks.get(shape.table, {}).items():
                if all(column in values for column in columns):
                    wanted = Shape(
                        Operation.SELECT, shape.table, equalities=tuple((c, values[c]) for c in columns)
                    )
                    try:
                        row = _group_of(self.database, wanted, each)
                    except (LookupError, TypeError):
                        continue
                    self._checked(statement, row, checks)

    def _checked(self, statement: Statement, row: int, checks: list[_Check]) -> None:
        """A row was put where the transaction had looked before: had it counted, or found nothing?"""
        for check in reversed(checks):
            if check.row == row:
                made, shape = check.statement, check.statement.shape
                if not shape.aggregate:
                    found = check.rows
                    if found < 0:  # the driver does not say: of instances it is seen whether they were loaded
                        found = sum(type(read) is tuple and read[0] is made for read in self._reads)
                    if found:
                        return
                    self._reads.append(_Touched(made.number, Touch.READ_GROUP, shape.table, row, shape))
                self._writes.append(
                    _Touched(statement.number, Touch.INSERT_CHECKED, shape.table, row, statement.shape)
                )
                return

    def savepoint(self, name: str) -> None:
        """Remembers what had been written."""
        self.savepoints.append((name, len(self._writes)))

    def rolled_back_to(self, name: str) -> None:
        """Forgets what has been written since; since the latest, if none of that name was seen."""
        for at in range(len(self.savepoints) - 1, -1, -1):
            if self.savepoints[at][0] == name:
                del self.savepoints[at + 1 :]
                break
        if self.savepoints:
            del self._writes[self.savepoints.pop()[1] :]

    def tell(self) -> None:
        """Emits the rows, if something was written: reading alone harms nobody."""
        if not self._writes:
            return
        for read in self._reads:
            if type(read) is tuple:
                self._tell_entity(*read)
            else:
                self._tell(read)  # type: ignore[arg-type]
        for write in self._writes:
            self._tell(write)
        self._reads = []
        self._writes = []
        self._checks = {}

    def _tell(self, touched: _Touched) -> None:
        shape = touched.shape
        writes = touched.touch >= Touch.WRITE
        _emit(
            self,
            touched.number,
            touched.touch,
            touched.table,
            touched.row,
            shape.sets if writes else shape.condition,
            shape.computed if writes else (),
            shape.guards if writes else (),
        )

    def _tell_entity(self, statement: Statement, key: Any, manager: Any) -> None:
        mapper = manager.mapper
        table = str(mapper.base_mapper.local_table.name)
        if len(mapper.tables) > 1:
            for other in mapper.tables:
                if len(_bases) < 1000:
                    _bases.setdefault(str(other.name), table)
        row = row_of(self.database, table, key[1])
        if row:
            shape = statement.shape
            by_key = shape.get or shape.key is not None
            touch = Touch.READ_LOCKED if shape.locked else Touch.READ_KEY if by_key else Touch.READ
            _emit(self, statement.number, touch, table, row, shape.condition, (), ())


def _emit(
    transaction: Transaction,
    number: int,
    touch: Touch,
    table: str,
    row: int,
    columns: tuple[str, ...],
    computed: tuple[str, ...],
    guards: tuple[str, ...],
) -> None:
    intern = emitter.intern
    emitter.emit(
        _ROW,
        transaction.number,
        number,
        int(touch),
        intern(table),
        row,
        intern(",".join(columns)),
        intern(",".join(computed)),
        intern(",".join(guards)),
        transaction.autocommit,
    )
