"""The SQLAlchemy probe: statements, transactions, and which instance's attribute caused which SELECT.

Statements are seen where the dialect hands them to the driver, in its `do_execute` methods: of every engine,
synchronous or asynchronous, made before or after, each once. (What a `do_execute` listener of the program answers by
itself is handed to nobody.) SQLAlchemy's events would tell the same, but one listener makes each connection dispatch
them, which costs a third of all that is done here. Steps of transactions are seen where Connection takes them. What an
ORM statement is for is read from its execution options; a `do_orm_execute` listener would tell the same, but makes
SQLAlchemy prepare every statement twice.
"""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

from pyscope import backends, emitter
from pyscope.events.sql import STATEMENT, TRANSACTION, Operation, Step
from pyscope.probes import Probe, on_import
from pyscope.probes.patches import Patches
from pyscope.probes.scope import exception_name
from pyscope.probes.sql import quiet
from pyscope.probes.sql.fields import ConnectionFields, loaded
from pyscope.probes.sql.known import Known, known_of
from pyscope.probes.sql.loads import LoadsOfThreads, Statement
from pyscope.probes.sql.records import Records
from pyscope.probes.sql.statements import Statements
from pyscope.probes.sql.telling import before, before_commit, compiled
from pyscope.probes.sql.template import mixed
from pyscope.probes.sql.transaction import Transaction

__all__ = ["SQLAlchemyProbe"]

_MOST_FLUSHED = 200
_MOST_ENGINES = 200
_HANDING = ("do_execute", "do_executemany", "do_execute_no_params")
_STATEMENT = STATEMENT.kind
_SELECT = int(Operation.SELECT)
_UPDATE = int(Operation.UPDATE)
_compiled: Any = backends.native()


def _database(engine: Any) -> int:
    """A hash by which the connections of one database are known."""
    url = engine.url
    name = url.database
    if name in (None, "", ":memory:"):
        name = str(id(engine.pool))
    return mixed("database", url.host, url.port, name)


class SQLAlchemyProbe(Probe):
    """Watches every engine and session of the process."""

    name = "sqlalchemy"
    library = "sqlalchemy"
    extra = "sqlalchemy"

    def __init__(self) -> None:
        super().__init__()
        self._listening: list[tuple[Any, str, Callable[..., Any]]] = []
        self._dialects: set[type] = set()  # those whose methods have been looked for
        self._handing: set[tuple[type, str]] = set()  # the methods that were found
        self._guard = threading.Lock()
        self._connections: Records[ConnectionFields] = Records()
        self._databases: dict[
            int, tuple[weakref.ref[Any], int, str]
        ] = {}  # and the dialects' names, by dialect
        self._here = LoadsOfThreads()
        self._statements = Statements(self, self._connections)
        self._watching = False
        self._patches = Patches()

    # the library as it was found

    def install(self) -> None:
        from sqlalchemy.engine import Connection
        from sqlalchemy.engine.default import DefaultDialect

        self._watching = self._statements.watching = True
        self._statements.here = self._here
        self._patches = Patches()
        self._dialects, self._handing = set(), set()
        self._databases.clear()  # a dialect that is in it has been looked at

        def told(tell: Callable[..., None], step: Step) -> Callable[..., Any]:
            return functools.partial(before, functools.partial(tell, step), self.fault)

        begin, rollback = told(self._begin, Step.BEGIN), told(self._ended, Step.ROLLBACK)
        committed = functools.partial(self._ended, Step.COMMIT)
        commit: Callable[..., Any] = functools.partial(before_commit, committed, self.refused, self.fault)
        if _compiled is not None:
            path = _compiled.Transactions(
                self._statements,
                probe=self,
                connections=self._connections,
                databases=self._databases,
                transaction_type=Transaction,
                kind=TRANSACTION.kind,
                begin=int(Step.BEGIN),
                commit=int(Step.COMMIT),
                rollback=int(Step.ROLLBACK),
                failed=int(Step.FAILED),
            )
            begin = compiled(path.beginning, begin)
            rollback = compiled(functools.partial(path.ending, commits=False), rollback)
            commit = compiled(functools.partial(path.ending, commits=True), commit)
        for name, make in (
            ("_begin_impl", begin),
            ("_commit_impl", commit),
            ("_rollback_impl", rollback),
            ("_savepoint_impl", told(self._savepoint, Step.SAVEPOINT)),
            ("_rollback_to_savepoint_impl", told(self._at_savepoint, Step.ROLLBACK_TO)),
            ("_release_savepoint_impl", told(self._at_savepoint, Step.RELEASE)),
            ("_begin_twophase_impl", begin),
            ("_commit_twophase_impl", commit),
            ("_rollback_twophase_impl", rollback),
        ):
            if not self._patches.replace(Connection, name, make):
                self._patches.undo()
                raise AttributeError(f"this version of SQLAlchemy has no Connection.{name}")
        self._watch_dialect(DefaultDialect)
        on_import.call("sqlalchemy.orm", self._install_orm, self)

    def _install_orm(self) -> None:
        from sqlalchemy.orm import Mapper, Session, loading

        if self._watching:
            self._statements.new_run = _counter(loading._new_runid)
            note = loaded(self._statements)
            self._listen(Session, {"after_flush": self._flushed})
            self._listen(Mapper, {"load": note, "refresh": note})

    def _watch_dialect(self, dialect: type) -> None:
        """Its methods that hand statements to the driver, wherever they are defined; each once."""
        from sqlalchemy.engine.default import DefaultDialect

        with self._guard:
            if dialect in self._dialects:
                return
            self._dialects.add(dialect)
            for name in _HANDING:
                owner = next((base for base in dialect.__mro__ if name in vars(base)), None)
                if owner is None or (owner, name) in self._handing:
                    continue
                self._handing.add((owner, name))
                bare = name == "do_execute_no_params"
                make = self._statements.handing_bare if bare else self._statements.handing
                self._patches.replace(
                    owner, name, make if owner is DefaultDialect else self._statements.outer(make)
                )

    def _listen(self, target: Any, listeners: dict[str, Callable[..., Any]]) -> None:
        from sqlalchemy import event

        for identifier, listener in listeners.items():
            options: dict[str, Any] = {}
            if identifier in ("load", "refresh"):
                options["raw"] = True

            def add(
                identifier: str = identifier, listener: Callable[..., Any] = listener, options: Any = options
            ) -> None:
                event.listen(target, identifier, listener, **options)
                self._listening.append((target, identifier, listener))

            if not quiet.change(add):
                raise TimeoutError("SQLAlchemy's listeners were in use all the time")

    def uninstall(self) -> None:
        self._watching = self._statements.watching = False
        self._patches.undo()
        if quiet.inside():  # a fault of ours, in a listener: the lists are in use by this very thread
            threading.Thread(target=self._unlisten, name="pyscope-unlisten", daemon=True).start()
        elif left := self._unlisten():
            raise TimeoutError(f"{left} listeners stay, without effect: SQLAlchemy used them all the time")

    def _unlisten(self) -> int:
        from sqlalchemy import event

        left = []
        for target, identifier, listener in self._listening:

            def remove(
                target: Any = target, identifier: str = identifier, listener: Callable[..., Any] = listener
            ) -> None:
                event.remove(target, identifier, listener)

            if not quiet.change(remove):
                left.append((target, identifier, listener))
        self._listening = left
        self._connections.clear()
        self._here = self._statements.here = LoadsOfThreads()
        return len(left)

    # statements

    def follow(
        self,
        record: ConnectionFields,
        connection: Any,
        known: Known,
        number: int,
        transaction: Transaction,
        parameters: Any,
        context: Any,
        rows: int,
    ) -> None:
        """What a statement that is no SELECT means for its transaction: rows that it changes."""
        if record.dialect == "sqlite" and _stands_alone(connection):
            transaction.autocommit = True
        sent = Statement(self._statements.new_run(), number, known, transaction)
        if known.operation == _UPDATE:
            self._here.loads.written = sent
        executemany = context.executemany
        if executemany:
            if transaction.batch is not None and transaction.batch() is context:
                return  # one statement in several batches: its parameters are known
            transaction.batch = weakref.ref(context)
        if context.compiled is None:
            transaction.changed(sent, parameters if executemany else [parameters], rows)
        else:
            transaction.changed(sent, context.compiled_parameters, rows)

    def _flushed(self, session: Any, _context: Any) -> None:
        """Instances that an earlier transaction had loaded, written by this one: it has known them since then."""
        if not self._watching or not emitter.active():
            return
        try:
            loads = self._here.loads
            write, loads.written = loads.written, None
            if write is None or write.transaction is None:
                return
            for instance in itertools.islice(session.dirty, _MOST_FLUSHED):
                state = instance.__dict__["_sa_instance_state"]
                statement = loads.known_by(state)
                if statement is not None and statement.transaction is not write.transaction:
                    write.transaction.knew(state, statement)
                loads.wrote(state, write)
        except Exception:
            self.fault()

    def failed(self, statement: str, context: Any, error: BaseException, duration: int) -> None:
        """A statement was refused, or given up."""
        try:
            record = self._of(context.root_connection)
            known = known_of(context.compiled, statement, record.dialect)
            intern = emitter.intern
            emitter.emit(
                _STATEMENT,
                emitter.next_id(),
                duration,
                intern(known.template),
                known.operation,
                record.number,
                record.transaction.number if record.transaction is not None else 0,
                -1,
                emitter.stack(),
                0,
                0,
                0,
                0,
                0,
                0,
                intern(exception_name(error)),
            )
        except Exception:
            self.fault()

    # transactions

    def _of(self, connection: Any) -> ConnectionFields:
        record = self._connections.get(id(connection))
        if record is None or record.of() is not connection:
            record = self.opened(connection)
        return record

    def opened(self, connection: Any) -> ConnectionFields:
        dialect = (
            connection.dialect
        )  # each engine's own, of all that are derived from it by execution options
        known = self._databases.get(id(dialect))
        if known is None or known[0]() is not dialect:
            self._watch_dialect(type(dialect))
            if len(self._databases) >= _MOST_ENGINES:
                self._databases.clear()
            known = self._databases[id(dialect)] = (
                weakref.ref(dialect),
                _database(connection.engine),
                dialect.name,
            )
        record = ConnectionFields(weakref.ref(connection), emitter.next_id(), known[1], known[2])
        return self._connections.add(connection, record)

    def started(self, record: ConnectionFields, connection: Any) -> Transaction:
        options = connection.get_execution_options()
        isolation = options.get("isolation_level") or connection.dialect.default_isolation_level or ""
        loads = self._here.loads.alone
        loads[0].open += 1
        record.committing = None
        transaction = record.transaction = Transaction(
            emitter.next_id(), record.number, record.database, str(isolation), loads
        )
        return transaction

    def _begin(self, step: Step, connection: Any, *_transaction: Any) -> None:
        if self._watching and emitter.active():
            self.started(self._of(connection), connection).tell_step(step)

    def refused(self, connection: Any) -> None:
        """The commit that was told has failed."""
        if not self._watching or not emitter.active():
            return
        record = self._of(connection)
        if record.committing is not None:
            record.committing.tell_step(Step.FAILED)
            record.committing = None

    def _ended(self, step: Step, connection: Any, *_twophase: Any) -> None:
        if not self._watching:
            return
        record = self._of(connection)
        transaction, record.transaction = record.transaction, None
        if step is Step.ROLLBACK and transaction is None and record.committing is not None:
            transaction, step = record.committing, Step.FAILED
        record.committing = None
        if transaction is None:
            self._here.loads.ended()  # it began before the recording, or outside one
            return
        if not emitter.active():
            transaction.forget()
            return
        if transaction.autocommit:
            step = Step.COMMIT  # each statement has done that already
        if step is Step.COMMIT:
            transaction.tell()
            record.committing = transaction
        if step is not Step.FAILED:
            transaction.forget()
        transaction.tell_step(step)

    def _savepoint(self, step: Step, connection: Any, name: str | None = None) -> None:
        record = self._connections.get(id(connection))
        if record is not None and name is None:  # it gets its name right after this
            record.savepoints += 1
            name = f"sa_savepoint_{record.savepoints}"
        self._at_savepoint(step, connection, name or "")

    def _at_savepoint(self, step: Step, connection: Any, name: str) -> None:
        if not self._watching or not emitter.active():
            return
        record = self._of(connection)
        transaction = record.transaction
        if transaction is None:
            transaction = self.started(record, connection)
        if step is Step.SAVEPOINT:
            transaction.savepoint(name)
        elif step is Step.ROLLBACK_TO:
            transaction.rolled_back_to(name)
        transaction.tell_step(step)


def _stands_alone(connection: Any) -> bool:
    """Whether SQLite has committed a statement already: no transaction was begun, whatever SQLAlchemy thinks."""
    return getattr(connection.connection.driver_connection, "in_transaction", True) is False


def _counter(new_run: Callable[[], int]) -> Callable[[], int]:
    """The counter behind SQLAlchemy's function, without the lock that it does not need: its next() is one step."""
    for cell in getattr(new_run, "__closure__", None) or ():
        if type(cell.cell_contents) is itertools.count:
            return cell.cell_contents.__next__
    return new_run
