"""Sees UPDATE statements of SQLAlchemy that set columns of watched mapped classes, without any object's
attribute being set.

`UPDATE task SET status = 'assigned' WHERE id = 7 AND status = 'open'`, executed with one row changed, says
all there is to say: key, old and new value. A column that the WHERE clause does not compare has an unknown
old value. SQLAlchemy's own flush of changed objects is not told again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pyscope import emitter
from pyscope.probes.patches import Patches
from pyscope.probes.state import values
from pyscope.probes.state.values import UNKNOWN

__all__ = ["UpdateStatements"]

Tell = Callable[[type, str, Any, Any, str], None]
"""Mapped class, attribute, old and new value, key."""


class UpdateStatements:
    """Looks at every statement of every engine, while a class is watched."""

    def __init__(self, tell: Tell, fault: Callable[[], None]) -> None:
        self._tell = tell
        self._fault = fault
        self._classes: list[type] = []
        self._mapped: dict[str, Any] | None = None  # table: mapper
        self._patches: Patches | None = None
        self._looking = False

    def add_class(self, kind: type) -> None:
        """Watches a class too; one that is not mapped is never met."""
        self._classes.append(kind)
        self._mapped = None
        if self._patches is not None:
            self._look(self._patches)

    def install(self) -> None:
        """Begins to look. SQLAlchemy is imported by now."""
        self._patches = Patches()
        if self._classes:
            self._look(self._patches)

    def uninstall(self) -> None:
        """Ends it."""
        if self._patches is not None:
            self._patches.undo()
            self._patches = None
            self._looking = False
        self._classes = []
        self._mapped = None

    def _look(self, patches: Patches) -> None:
        from sqlalchemy.engine import Connection

        if not self._looking:
            self._looking = patches.replace(Connection, "_execute_clauseelement", self._executing)

    def _executing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """An `after_execute` listener would do, but makes each connection dispatch all events."""

        @functools.wraps(original)
        def _execute_clauseelement(connection: Any, statement: Any, *arguments: Any) -> Any:
            result = original(connection, statement, *arguments)
            try:
                if getattr(statement, "is_update", False) and self._classes and emitter.active():
                    self._look_into(statement, result)
            except Exception:
                self._fault()
            return result

        return _execute_clauseelement

    def _look_into(self, statement: Any, result: Any) -> None:
        mapper = self._mappers().get(statement.table.fullname)
        if mapper is None or not statement._values or result.rowcount == 0:
            return
        compared = dict(_comparisons(statement.whereclause))
        keys = [compared.get(column.name, UNKNOWN) for column in mapper.local_table.primary_key]
        key = ", ".join(str(part) for part in keys if type(part) is int or type(part) is str)
        for column, bound in statement._values.items():
            if getattr(bound, "required", False) or not hasattr(bound, "effective_value"):
                new = UNKNOWN  # computed by the database
            else:
                new = bound.effective_value
            name = getattr(column, "name", column)
            attribute = mapper.get_property_by_column(mapper.local_table.c[name]).key
            old = compared.get(name, UNKNOWN)
            if old is UNKNOWN or new is UNKNOWN or values.freeze(old) != values.freeze(new):
                self._tell(mapper.class_, attribute, old, new, key if len(keys) else "")

    def _mappers(self) -> dict[str, Any]:
        if self._mapped is None:
            from sqlalchemy import inspect

            found: list[Any] = [inspect(kind, raiseerr=False) for kind in self._classes]
            mappers = [mapper for mapper in found if getattr(mapper, "is_mapper", False)]
            self._mapped = {
                each.local_table.fullname: each for mapper in mappers for each in mapper.self_and_descendants
            }
        return self._mapped


def _comparisons(clause: Any) -> list[tuple[str, Any]]:
    """The columns that a WHERE clause says to be equal to a value: `a = 1 AND b = 2`."""
    from sqlalchemy.sql import operators
    from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, ColumnElement

    if isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
        return [pair for part in clause.clauses for pair in _comparisons(part)]
    if not isinstance(clause, BinaryExpression) or clause.operator is not operators.eq:
        return []
    left, right = clause.left, clause.right
    if isinstance(left, ColumnElement) and isinstance(right, BindParameter) and hasattr(left, "name"):
        return [(left.name, right.effective_value)]
    return []
