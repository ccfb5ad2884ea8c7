"""A transaction as it is watched: the rows it reads and writes, bounded, told when it commits something."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from pyscope import emitter
from pyscope.events.sql import ROW, TRANSACTION, Operation, Step, Touch
from pyscope.probes.sql.fields import TransactionFields
from pyscope.probes.sql.loads import Loads, Statement
from pyscope.probes.sql.shape import Shape, listed, value_of
from pyscope.probes.sql.stamps import stamps
from pyscope.probes.sql.template import mixed, plain

if TYPE_CHECKING:
    from pyscope.probes.sql.known import Known

__all__ = ["MOST_READS", "Transaction", "row_of"]

MOST_READS = 1000
MOST_WRITES = 1000
_MOST_LOOKS = 200
_ROW = ROW.kind
_TRANSACTION = TRANSACTION.kind

_NONE: frozenset[str] = frozenset()
_bases: dict[str, str] = {}
"""Tables of subclasses in joined inheritance, to the table that has the row's identity."""


class _Touched(NamedTuple):
    statement: Statement
    touch: Touch
    table: str
    row: int
    shape: Shape
    stamped: frozenset[str] = _NONE  # columns that were set to the time of the writing


class _Look(NamedTuple):
    """A SELECT with the values of its condition: which rows it names is found out only if that matters."""

    number: int
    known: Known
    parameters: Any
    rows: int  # that the driver counted, -1 unknown


_Item = TypeVar("_Item")
_Gathered: TypeAlias = list[_Item] | tuple[()]
"""A list, of which there is none as long as it would be empty."""


def _added(gathered: _Gathered[_Item], item: _Item) -> list[_Item]:
    if not gathered:
        return [item]
    gathered.append(item)
    return gathered


def row_of(database: int, table: str, key: Iterable[Any]) -> int:
    """The salted hash by which a row is known; 0 if its key is of a type that cannot be hashed safely."""
    values = []
    for value in key:
        safe = plain(value)
        if safe is None:
            return 0
        values.append(safe)
    return mixed(database, _bases.get(table, table), *values)


def _group_of(database: int, table: str, equalities: Iterable[tuple[str, Any]], parameters: Any) -> int:
    """The salted hash of "all rows of this table that equal these values"; 0 without an equality."""
    values: list[object] = []
    for column, source in equalities:
        try:
            value = value_of(source, parameters)
        except (LookupError, TypeError):
            return 0
        safe = plain(value)
        if safe is None and value is not None:
            return 0
        values += (column, safe)
    return mixed(database, table, "group", *values) if values else 0


class Transaction(TransactionFields):
    """One transaction of one connection, from its begin to its end.

    `loads`: of the threads that ran it, the latest last; first a list of one, which may be that of other transactions.
    `first_run`: the number of its first statement of the ORM. `ended`: `forget` was called.

    Most only read: what is gathered begins as an empty tuple. Thousands of lists would live as long as the statements
    are known that they belong to, and make the garbage collector look at all of the program's objects more often.
    """

    __slots__ = ()

    def knew(self, state: Any, statement: Statement) -> None:
        """It wrote an instance whose values the program knew by a statement of an earlier transaction."""
        if len(self.earlier) < MOST_READS:
            self.earlier = _added(self.earlier, (statement, state))

    def found(self, statement: Statement, table: str, keys: Iterable[Any]) -> None:
        """Rows that a SELECT found, where no state of instances tells them."""
        for key in islice(keys, MOST_READS - len(self.found_rows)):
            found = statement, table, row_of(self.database, table, [key])
            self.found_rows = _added(self.found_rows, found)

    def rests_on(self, statement: Statement, written: Statement, key: Any) -> None:
        """A statement wrote an instance, of this key, whose values the program knew by an earlier one."""
        if not self.writes or self.writes[-1].statement is not written or len(self.found_rows) >= MOST_READS:
            return
        write = self.writes[-1]
        if write.row == row_of(self.database, write.table, [key]):
            self.found_rows = _added(self.found_rows, (statement, write.table, write.row))

    def answered(self, statement: Statement, rows: int) -> None:
        """How many rows a SELECT gave, where the driver did not say."""
        looks = self.looks
        if looks and looks[-1][0] == statement.number:
            looks[-1] = (*looks[-1][:3], rows)

    def moved(self, loads: Loads) -> None:
        """It goes on in another thread."""
        if not self.ended:
            self.loads = [*(other for other in self.loads if other is not loads), loads]

    def looked(self, number: int, known: Known, parameters: Any, rows: int) -> None:
        """A SELECT was sent that names rows, or a group of them, by values."""
        if len(self.looks) < MOST_READS:
            self.looks = _added(self.looks, (number, known, parameters, rows))

    def changed(self, statement: Statement, parameters: Any, rows: int) -> None:
        """An INSERT, UPDATE or DELETE was sent, with the parameters of each execution."""
        shape = statement.known.shape
        if not shape.table:
            return
        if shape.operation is Operation.INSERT:
            self._inserted(statement, parameters)
        elif rows != 0:
            self._written(statement, parameters, rows)

    def _written(self, statement: Statement, parameters: Any, rows: int) -> None:
        """An UPDATE or DELETE. Where fewer rows were changed than named it is not known which: none counts."""
        shape = statement.known.shape
        if shape.key is not None:
            keys = [[value_of(source, each) for source in shape.key] for each in parameters[:MOST_WRITES]]
        elif shape.keys is not None and len(parameters) == 1:
            keys = [[value] for value in listed(shape.keys, parameters[0])]
        else:
            return
        if 0 <= rows < len(keys):
            return
        touch = Touch.DELETE if shape.operation is Operation.DELETE else Touch.WRITE
        by_key = shape.key is not None
        for at, key in enumerate(keys[: MOST_WRITES - len(self.writes)]):
            stamped = stamps(shape, parameters[at if by_key else 0])
            self._write(statement, touch, row_of(self.database, shape.table, key), stamped)

    def _write(self, statement: Statement, touch: Touch, row: int, stamped: frozenset[str] = _NONE) -> None:
        if row:
            shape = statement.known.shape
            self.writes = _added(self.writes, _Touched(statement, touch, shape.table, row, shape, stamped))

    def _inserted(self, statement: Statement, parameters: Any) -> None:
        shape = statement.known.shape
        values = dict(shape.values)
        looks = [
            look
            for look in map(_Look._make, self.looks[-_MOST_LOOKS:])
            if look.known.shape.table == shape.table and look.known.shape.exact
        ]
        for each in parameters[: MOST_WRITES - len(self.writes)]:
            if shape.key is not None:
                try:
                    key = [value_of(source, each) for source in shape.key]
                except (LookupError, TypeError):
                    key = []  # the database makes it
                if key:
                    self._write(statement, Touch.INSERT, row_of(self.database, shape.table, key))
            for look in reversed(looks):
                if self._checked(statement, each, values, look):
                    break

    def _checked(self, statement: Statement, inserted: Any, values: dict[str, Any], look: _Look) -> bool:
        """Whether a row was put where the transaction had looked before; told if it had counted, or found nothing."""
        seen = look.known.shape
        if not seen.equalities or not all(column in values for column, _ in seen.equalities):
            return False
        row = _group_of(self.database, seen.table, seen.equalities, look.parameters)
        mine = _group_of(self.database, seen.table, [(c, values[c]) for c, _ in seen.equalities], inserted)
        if not row or row != mine:
            return False
        if seen.aggregate or not self._found(look):
            self._write(statement, Touch.INSERT_CHECKED, row)
        return True

    def _found(self, look: _Look) -> bool:
        """Whether a SELECT found a row; where the driver does not say, whether instances were loaded by it."""
        if look.rows >= 0 or not look.known.entities:
            return look.rows > 0
        return any(statement.number == look.number for statement, _ in self._loaded())

    def _loaded(self) -> Iterator[tuple[Statement, Any]]:
        """The statements of this transaction with the states of the instances that they filled."""
        first = self.first_run
        for loads in self.loads if first else ():
            states, runs = loads.rows
            for state, run in zip(list(states), list(runs), strict=False):
                if run > first:
                    statement = loads.statement_of(run)
                    if statement is not None and statement.transaction is self:
                        yield statement, state

    def savepoint(self, name: str) -> None:
        """Remembers what had been written."""
        self.savepoints = _added(self.savepoints, (name, len(self.writes)))

    def rolled_back_to(self, name: str) -> None:
        """Forgets what has been written since; since the latest, if none of that name was seen."""
        savepoints = self.savepoints
        if not savepoints:
            return
        for at in range(len(savepoints) - 1, -1, -1):
            if savepoints[at][0] == name:
                del savepoints[at + 1 :]
                break
        written = savepoints.pop()[1]
        if self.writes:
            del self.writes[written:]

    def tell(self) -> None:
        """Emits the rows, if something was written: reading alone harms nobody."""
        if not self.writes:
            return
        for statement, state in islice(chain(self.earlier, self._loaded()), MOST_READS):
            self._tell_entity(statement, state)
        for statement, table, row in self.found_rows:
            self._tell_found(statement, table, row)
        checked = {write.row for write in self.writes if write.touch is Touch.INSERT_CHECKED}
        for look in map(_Look._make, self.looks):
            self._tell_look(look, checked)
        for write in self.writes:
            shape, stamped = write.shape, write.stamped
            sets, computed = shape.sets, shape.computed
            if stamped:
                sets = tuple(column for column in sets if column not in stamped)
                computed = tuple(sorted({*computed, *stamped}))
            self._tell(
                write.statement.number, write.touch, shape.table, write.row, sets, computed, shape.guards
            )

    def tell_step(self, step: Step) -> None:
        """Emits a step of it, as taken here."""
        emitter.emit(
            _TRANSACTION,
            int(step),
            self.number,
            self.connection,
            emitter.intern(self.isolation),
            emitter.stack(),
        )

    def _tell_look(self, look: _Look, checked: set[int]) -> None:
        number, shape = look.number, look.known.shape
        if (
            not look.known.entities
        ):  # of instances only those count that were filled: an old one keeps its old values
            keys: list[list[Any]] = []
            if shape.key is not None:
                keys = [[value_of(source, look.parameters) for source in shape.key]]
            elif shape.keys is not None:
                keys = [[value] for value in listed(shape.keys, look.parameters)]
            touch = Touch.READ_LOCKED if shape.locked else Touch.READ_KEY
            for key in keys:
                self._tell(
                    number, touch, shape.table, row_of(self.database, shape.table, key), shape.condition
                )
        if shape.exact and shape.equalities and (shape.aggregate or checked):
            group = _group_of(self.database, shape.table, shape.equalities, look.parameters)
            if shape.aggregate or group in checked:
                self._tell(number, Touch.READ_GROUP, shape.table, group, shape.condition)

    def _tell_entity(self, statement: Statement, state: Any) -> None:
        mapper = state.manager.mapper
        if state.key is None:
            return
        table = str(mapper.base_mapper.local_table.name)
        if len(mapper.tables) > 1:
            for other in mapper.tables:
                if len(_bases) < 1000:
                    _bases.setdefault(str(other.name), table)
        self._tell_found(statement, table, row_of(self.database, table, state.key[1]))

    def _tell_found(self, statement: Statement, table: str, row: int) -> None:
        shape = statement.known.shape
        by_key = shape.get or shape.key is not None
        touch = Touch.READ_LOCKED if shape.locked else Touch.READ_KEY if by_key else Touch.READ
        self._tell(statement.number, touch, table, row, shape.condition)

    def _tell(
        self,
        number: int,
        touch: Touch,
        table: str,
        row: int,
        columns: tuple[str, ...],
        computed: tuple[str, ...] = (),
        guards: tuple[str, ...] = (),
    ) -> None:
        if row:
            intern = emitter.intern
            emitter.emit(
                _ROW,
                self.number,
                number,
                int(touch),
                intern(table),
                row,
                intern(",".join(columns)) if columns else 0,
                intern(",".join(computed)) if computed else 0,
                intern(",".join(guards)) if guards else 0,
                self.autocommit,
            )
