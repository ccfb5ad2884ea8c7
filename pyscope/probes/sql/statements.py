"""Statements as the dialect hands them to the driver: each is told, and kept as what loads or touches rows.

This runs for every statement of the program: what can be found out once a statement is in `Known`. Where the native
recorder is built it does the same (native/hook_statements.pxi), in less time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from pyscope import backends, emitter
from pyscope.events.sql import STATEMENT, Load, Operation
from pyscope.probes.sql import quiet
from pyscope.probes.sql.fields import StatementsFields
from pyscope.probes.sql.known import compiled_statements, known_of
from pyscope.probes.sql.loads import LoadsOfThreads
from pyscope.probes.sql.purpose import ASKED, OF_PROGRAM, identity, purpose
from pyscope.probes.sql.template import SALT, fingerprint
from pyscope.probes.sql.transaction import MOST_READS

__all__ = ["Statements"]

_STATEMENT = STATEMENT.kind
_OTHER, _SELECT, _EAGER = int(Operation.OTHER), int(Operation.SELECT), int(Load.EAGER)
_compiled: Any = backends.native()


class Statements(StatementsFields):
    """Tells of statements that were sent. `probe`: who knows the connections and follows the transactions."""

    def __init__(self, probe: Any, connections: dict[int, Any]) -> None:
        self._probe = probe
        self._connections = connections
        self.watching = True
        self.here = LoadsOfThreads()
        self.new_run = _no_run
        self._sending: set[int] = set()  # ids of the contexts that a derived dialect is at work on

    def handing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A dialect's method that hands a statement with its parameters to the driver, and tells of it."""
        if _compiled is None:
            return self._handing(original)
        path = _compiled.Statements(
            self,
            emitter.active,
            probe=self._probe,
            connections=self._connections,
            compiled=compiled_statements,
            sending=self._sending,
            known_of=known_of,
            fingerprint=fingerprint,
            purpose=purpose,
            identity=identity,
            salt=SALT,
            asked=ASKED,
            kind=_STATEMENT,
            select=_SELECT,
            other=_OTHER,
            eager=_EAGER,
            most_looks=MOST_READS,
        )
        return functools.wraps(original)(path.handing(original))

    def _handing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        probe, sending = self._probe, self._sending

        def hand(dialect: Any, cursor: Any, statement: str, parameters: Any, context: Any = None) -> Any:
            if not self.watching or not emitter.active() or context is None or id(context) in sending:
                return original(dialect, cursor, statement, parameters, context)
            started = perf_counter_ns()
            try:
                result = original(dialect, cursor, statement, parameters, context)
            except BaseException as error:
                probe.failed(statement, context, error, perf_counter_ns() - started)
                raise
            self.sent(cursor, statement, parameters, context, perf_counter_ns() - started)
            return result

        quiet.let_pass(hand.__code__)
        return functools.wraps(original)(hand)

    def handing_bare(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The same for the method without parameters."""
        watched = self.handing(
            lambda dialect, cursor, statement, _, context: original(dialect, cursor, statement, context)
        )

        def hand(dialect: Any, cursor: Any, statement: str, context: Any = None) -> Any:
            return watched(dialect, cursor, statement, None, context)

        quiet.let_pass(hand.__code__)
        return functools.wraps(original)(hand)

    def outer(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """The same for a method of a derived dialect, which may call that of its base: it is one statement."""
        sending = self._sending

        def make_outer(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def silent(dialect: Any, cursor: Any, statement: str, *rest: Any, **named: Any) -> Any:
                context = named.get("context", rest[-1] if rest else None)
                sending.add(id(context))
                try:
                    return original(dialect, cursor, statement, *rest, **named)
                finally:
                    sending.discard(id(context))

            return make(silent)  # type: ignore[no-any-return]

        return make_outer

    def sent(self, cursor: Any, statement: str, parameters: Any, context: Any, duration: int) -> None:
        """A statement was sent: it is told, and kept as what loads or touches rows."""
        probe = self._probe
        try:
            connection = context.root_connection
            record = self._connections.get(id(connection))
            if record is None or record.of() is not connection:
                record = probe.opened(connection)
            compiled = context.compiled
            entry = compiled_statements.get(id(compiled))
            if entry is not None and entry[0]() is compiled:
                known = entry[1]
            else:
                known = known_of(compiled, statement, record.dialect)
            transaction = record.transaction
            if transaction is None:
                transaction = probe.started(record, connection)
            loads = self.here.loads
            number = emitter.next_id()
            operation = known.operation
            rows = -1
            if operation != _SELECT or record.counts_selected:
                rows = cursor.rowcount
                if type(rows) is not int:
                    rows = -1
            load, relationship, parent, parent_statement = OF_PROGRAM
            arguments = 0
            if operation == _SELECT:
                if known.orm:
                    options = context.execution_options.get("_sa_orm_load_options")
                    load, relationship, parent, parent_statement = purpose(options, known, loads)
                arguments = parent or fingerprint(statement, parameters)
            intern = emitter.intern
            names = known.names
            if names[0] != emitter.generation:
                names = known.names = emitter.generation, intern(known.template), intern(known.relationship)
            emitter.emit(
                _STATEMENT,
                number,
                duration,
                names[1],
                operation,
                record.number,
                transaction.number,
                rows,
                emitter.stack(),
                arguments,
                load,
                0
                if not relationship
                else names[2]
                if relationship is known.relationship
                else intern(relationship),
                parent,
                intern(parent_statement) if parent_statement else 0,
                known.paged,
                0,
            )
            if loads is not transaction.loads[-1]:
                transaction.moved(loads)
            if known.entities:
                run = self.new_run()
                if not transaction.first_run:
                    transaction.first_run = run
                if len(loads.sent[0]) >= loads.most:
                    loads.shorten()
                runs, numbers, statements, transactions = loads.sent
                numbers.append(number)
                statements.append(known)
                transactions.append(transaction)
                runs.append(run)  # last: what is found by its run is there
            if operation == _SELECT:
                if known.names_rows and load in ASKED:
                    values = parameters if compiled is None else context.compiled_parameters[0]
                    transaction.looked(number, known, values, rows)
                return
            if operation == _OTHER:
                return
            probe.follow(record, connection, known, number, transaction, parameters, context, rows)
        except Exception:
            probe.fault()


def _no_run() -> int:
    return 0
