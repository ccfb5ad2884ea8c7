"""The shape of a statement: which table and row it touches, what it sets, what it compares. Made once a statement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pyscope.events.sql import Operation
from pyscope.probes.sql import text

__all__ = ["Literal", "Shape", "Source", "learn", "listed", "of_compiled", "of_text", "value_of"]

MOST_LISTED = 200
_MOST_TABLES = 1000

Literal = text.Literal
Source = str | int | Literal
"""Where a value comes from: a parameter's name or position, or the statement itself."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a statement does with one table. Columns are names in order; `table` is "" where there is not just one.

    `key`: the primary key's values, if the condition names one row; `keys`: a list of single-column keys.
    `equalities`: columns that must equal something. `condition`: all columns compared. `exact`: nothing but equalities.
    `sets`: columns given values that the program computed; `computed`: by the database itself. `guards`: columns that
    the condition compares beside the key, but for a range: `balance >= 10` does not say that it is still the same.
    `values`: of an INSERT, and those of `sets`. `get`: a select of one row by Session.get(). `aggregate`: functions are
    selected, like count. `paged`: a page of a longer list, by OFFSET or a limit and a bound.
    """

    operation: Operation
    table: str = ""
    key: tuple[Source, ...] | None = None
    keys: Source | None = None
    equalities: tuple[tuple[str, Source], ...] = ()
    condition: tuple[str, ...] = ()
    exact: bool = False
    locked: bool = False
    sets: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    values: tuple[tuple[str, Source], ...] = ()
    get: bool = False
    aggregate: bool = False
    paged: bool = False


_primary_keys: dict[str, tuple[str, ...]] = {}


def learn(table: str, primary: tuple[str, ...]) -> None:
    """Which columns are a table's primary key, for statements that come as text."""
    if len(_primary_keys) < _MOST_TABLES:
        _primary_keys[table.lower()] = tuple(column.lower() for column in primary)


def of_compiled(compiled: Any) -> Shape:
    """The shape of a compiled statement of SQLAlchemy."""
    statement = compiled.statement
    name = getattr(statement, "__visit_name__", "")
    if name == "textclause":
        return of_text(statement.text)
    if name not in _OF and hasattr(statement, "element"):  # select().from_statement(…), as the ORM writes it
        statement = statement.element
        name = getattr(statement, "__visit_name__", "")
    try:
        return _OF.get(name, _other)(compiled, statement)
    except Exception:  # a tree of a kind that is not known here: what it does is seen by its text
        return _other(compiled, statement)


def of_text(statement: str) -> Shape:
    """The shape of a statement that was written by hand; as far as it is simple."""
    parsed = text.parse(statement)
    if parsed is None:
        return Shape(text.operation(statement))
    primary = _primary_keys.get(parsed.table) or _guessed_key(parsed.equalities)
    return _shape(
        parsed.operation,
        parsed.table,
        primary,
        parsed.equalities,
        {},
        parsed.compared,
        parsed.ranges,
        parsed.exact,
        locked=parsed.locked,
        sets=parsed.sets,
        computed=parsed.computed,
        aggregate=parsed.aggregate,
        paged=parsed.paged,
        values=tuple(sorted(parsed.values.items())),
    )


def value_of(source: Source, parameters: Any) -> Any:
    """The value of a source in a statement's parameters. Raises LookupError or TypeError if it is not there."""
    return source.value if type(source) is Literal else parameters[source]


def listed(source: Source, parameters: Any) -> list[Any]:
    """The values of a list in a statement's parameters, where SQLAlchemy names them `source_1`, `source_2`, …"""
    if type(source) is not str or type(parameters) is not dict:
        return []
    if type(parameters.get(source)) in (list, tuple):
        return list(parameters[source][:MOST_LISTED])
    found = []
    for number in range(1, MOST_LISTED + 1):
        name = f"{source}_{number}"
        if name not in parameters:
            break
        found.append(parameters[name])
    return found


def _guessed_key(equalities: dict[str, Source]) -> tuple[str, ...]:
    """Of a table that is known by its text alone: `id`, else the only column that is compared."""
    if "id" in equalities:
        return ("id",)
    return tuple(equalities) if len(equalities) == 1 else ()


def _shape(
    operation: Operation,
    table: str,
    primary: tuple[str, ...],
    equalities: dict[str, Source],
    lists: dict[str, Source],
    compared: set[str],
    ranges: set[str],
    exact: bool,
    **more: Any,
) -> Shape:
    key: tuple[Source, ...] | None = None
    keys: Source | None = None
    if primary and all(column in equalities for column in primary):
        key = tuple(equalities[column] for column in primary)
    elif len(primary) == 1 and primary[0] in lists:
        keys = lists[primary[0]]
    return Shape(
        operation,
        table,
        key,
        keys,
        tuple(sorted(equalities.items())),
        tuple(sorted(set(compared))),
        exact,
        guards=tuple(sorted(compared - ranges - set(primary))) if key is not None or keys is not None else (),
        **more,
    )


# --- SQLAlchemy's trees --------------------------------------------------------------------------


def _other(compiled: Any, _statement: Any) -> Shape:
    return Shape(text.operation(str(compiled)))


def _select(compiled: Any, statement: Any) -> Shape:
    froms = list(statement.columns_clause_froms) or list(statement._from_obj)
    table = froms[0] if len(froms) == 1 and getattr(froms[0], "__visit_name__", "") == "table" else None
    locked = statement._for_update_arg is not None
    limited = statement._limit_clause is not None or statement._fetch_clause is not None
    paged = statement._offset_clause is not None
    bound = [name for name in compiled.binds if not name.startswith("%(")]
    get = bool(bound) and all(name.startswith("pk_") for name in bound)
    if table is None:
        return Shape(Operation.SELECT, locked=locked, get=get, paged=paged)
    condition = _Condition(compiled, table, statement._where_criteria)
    name, primary = _learned(table)
    return _shape(
        Operation.SELECT,
        name,
        primary,
        condition.equalities,
        condition.lists,
        condition.compared,
        condition.ranges,
        condition.exact,
        locked=locked,
        get=get,
        paged=paged or (limited and bool(condition.ranges)),
        aggregate=any(
            getattr(part, "__visit_name__", "") == "function" for part in _parts(*statement._raw_columns)
        ),
    )


def _update(compiled: Any, statement: Any) -> Shape:
    table = statement.table
    condition = _Condition(compiled, table, statement._where_criteria)
    name, primary = _learned(table)
    sets: set[str] = set()
    computed: set[str] = set()
    given = dict(statement._values or {})
    given.update(getattr(statement, "_ordered_values", None) or ())
    for column, value in given.items():
        label = column if isinstance(column, str) else column.name
        is_value = getattr(value, "__visit_name__", "bindparam") == "bindparam"
        (sets if is_value else computed).add(label)
    by_default = {column.name for column in getattr(compiled, "update_prefetch", None) or ()}
    parameters = set(compiled.column_keys or ())
    sets |= {column.name for column in table.columns if column.key in parameters} - by_default - computed
    return _shape(
        Operation.UPDATE,
        name,
        primary,
        condition.equalities,
        condition.lists,
        condition.compared,
        condition.ranges,
        condition.exact,
        sets=tuple(sorted(sets)),
        computed=tuple(sorted(computed | by_default)),
        values=tuple(sorted((column.name, column.key) for column in table.columns if column.name in sets)),
    )


def _delete(compiled: Any, statement: Any) -> Shape:
    condition = _Condition(compiled, statement.table, statement._where_criteria)
    name, primary = _learned(statement.table)
    return _shape(
        Operation.DELETE,
        name,
        primary,
        condition.equalities,
        condition.lists,
        condition.compared,
        condition.ranges,
        condition.exact,
    )


def _insert(_compiled: Any, statement: Any) -> Shape:
    table = statement.table
    name, primary = _learned(table)
    values = tuple(sorted((column.name, column.key) for column in table.columns))
    if getattr(statement, "_post_values_clause", None) is not None:
        return Shape(Operation.INSERT, name)  # ON CONFLICT: the database itself decides
    key = tuple(column.key for column in table.primary_key.columns) if primary else None
    return Shape(Operation.INSERT, name, key, values=values)


_OF = {"select": _select, "update": _update, "delete": _delete, "insert": _insert}


def _learned(table: Any) -> tuple[str, tuple[str, ...]]:
    name = str(table.name)  # a subclass of str, to SQLAlchemy
    primary = tuple(column.name for column in table.primary_key.columns)
    learn(name, primary)
    return name, primary


_CONSTANTS = ("true", "false", "null")


class _Condition:
    """The conjuncts of a WHERE, as far as they speak of one table."""

    def __init__(self, compiled: Any, table: Any, criteria: Iterable[Any]) -> None:
        self.equalities: dict[str, Source] = {}
        self.lists: dict[str, Source] = {}
        self.compared: set[str] = set()
        self.exact = True
        self.ranges: set[str] = set()
        self._table = table.name
        self._names = compiled.bind_names
        for conjunct in _conjuncts(criteria):
            self._add(conjunct)

    def _add(self, conjunct: Any) -> None:
        mine = {part.name for part in _parts(conjunct) if self._is_mine(part)}
        self.compared |= mine
        if self._is_mine(conjunct):  # a column of truth values, alone
            self.equalities[conjunct.name] = Literal(True)
            return
        if getattr(conjunct, "__visit_name__", "") == "binary":
            operator = getattr(conjunct.operator, "__name__", "")
            if operator in ("gt", "ge", "lt", "le"):
                self.ranges |= mine
            sides = [(conjunct.left, conjunct.right), (conjunct.right, conjunct.left)]
            for column, value in sides[: 2 if operator == "eq" else 1]:
                source = self._source(value)
                if operator in ("eq", "in_op", "is_") and source is not None and self._is_mine(column):
                    (self.lists if operator == "in_op" else self.equalities)[column.name] = source
                    self.exact = self.exact and operator != "in_op"
                    return
        self.exact = False

    def _source(self, value: Any) -> Source | None:
        name = getattr(value, "__visit_name__", "")
        if name == "bindparam":
            found: str | None = self._names.get(value)
            return found
        return Literal({"true": True, "false": False, "null": None}[name]) if name in _CONSTANTS else None

    def _is_mine(self, column: Any) -> bool:
        if getattr(column, "__visit_name__", "") != "column":
            return False
        return bool(getattr(getattr(column, "table", None), "name", None) == self._table)


def _conjuncts(criteria: Iterable[Any]) -> Iterator[Any]:
    for clause in criteria:
        name = getattr(clause, "__visit_name__", "")
        if name == "grouping":
            yield from _conjuncts([clause.element])
        elif name.endswith("clauselist") and getattr(clause.operator, "__name__", "") == "and_":
            yield from _conjuncts(clause.clauses)
        else:
            yield clause


def _parts(*clauses: Any) -> Iterator[Any]:
    from sqlalchemy.sql import visitors

    for clause in clauses:
        yield from visitors.iterate(clause)
