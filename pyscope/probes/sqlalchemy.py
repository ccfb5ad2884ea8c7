"""The SQLAlchemy probe: statements, transactions, and which instance's attribute caused which SELECT.

It listens to public events of the classes Engine, Mapper and Session, so it sees every engine, synchronous or
asynchronous, made before or after, each once. What an ORM statement is for is read from its execution options; a
`do_orm_execute` listener would tell the same, but makes SQLAlchemy prepare every statement twice.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from pyscope import emitter
from pyscope.events.sql import STATEMENT, TRANSACTION, Operation, Step
from pyscope.probes import Probe, on_import
from pyscope.probes.sql import quiet
from pyscope.probes.sql.known import Known, known_of
from pyscope.probes.sql.loads import MOST_STATEMENTS, LoadsOfThreads, Statement
from pyscope.probes.sql.purpose import ASKED, OF_PROGRAM, purpose
from pyscope.probes.sql.template import fingerprint, mixed
from pyscope.probes.sql.transaction import Transaction

__all__ = ["SQLAlchemyProbe"]

_MOST_FLUSHED = 200
_STATEMENT = STATEMENT.kind
_TRANSACTION = TRANSACTION.kind
_OTHER = int(Operation.OTHER)
_SELECT = int(Operation.SELECT)
_UPDATE = int(Operation.UPDATE)


class _Connection:
    """What is known of one checked-out connection."""

    __slots__ = (
        "committing",
        "database",
        "dialect",
        "number",
        "of",
        "savepoints",
        "started",
        "transaction",
    )

    def __init__(self, connection: Any, of: weakref.ref[Any]) -> None:
        self.of = of
        self.number = emitter.next_id()
        self.started = 0
        self.savepoints = 0
        self.transaction: Transaction | None = None
        self.committing: Transaction | None = None
        engine = connection.engine
        url = engine.url
        name = url.database
        if name in (None, "", ":memory:"):
            name = str(id(engine.pool))
        self.database = mixed("database", url.host, url.port, name)
        self.dialect: str = engine.dialect.name


class SQLAlchemyProbe(Probe):
    """Watches every engine and session of the process."""

    name = "sqlalchemy"
    library = "sqlalchemy"
    extra = "sqlalchemy"

    def __init__(self) -> None:
        super().__init__()
        self._listening: list[tuple[Any, str, Callable[..., Any]]] = []
        self._flags: list[tuple[type, bool | None]] = []
        self._connections: dict[int, _Connection] = {}
        self._here = LoadsOfThreads()
        self._new_run: Callable[[], int] = _no_run
        self._watching = False

    # the library as it was found

    def install(self) -> None:
        from sqlalchemy.engine import Dialect, Engine

        self._watching = True
        self._flags = [(cls, cls.__dict__.get("_has_events")) for cls in (Engine, Dialect)]
        self._listen(
            Engine,
            {
                "before_cursor_execute": self._before,
                "after_cursor_execute": self._after,
                "begin": self._begin,
                "commit": self._commit,
                "rollback": self._rollback,
                "savepoint": self._savepoint,
                "rollback_savepoint": self._rollback_savepoint,
                "release_savepoint": self._release_savepoint,
                "begin_twophase": self._begin_twophase,
                "commit_twophase": self._commit_twophase,
                "rollback_twophase": self._rollback_twophase,
                "handle_error": self._error,
            },
        )
        on_import.call("sqlalchemy.orm", self._install_orm)

    def _install_orm(self) -> None:
        from sqlalchemy.orm import Mapper, Session, loading

        if self._watching:
            self._new_run = _counter(getattr(loading, "_new_runid", _no_run))
            here = self._here

            def loaded(state: Any, context: Any, _attributes: Any = None) -> None:
                if context is not None:
                    here.note((state, context.runid))

            self._listen(Session, {"after_flush": self._flushed})
            self._listen(Mapper, {"load": loaded, "refresh": loaded})

    def _listen(self, target: Any, listeners: dict[str, Callable[..., Any]]) -> None:
        from sqlalchemy import event

        for identifier, listener in listeners.items():
            options: dict[str, Any] = {}
            if identifier == "before_cursor_execute":
                options["retval"] = True  # else SQLAlchemy wraps the listener in another call
            elif identifier in ("load", "refresh"):
                options["raw"] = True

            def add(
                identifier: str = identifier, listener: Callable[..., Any] = listener, options: Any = options
            ) -> None:
                event.listen(target, identifier, listener, **options)
                self._listening.append((target, identifier, listener))

            if not quiet.change(add):
                raise TimeoutError("SQLAlchemy's listeners were in use all the time")

    def uninstall(self) -> None:
        self._watching = False
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
        self._here = LoadsOfThreads()
        for cls, flag in [] if left else self._flags:
            if _has_listeners(cls):
                continue
            if flag is not None:
                cls._has_events = flag  # type: ignore[attr-defined]
            elif "_has_events" in cls.__dict__:
                del cls._has_events  # type: ignore[attr-defined]
        return len(left)

    # statements

    def _before(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> tuple[str, Any]:
        try:
            record = self._connections.get(id(connection))
            if record is None or record.of() is not connection:
                record = self._opened(connection)
            record.started = perf_counter_ns()
        except Exception:
            self.fault()
        return statement, parameters

    def _after(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        ended = perf_counter_ns()
        if not self._watching or not emitter.active():
            return
        try:
            record = self._connections.get(id(connection))
            if record is None or record.of() is not connection:
                record = self._opened(connection)
            compiled = context.compiled if context is not None else None
            known = known_of(compiled, statement, record.dialect)
            transaction = record.transaction
            if transaction is None:
                transaction = self._started(record, connection)
            loads = self._here.loads
            number = emitter.next_id()
            rows = cursor.rowcount
            operation = known.operation
            load, relationship, parent, parent_statement = OF_PROGRAM
            arguments = 0
            if operation == _SELECT:
                if known.orm:
                    options = context.execution_options.get("_sa_orm_load_options")
                    load, relationship, parent, parent_statement = purpose(options, known, loads)
                arguments = parent or fingerprint(statement, parameters)
            intern = emitter.intern
            emitter.emit(
                _STATEMENT,
                number,
                ended - record.started if record.started else 0,
                intern(known.template),
                operation,
                record.number,
                transaction.number,
                rows if type(rows) is int else -1,
                emitter.stack(),
                arguments,
                load,
                intern(relationship) if relationship else 0,
                parent,
                intern(parent_statement) if parent_statement else 0,
                known.paged,
                0,
            )
            if loads is not transaction.loads[-1]:
                transaction.moved(loads)
            if known.entities:
                run = self._new_run()
                if not transaction.first_run:
                    transaction.first_run = run
                if len(loads.sent) >= MOST_STATEMENTS:
                    loads.shorten()
                loads.sent.append((run, number, known, transaction))
                if not known.names_rows or load not in ASKED:
                    return
            elif operation == _OTHER:
                return
            elif operation != _SELECT and record.dialect == "sqlite" and _stands_alone(connection):
                transaction.autocommit = True
            self._follow(known, number, transaction, parameters, context, executemany, rows, load)
        except Exception:
            self.fault()

    def _follow(
        self,
        known: Known,
        number: int,
        transaction: Transaction,
        parameters: Any,
        context: Any,
        executemany: bool,
        rows: Any,
        load: int,
    ) -> None:
        """What a statement means for its transaction: rows that it names or changes."""
        if type(rows) is not int:
            rows = -1
        by_hand = context is None or context.compiled is None
        if known.operation == _SELECT:
            if known.names_rows and load in ASKED:
                values = parameters if by_hand else context.compiled_parameters[0]
                transaction.looked(Statement(0, number, known, transaction), values, rows)
            return
        sent = Statement(self._new_run(), number, known, transaction)
        if known.operation == _UPDATE:
            self._here.loads.written = sent
        if executemany and context is not None:
            if transaction.batch is not None and transaction.batch() is context:
                return  # one statement in several batches: its parameters are known
            transaction.batch = weakref.ref(context)
        if by_hand:
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
            if write is None:
                return
            for instance in itertools.islice(session.dirty, _MOST_FLUSHED):
                state = instance.__dict__["_sa_instance_state"]
                statement = loads.known_by(state)
                if statement is not None and statement.transaction is not write.transaction:
                    write.transaction.knew(state, statement)
                loads.wrote(state, write)
        except Exception:
            self.fault()

    def _error(self, context: Any) -> None:
        if not self._watching or not emitter.active() or context.connection is None:
            return
        try:
            record = self._of(context.connection)
            if context.statement is None:
                if record.committing is not None:
                    self._tell(Step.FAILED, record.committing)
                    record.committing = None
                return
            compiled = getattr(context.execution_context, "compiled", None)
            known = known_of(compiled, context.statement, record.dialect)
            intern = emitter.intern
            emitter.emit(
                _STATEMENT,
                emitter.next_id(),
                perf_counter_ns() - record.started if record.started else 0,
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
                intern(type(context.original_exception).__name__),
            )
        except Exception:
            self.fault()

    # transactions

    def _of(self, connection: Any) -> _Connection:
        record = self._connections.get(id(connection))
        if record is None or record.of() is not connection:
            record = self._opened(connection)
        return record

    def _opened(self, connection: Any) -> _Connection:
        identity, connections = id(connection), self._connections

        def closed(of: weakref.ref[Any]) -> None:
            found = connections.get(identity)
            if found is not None and found.of is of:
                del connections[identity]

        record = connections[identity] = _Connection(connection, weakref.ref(connection, closed))
        return record

    def _started(self, record: _Connection, connection: Any) -> Transaction:
        options = connection.get_execution_options()
        isolation = options.get("isolation_level") or connection.dialect.default_isolation_level or ""
        loads = self._here.loads
        loads.open += 1
        record.committing = None
        record.transaction = Transaction(
            emitter.next_id(), record.number, record.database, str(isolation), loads
        )
        return record.transaction

    def _tell(self, step: Step, transaction: Transaction) -> None:
        emitter.emit(
            _TRANSACTION,
            int(step),
            transaction.number,
            transaction.connection,
            emitter.intern(transaction.isolation),
            emitter.stack(),
        )

    def _begin(self, connection: Any) -> None:
        if not self._watching or not emitter.active():
            return
        try:
            self._tell(Step.BEGIN, self._started(self._of(connection), connection))
        except Exception:
            self.fault()

    def _commit(self, connection: Any) -> None:
        self._ended(connection, Step.COMMIT)

    def _rollback(self, connection: Any) -> None:
        self._ended(connection, Step.ROLLBACK)

    def _ended(self, connection: Any, step: Step) -> None:
        if not self._watching:
            return
        try:
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
            self._tell(step, transaction)
        except Exception:
            self.fault()

    def _begin_twophase(self, connection: Any, _xid: Any) -> None:
        self._begin(connection)

    def _commit_twophase(self, connection: Any, _xid: Any, _is_prepared: bool) -> None:
        self._ended(connection, Step.COMMIT)

    def _rollback_twophase(self, connection: Any, _xid: Any, _is_prepared: bool) -> None:
        self._ended(connection, Step.ROLLBACK)

    def _savepoint(self, connection: Any, name: str | None) -> None:
        record = self._connections.get(id(connection))
        if record is not None and name is None:  # it gets its name right after this
            record.savepoints += 1
            name = f"sa_savepoint_{record.savepoints}"
        self._at_savepoint(connection, name or "", Step.SAVEPOINT)

    def _rollback_savepoint(self, connection: Any, name: str, _context: None) -> None:
        self._at_savepoint(connection, name, Step.ROLLBACK_TO)

    def _release_savepoint(self, connection: Any, name: str, _context: None) -> None:
        self._at_savepoint(connection, name, Step.RELEASE)

    def _at_savepoint(self, connection: Any, name: str, step: Step) -> None:
        if not self._watching or not emitter.active():
            return
        try:
            record = self._of(connection)
            transaction = record.transaction
            if transaction is None:
                transaction = self._started(record, connection)
            if step is Step.SAVEPOINT:
                transaction.savepoint(name)
            elif step is Step.ROLLBACK_TO:
                transaction.rolled_back_to(name)
            self._tell(step, transaction)
        except Exception:
            self.fault()


def _stands_alone(connection: Any) -> bool:
    """Whether SQLite has committed a statement already: no transaction was begun, whatever SQLAlchemy thinks."""
    return getattr(connection.connection.driver_connection, "in_transaction", True) is False


def _no_run() -> int:
    return 0


def _counter(new_run: Callable[[], int]) -> Callable[[], int]:
    """The counter behind SQLAlchemy's function, without the lock that it does not need: its next() is one step."""
    for cell in getattr(new_run, "__closure__", None) or ():
        if type(cell.cell_contents) is itertools.count:
            return cell.cell_contents.__next__
    return new_run


def _has_listeners(cls: Any) -> bool:
    """Whether anybody listens to a class of SQLAlchemy, or to the class as part of a wider one."""
    dispatch = cls.dispatch
    return any(len(getattr(dispatch, name)._clslevel.get(cls, ())) for name in dispatch._event_names)
