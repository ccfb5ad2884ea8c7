"""Transactions of Django's connections, and what they know of the rows that they write.

A connection that commits by itself runs each statement in a transaction of its own. Which statement an instance's
values come from is kept beside its `_state`, as long as that lives: `save()` writes values over whatever the row holds
by then.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from itertools import islice
from typing import Any

from pyscope import emitter
from pyscope.events.sql import Operation, Step
from pyscope.probes.patches import Patches
from pyscope.probes.sql import shape
from pyscope.probes.sql.known import Known
from pyscope.probes.sql.loads import Loads, Statement
from pyscope.probes.sql.records import Records
from pyscope.probes.sql.telling import before, before_commit
from pyscope.probes.sql.template import mixed
from pyscope.probes.sql.transaction import Transaction

__all__ = ["Transactions"]

AUTOCOMMIT = "AUTOCOMMIT"
_MOST_INSTANCES = 1000  # of one query
_SELECT, _OTHER = int(Operation.SELECT), int(Operation.OTHER)
_ISOLATION = {"sqlite": "SERIALIZABLE", "postgresql": "READ COMMITTED", "mysql": "REPEATABLE READ"}


class _Connection:
    """What is known of one of Django's connections."""

    __slots__ = ("committing", "database", "loads", "number", "of", "transaction")

    def __init__(self, connection: Any, of: weakref.ref[Any]) -> None:
        self.of = of
        self.number = emitter.next_id()
        self.transaction: Transaction | None = None
        self.committing: Transaction | None = None
        self.loads = Loads()
        settings = connection.settings_dict
        name = str(settings.get("NAME") or "")
        if connection.vendor == "sqlite" and (not name or "memory" in name):
            name = str(id(connection))
        self.database = mixed("database", settings.get("HOST") or "", str(settings.get("PORT") or ""), name)


class _Here(threading.local):
    """The calling thread's own SELECTs: the last, and the first since a QuerySet began to fetch."""

    last: Statement | None = None
    first: Statement | None = None


class Transactions:
    """Follows the connections of the process; `fault` is called of what goes wrong here."""

    def __init__(self, patches: Patches, fault: Callable[[], None]) -> None:
        self._patches = patches
        self._fault = fault
        self._connections: Records[_Connection] = Records()
        self._here = _Here()
        self._saving: ContextVar[Any] = ContextVar("pyscope_django_saving", default=None)
        self._model: Any = ()
        self._known_by: weakref.WeakKeyDictionary[Any, Statement] = weakref.WeakKeyDictionary()

    def install(self) -> None:
        """Watches the steps of transactions. Raises AttributeError where this version of Django has other ones."""
        from django.db.backends.base.base import BaseDatabaseWrapper

        fault, on = self._fault, self._while_on
        for name, make in (
            ("set_autocommit", self._switching),
            ("_commit", functools.partial(before_commit, on(self._committed), on(self._refused), fault)),
            ("_rollback", functools.partial(before, on(self._rolled_back), fault)),
            ("_close", functools.partial(before, on(self._rolled_back), fault)),
            ("_savepoint", functools.partial(before, on(self._at(Step.SAVEPOINT)), fault)),
            ("_savepoint_rollback", functools.partial(before, on(self._at(Step.ROLLBACK_TO)), fault)),
            ("_savepoint_commit", functools.partial(before, on(self._at(Step.RELEASE)), fault)),
        ):
            if not self._patches.replace(BaseDatabaseWrapper, name, make):
                raise AttributeError(f"this version of Django has no BaseDatabaseWrapper.{name}")

    def install_orm(self) -> None:
        """Watches what instances are saved and filled again."""
        from django.db.models.base import Model
        from django.db.models.sql.compiler import SQLCompiler

        self._model = Model
        self._patches.replace(Model, "save_base", self._saving_of)
        self._patches.replace(Model, "refresh_from_db", self._refreshing)
        self._patches.replace(SQLCompiler, "has_results", self._looking)

    # statements

    def begun_for(self, connection: Any, known: Known) -> tuple[int, Transaction | None]:
        """The number of a connection, and the transaction of a statement that was sent by it."""
        record = self._of(connection)
        if record.transaction is not None:
            return record.number, record.transaction
        if not connection.autocommit and known.operation != _OTHER:
            return record.number, self._begin(record, _isolation(connection))
        if known.operation in (_SELECT, _OTHER):
            return record.number, None
        return record.number, Transaction(
            emitter.next_id(), record.number, record.database, AUTOCOMMIT, [record.loads]
        )

    def sent(
        self,
        connection: Any,
        transaction: Transaction | None,
        known: Known,
        number: int,
        parameters: Any,
        rows: int,
        many: bool,
    ) -> None:
        """A statement was carried out: what it means for its transaction."""
        statement = Statement(0, number, known, transaction)
        if known.operation == _SELECT:
            here = self._here
            here.last = statement
            if here.first is None:
                here.first = statement
            if transaction is not None and known.names_rows:
                # Where the driver does not say whether it found any, it did, until the ORM knows better.
                transaction.looked(statement.number, statement.known, parameters, rows if rows >= 0 else 1)
            return
        if transaction is None or known.operation == _OTHER:
            return
        transaction.changed(statement, list(parameters) if many else [parameters], rows)
        instance = self._saving.get()
        if instance is not None and _is_of(instance, known):
            before = self._known_by.get(instance._state)
            if before is not None:
                transaction.rests_on(before, statement, _key(connection, instance))
            self._known_by[instance._state] = statement
        if transaction.autocommit:
            transaction.tell()
            self._tell(Step.COMMIT, transaction)
            transaction.forget()

    def fetching(self, fetch: Callable[[], Any], queryset: Any) -> Any:
        """Has a QuerySet fetched, and keeps where its instances come from."""
        here = self._here
        outer, here.first = here.first, None
        try:
            result = fetch()
            self._carefully(self._fetched, queryset)
        finally:
            here.first = outer
        return result

    def _fetched(self, queryset: Any) -> None:
        statement, found = self._here.first, queryset._result_cache
        if statement is None or found is None:
            return
        instances = [each for each in islice(found, _MOST_INSTANCES) if isinstance(each, self._model)]
        for instance in instances:
            self._known_by[instance._state] = statement
        transaction = statement.transaction
        if transaction is not None:
            transaction.answered(statement, len(found))
            if instances and statement.known.shape.key is None:
                transaction.found(statement, *_rows(queryset.db, instances))

    # transactions

    def _of(self, connection: Any) -> _Connection:
        record = self._connections.get(id(connection))
        if record is None or record.of() is not connection:
            record = self._connections.add(connection, _Connection(connection, weakref.ref(connection)))
        return record

    def _begin(self, record: _Connection, isolation: str) -> Transaction:
        record.loads.open += 1
        record.committing = None
        transaction = record.transaction = Transaction(
            emitter.next_id(), record.number, record.database, isolation, [record.loads]
        )
        self._tell(Step.BEGIN, transaction)
        return transaction

    def _tell(self, step: Step, transaction: Transaction) -> None:
        transaction.tell_step(step)

    def _switching(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Autocommit is turned off for a transaction, and on again after it."""

        @functools.wraps(original)
        def set_autocommit(connection: Any, autocommit: Any, *rest: Any, **options: Any) -> Any:
            if not self._patches.on or not emitter.active():
                return original(connection, autocommit, *rest, **options)
            if not autocommit:
                self._carefully(self._turned_off, connection)
            try:
                return original(connection, autocommit, *rest, **options)
            finally:
                if connection.autocommit:
                    self._carefully(self._rolled_back, connection)

        return set_autocommit

    def _turned_off(self, connection: Any) -> None:
        record = self._of(connection)
        if record.transaction is None:
            self._begin(record, _isolation(connection))

    def _while_on(self, tell: Callable[..., None]) -> Callable[..., None]:
        def tell_while_on(*arguments: Any) -> None:
            if self._patches.on:
                tell(*arguments)

        return tell_while_on

    def _carefully(self, tell: Callable[..., None], *arguments: Any) -> None:
        try:
            tell(*arguments)
        except Exception:
            self._fault()

    def _committed(self, connection: Any) -> None:
        record = self._of(connection)
        transaction, record.transaction = record.transaction, None
        if transaction is None:
            return
        if emitter.active():
            transaction.tell()
            self._tell(Step.COMMIT, transaction)
            record.committing = transaction
        transaction.forget()

    def _refused(self, connection: Any) -> None:
        record = self._of(connection)
        if record.committing is not None and emitter.active():
            self._tell(Step.FAILED, record.committing)
        record.committing = None

    def _rolled_back(self, connection: Any) -> None:
        record = self._connections.get(id(connection))
        if record is None or record.transaction is None:
            return
        transaction, record.transaction = record.transaction, None
        transaction.forget()
        if emitter.active():
            self._tell(Step.ROLLBACK, transaction)

    def _at(self, step: Step) -> Callable[..., None]:
        def tell(connection: Any, name: str) -> None:
            record = self._connections.get(id(connection))
            if record is None or record.transaction is None or not emitter.active():
                return
            if step is Step.SAVEPOINT:
                record.transaction.savepoint(name)
            elif step is Step.ROLLBACK_TO:
                record.transaction.rolled_back_to(name)
            self._tell(step, record.transaction)

        return tell

    # instances

    def _saving_of(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def save_base(instance: Any, *arguments: Any, **options: Any) -> Any:
            if not self._patches.on or not emitter.active():
                return original(instance, *arguments, **options)
            self._carefully(_learn, instance)
            token = self._saving.set(instance)
            try:
                return original(instance, *arguments, **options)
            finally:
                self._saving.reset(token)

        return save_base

    def _refreshing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def refresh_from_db(
            instance: Any, using: Any = None, fields: Any = None, *rest: Any, **more: Any
        ) -> Any:
            result = original(instance, using, fields, *rest, **more)
            if fields is None and self._patches.on:
                self._carefully(self._refreshed, instance)
            return result

        return refresh_from_db

    def _refreshed(self, instance: Any) -> None:
        if self._here.last is not None:
            self._known_by[instance._state] = self._here.last

    def _looking(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def has_results(compiler: Any) -> Any:
            result = original(compiler)
            statement = self._here.last
            if statement is not None and statement.transaction is not None and self._patches.on:
                self._carefully(statement.transaction.answered, statement, int(result is True))
            return result

        return has_results


def _isolation(connection: Any) -> str:
    level = getattr(connection, "isolation_level", None)
    name = level if type(level) is str else getattr(level, "name", None)
    return str(name or _ISOLATION.get(connection.vendor, "")).upper().replace("_", " ")


def _is_of(instance: Any, known: Known) -> bool:
    """Whether a statement is of the instance's own tables, and not of what its signals do."""
    meta = instance._meta
    return known.shape.table in {
        each._meta.db_table.lower() for each in (meta.concrete_model, *meta.get_parent_list())
    }


def _key(connection: Any, instance: Any) -> Any:
    """The primary key of an instance, as statements have it."""
    key = instance._meta.pk
    return key.get_db_prep_value(instance.__dict__.get(key.attname), connection, False)


def _learn(instance: Any) -> None:
    """The primary key of a model, which the text of its statements does not tell."""
    meta = instance._meta.concrete_model._meta
    shape.learn(meta.db_table, (meta.pk.column,))


def _rows(database: str, instances: Sequence[Any]) -> tuple[str, list[Any]]:
    """The table of the instances of one query, and their keys as statements have them."""
    from django.db import connections

    meta = instances[0]._meta.concrete_model._meta
    return meta.db_table.lower(), [_key(connections[database], instance) for instance in instances]
