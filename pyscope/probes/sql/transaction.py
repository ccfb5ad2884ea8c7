"""A transaction as it is watched: the rows it reads and writes, bounded, told when it commits something."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyscope import emitter
from pyscope.events.sql import ROW, Operation, Touch
from pyscope.probes.sql.shape import Shape, listed, value_of
from pyscope.probes.sql.template import mixed, plain

__all__ = ["Entity", "Statement", "Transaction", "row_of"]

MOST_READS = 1000
MOST_WRITES = 1000
_MOST_GROUPS = 200
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
        safe = plain(value_of(source, parameters))
        if safe is None:
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


class Transaction:
    """One transaction of one connection, from its begin to its end."""

    __slots__ = (
        "_groups",
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
        self._groups: dict[str, dict[tuple[str, ...], list[tuple[int, int]]]] = {}

    def loaded(self, entity: Entity) -> None:
        """An instance was filled from the database."""
        if len(self._reads) < MOST_READS:
            self._reads.append(entity)

    def executed(self, statement: Statement, parameters: Any, rows: int, entities: bool) -> None:
        """A statement was sent. `parameters`: of each execution; `entities`: whether it loads instances."""
        shape = statement.shape
        if shape.operation is Operation.SELECT:
            if shape.table:
                self._selected(statement, parameters[0], entities)
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

    def _selected(self, statement: Statement, parameters: Any, entities: bool) -> None:
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
                known = self._groups.setdefault(shape.table, {}).setdefault(columns, [])
                if len(known) < _MOST_GROUPS:
                    known.append((row, statement.number))

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
            for columns, groups in self._groups.get(shape.table, {}).items():
                if all(column in values for column in columns):
                    probe = Shape(
                        Operation.SELECT, shape.table, equalities=tuple((c, values[c]) for c in columns)
                    )
                    try:
                        row = _group_of(self.database, probe, each)
                    except (LookupError, TypeError):
                        continue
                    if any(row == group for group, _ in groups):
                        self._writes.append(
                            _Touched(statement.number, Touch.INSERT_CHECKED, shape.table, row, shape)
                        )

    def savepoint(self, name: str) -> None:
        """Remembers what had been written."""
        self.savepoints.append((name, len(self._writes)))

    def rolled_back_to(self, name: str) -> None:
        """Forgets what has been written since."""
        for at in range(len(self.savepoints) - 1, -1, -1):
            if self.savepoints[at][0] == name:
                del self._writes[self.savepoints[at][1] :]
                del self.savepoints[at:]
                return

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
        self._groups = {}

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
