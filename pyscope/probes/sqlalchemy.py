"""The SQLAlchemy probe: statements, transactions, and which instance's attribute caused which SELECT.

It listens to public events of the classes Engine and Mapper, so it sees every engine, synchronous or asynchronous, made
before or after, each once. What an ORM statement is for is read from its execution options; a `do_orm_execute` listener
would tell the same, but makes SQLAlchemy prepare every statement twice.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from pyscope import emitter
from pyscope.events.sql import STATEMENT, TRANSACTION, Load, Operation, Step
from pyscope.probes import Probe, on_import
from pyscope.probes.sql import quiet
from pyscope.probes.sql.shape import Shape, of_compiled, of_text
from pyscope.probes.sql.template import fingerprint, mixed, plain, template
from pyscope.probes.sql.transaction import Entity, Statement, Transaction

__all__ = ["SQLAlchemyProbe"]

_MOST_REMEMBERED = 4096
_MOST_RECENT = 64
_MOST_FLUSHED = 200
_STATEMENT = STATEMENT.kind
_TRANSACTION = TRANSACTION.kind
_OTHER = int(Operation.OTHER)
_SELECT = int(Operation.SELECT)
_UPDATE = int(Operation.UPDATE)
_NO_LOAD = (int(Load.NONE), "", 0, "")


class _Connection:
    """What is known of one checked-out connection."""

    __slots__ = (
        "batch",
        "committing",
        "database",
        "dialect",
        "number",
        "savepoints",
        "started",
        "transaction",
    )

    def __init__(self, connection: Any) -> None:
        self.number = emitter.next_id()
        self.started = 0
        self.savepoints = 0
        self.transaction: Transaction | None = None
        self.committing: Transaction | None = None
        self.batch: weakref.ref[Any] | None = None
        engine = connection.engine
        url = engine.url
        name = url.database
        if name in (None, "", ":memory:"):
            name = str(id(engine.pool))
        self.database = mixed("database", url.host, url.port, name)
        self.dialect: str = engine.dialect.name


class _Recent(threading.local):
    """The ORM's latest statements on a thread, by their compilation: rows are loaded right after."""

    def __init__(self) -> None:
        self.statements: dict[int, Statement] = {}
        self.write: Statement | None = None


class SQLAlchemyProbe(Probe):
    """Watches every engine and session of the process."""

    name = "sqlalchemy"
    library = "sqlalchemy"
    extra = "sqlalchemy"

    def __init__(self) -> None:
        super().__init__()
        self._listening: list[tuple[Any, str, Callable[..., Any]]] = []
        self._flags: list[tuple[type, bool | None]] = []
        self._connections: weakref.WeakKeyDictionary[Any, _Connection] = weakref.WeakKeyDictionary()
        self._recent = _Recent()
        # Which statement filled an instance, by the instance state's id: two generations, the older is dropped.
        self._young: dict[int, Entity] = {}
        self._old: dict[int, Entity] = {}
        self._relationships: dict[int, tuple[Any, str, Load]] = {}
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
        from sqlalchemy.orm import Mapper, Session

        if self._watching:
            self._listen(Session, {"after_flush": self._flushed})
            self._listen(Mapper, {"load": self._load, "refresh": self._load})

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
        self._young, self._old = {}, {}
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
        if self._watching:
            try:
                self._of(connection).started = perf_counter_ns()
            except Exception:
                self.fault()
        return statement, parameters

    def _after(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        if self._watching and emitter.active():
            try:
                self._executed(connection, cursor, statement, parameters, context, executemany)
            except Exception:
                self.fault()

    def _executed(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        record = self._of(connection)
        duration = perf_counter_ns() - record.started if record.started else 0
        text = template(statement, record.dialect)
        compiled = context.compiled if context is not None else None
        shape = _shape(compiled, statement)
        origin = getattr(compiled, "compile_state", None)
        transaction = record.transaction
        if transaction is None:
            transaction = self._started(record, connection)
        number = emitter.next_id()
        rows = cursor.rowcount
        if type(rows) is not int:
            rows = -1
        operation = int(shape.operation)
        load, relationship, parent, parent_statement = _NO_LOAD
        arguments = 0
        if operation == _SELECT:
            arguments = fingerprint(statement, parameters)
            if hasattr(origin, "current_path"):  # of the ORM
                options = context.execution_options.get("_sa_orm_load_options")
                load, relationship, parent, parent_statement = self._purpose(options, origin, shape)
        intern = emitter.intern
        emitter.emit(
            _STATEMENT,
            number,
            duration,
            intern(text),
            operation,
            record.number,
            transaction.number,
            rows,
            emitter.stack(),
            arguments,
            load,
            intern(relationship) if relationship else 0,
            parent,
            intern(parent_statement) if parent_statement else 0,
            shape.paged,
            0,
        )
        if operation == _OTHER:
            return
        sent = Statement(number, text, shape, transaction, origin)
        entities = False
        if load:
            entities = bool(getattr(origin, "_has_mapper_entities", True))
            recent = self._recent.statements
            if len(recent) >= _MOST_RECENT:
                recent.clear()
            recent[id(origin)] = sent
        if executemany and context is not None:
            if record.batch is not None and record.batch() is context:
                return  # one statement in several batches: its parameters are known
            record.batch = weakref.ref(context)
        if compiled is not None:
            values = context.compiled_parameters
        else:
            values = parameters if executemany else [parameters]
        transaction.executed(sent, values, rows, entities)
        if operation == _UPDATE:
            self._recent.write = sent

    def _purpose(self, options: Any, origin: Any, shape: Shape) -> tuple[int, str, int, str]:
        """Why the ORM sent a SELECT: the kind of load, the attribute, the instance, what had loaded that."""
        state = options._lazy_loaded_from if options is not None else None
        if state is not None:
            relationship, load = self._relationship(origin.current_path)
            return int(load), relationship, self._identity(state), self._loaded_by(state)
        state = options._refresh_state if options is not None else None
        if state is not None:
            name = state.manager.class_.__name__
            wanted = origin.compile_options._only_load_props or ()
            if options._is_user_refresh:
                load = Load.REFRESH
            elif state.expired_attributes and not state.expired_attributes.isdisjoint(wanted):
                load = Load.SUBCLASS if _of_subclass(state, wanted) else Load.EXPIRED
            else:
                load = Load.DEFERRED
            if load in (Load.DEFERRED, Load.SUBCLASS) and len(wanted) <= 3:
                name = f"{name}.{'/'.join(sorted(wanted))}"
            return int(load), name, self._identity(state), self._loaded_by(state)
        if shape.get:
            return int(Load.GET), "", 0, ""
        path = origin.current_path
        if path is not None and not path.is_root:
            return int(Load.EAGER), self._relationship(path)[0], 0, ""
        return int(Load.QUERY), "", 0, ""

    def _relationship(self, path: Any) -> tuple[str, Load]:
        prop = path[-1]
        known = self._relationships.get(id(prop))
        if known is None or known[0] is not prop:
            name = f"{prop.parent.class_.__name__}.{prop.key}"
            known = prop, name, Load.COLLECTION if prop.uselist else Load.SCALAR
            if len(self._relationships) >= _MOST_REMEMBERED:
                self._relationships.clear()
            self._relationships[id(prop)] = known
        return known[1], known[2]

    def _identity(self, state: Any) -> int:
        key = state.key
        if key is None:
            return mixed("state", id(state))
        values = []
        for value in key[1]:
            safe = plain(value)
            if safe is None:
                return mixed("state", id(state))
            values.append(safe)
        return mixed("instance", id(key[0]), *values)

    def _loaded_by(self, state: Any) -> str:
        entity = self._young.get(id(state)) or self._old.get(id(state))
        return entity[0].template if entity is not None and entity[1] is state.key else ""

    def _load(self, state: Any, context: Any, *_attributes: Any) -> None:
        if not self._watching or context is None:
            return
        try:
            origin = context.compile_state
            statement = self._recent.statements.get(id(origin))
            if statement is None or statement.origin is not origin:
                return
            entity = statement, state.key, state.manager
            self._remember(state, entity)
            if statement.transaction is not None:
                statement.transaction.loaded(entity)
        except Exception:
            self.fault()

    def _remember(self, state: Any, entity: Entity) -> None:
        if len(self._young) >= _MOST_REMEMBERED:
            self._old = self._young
            self._young = {}
        self._young[id(state)] = entity

    def _flushed(self, session: Any, _context: Any) -> None:
        """Instances that an earlier transaction had loaded, written by this one: it has known them since then."""
        if not self._watching or not emitter.active():
            return
        try:
            write, self._recent.write = self._recent.write, None
            if write is None or write.transaction is None:
                return
            for instance in itertools.islice(session.dirty, _MOST_FLUSHED):
                state = instance.__dict__["_sa_instance_state"]
                entity = self._young.get(id(state)) or self._old.get(id(state))
                if entity is not None and entity[1] is state.key:
                    if entity[0].transaction is not write.transaction:
                        write.transaction.loaded(entity)
                    self._remember(state, (write, state.key, state.manager))
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
            intern = emitter.intern
            emitter.emit(
                _STATEMENT,
                emitter.next_id(),
                perf_counter_ns() - record.started if record.started else 0,
                intern(template(context.statement, record.dialect)),
                int(
                    _shape(getattr(context.execution_context, "compiled", None), context.statement).operation
                ),
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
        record = self._connections.get(connection)
        if record is None:
            record = self._connections[connection] = _Connection(connection)
        return record

    def _started(self, record: _Connection, connection: Any) -> Transaction:
        options = connection.get_execution_options()
        isolation = options.get("isolation_level") or connection.dialect.default_isolation_level or ""
        record.committing = None
        record.transaction = Transaction(emitter.next_id(), record.number, record.database, str(isolation))
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
            if transaction is None or not emitter.active():
                return
            if transaction.autocommit:
                step = Step.COMMIT  # each statement has done that already
            if step is Step.COMMIT:
                transaction.tell()
                record.committing = transaction
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
        record = self._connections.get(connection)
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


def _shape(compiled: Any, statement: str) -> Shape:
    return of_compiled(compiled) if compiled is not None else of_text(statement)


def _of_subclass(state: Any, wanted: Any) -> bool:
    """Whether attributes are missing since a base class was selected: a subclass's own, and nothing has expired."""
    inherited = state.mapper.inherits
    return inherited is not None and not state.expired and not any(map(inherited.has_property, wanted))


def _has_listeners(cls: Any) -> bool:
    """Whether anybody listens to a class of SQLAlchemy, or to the class as part of a wider one."""
    dispatch = cls.dispatch
    return any(len(getattr(dispatch, name)._clslevel.get(cls, ())) for name in dispatch._event_names)
