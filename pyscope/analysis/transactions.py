"""The transactions of a trace that committed and wrote something: what each read and wrote, row by row, and when."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.call_sites import call_site
from pyscope.analysis.flows import flow_of_contexts
from pyscope.events.sql import ROW, STATEMENT, TRANSACTION, Step, Touch
from pyscope.findings import Access

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["Committed", "History", "Use"]

_NONE: frozenset[str] = frozenset()


@dataclass(slots=True)
class Use:
    """What a transaction did with a row. Times are of the statement. `columns`, `computed`, `guards`: see `ROW`."""

    touch: Touch
    table: str
    row: int
    columns: frozenset[str]
    computed: frozenset[str]
    guards: frozenset[str]
    start_ns: int
    end_ns: int
    statement: int  # row in the trace's statements

    @property
    def changed(self) -> frozenset[str]:
        """The columns that it wrote."""
        return self.columns | self.computed


@dataclass(slots=True)
class Committed:
    """A transaction that committed. `visible_ns`: before then nobody else can have seen what it wrote.

    `flow`: thread and task. `locked`: it took a lock that can keep others out for all of it.
    """

    number: int
    start_ns: int
    visible_ns: int
    isolation: str
    autocommit: bool
    flow: tuple[int, int]
    uses: list[Use] = field(default_factory=list)
    locked: bool = False


class History:
    """All of them, with the rows that more than one of them used."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._statements = trace.probe_events(STATEMENT)
        self._rows = trace.probe_events(ROW)
        self._steps = trace.probe_events(TRANSACTION)

    @cached_property
    def transactions(self) -> dict[int, Committed]:
        """By their number. Only uses of rows that several transactions used, and of which one wrote."""
        if not len(self._rows) or not len(self._statements):
            return {}
        ends, failed = self._ends()
        begins = dict(zip(*self._columns(Step.BEGIN, "transaction", "time_ns"), strict=True))
        rows, at = self._with_statements(self._shared())
        stops = self._statements["time_ns"][at]
        starts = stops - self._statements["duration_ns"][at]
        threads = self._statements["thread"][at].tolist()
        flows = flow_of_contexts(self._trace, self._statements["context"][at]).tolist()
        names = ("transaction", "touch", "table", "row", "columns", "computed", "guards", "autocommit")
        columns = [self._rows[name][rows].tolist() for name in names]
        sets = cache(self._names)
        strings, touches = self._trace.strings, {int(touch): touch for touch in Touch}
        found: dict[int, Committed] = {}
        for row in zip(*columns, at.tolist(), starts.tolist(), stops.tolist(), threads, flows, strict=True):
            (
                number,
                touched,
                table,
                identity,
                wrote,
                computed,
                guards,
                autocommit,
                statement,
                start,
                stop,
                *flow,
            ) = row
            transaction = found.get(number)
            if transaction is None:
                end = ends.get(number)
                if end is None or number in failed:
                    continue
                time, isolation = end
                begin = begins.get(number, start)
                transaction = Committed(number, begin, time, isolation, bool(autocommit), (flow[0], flow[1]))
                found[number] = transaction
            touch = touches[touched]
            if autocommit and touch >= Touch.WRITE and start < transaction.visible_ns:
                transaction.visible_ns = start
            if start < transaction.start_ns:
                transaction.start_ns = start
            of = sets(wrote), sets(computed), sets(guards)
            transaction.uses.append(Use(touch, strings[table], identity, *of, start, stop, statement))
        self._mark_locked(found)
        return found

    @cached_property
    def by_row(self) -> dict[int, list[tuple[Committed, list[Use]]]]:
        """For each shared row, who used it and how, in order of commit."""
        rows: defaultdict[int, dict[int, list[Use]]] = defaultdict(dict)
        for transaction in self.transactions.values():
            for use in transaction.uses:
                rows[use.row].setdefault(transaction.number, []).append(use)
        ordered = {}
        for row, users in rows.items():
            if len(users) > 1:
                pairs = [(self.transactions[number], uses) for number, uses in users.items()]
                ordered[row] = sorted(pairs, key=lambda pair: pair[0].visible_ns)
        return ordered

    def access(self, operation: str, use: Use, time_ns: int = 0) -> Access:
        """A use as an access of a finding; at the end of its statement unless another time is given."""
        events = self._statements
        at = use.statement
        stack = self._trace.stack(int(events["stack"][at]))
        flow = int(flow_of_contexts(self._trace, events["context"][at : at + 1])[0])
        return Access(
            operation=operation,
            thread=self._trace.threads[int(events["thread"][at])].name,
            context=self._trace.contexts[flow].name if flow else None,
            time_ns=time_ns or use.end_ns,
            location=call_site(stack),
            stack=stack,
            scope=int(events["scope"][at]),
        )

    def text_of(self, use: Use) -> str:
        """The statement of a use."""
        return self._trace.strings[int(self._statements["statement"][use.statement])]

    # columns

    def _columns(self, step: Step, *names: str) -> list[list[Any]]:
        rows = self._steps["step"] == step
        return [self._steps[name][rows].tolist() for name in names]

    def _ends(self) -> tuple[dict[int, tuple[int, str]], set[int]]:
        numbers, times, isolations = self._columns(Step.COMMIT, "transaction", "time_ns", "isolation")
        strings = self._trace.strings
        ends = {
            number: (time, strings[isolation])
            for number, time, isolation in zip(numbers, times, isolations, strict=True)
        }
        return ends, set(self._columns(Step.FAILED, "transaction")[0])

    def _shared(self) -> NDArray[np.intp]:
        """Uses of rows that several transactions used and one wrote; all writes to tables whose groups were read."""
        rows, transactions = self._rows["row"], self._rows["transaction"]
        written = self._rows["touch"] >= Touch.WRITE
        _, inverse = np.unique(rows, return_inverse=True)
        distinct, of = np.unique(transactions, return_inverse=True)
        pairs = np.unique(
            inverse * len(distinct) + of
        )  # as one number each: many times faster than rows of two
        users = np.bincount(pairs // len(distinct), minlength=int(np.max(inverse)) + 1)
        writers = np.bincount(inverse[written], minlength=len(users))
        group = self._rows["touch"] == Touch.READ_GROUP
        grouped = users[inverse] > 1
        tables = np.unique(self._rows["table"][group & grouped])
        shared = grouped & ((writers[inverse] > 0) | group)
        shared |= written & np.isin(self._rows["table"], tables)
        return np.flatnonzero(shared)

    def _with_statements(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Of some uses those whose statement was recorded, and where that stands among the statements."""
        numbers = self._statements["number"]
        order = np.argsort(numbers, kind="stable")
        wanted = self._rows["number"][rows]
        at = order[np.minimum(np.searchsorted(numbers, wanted, sorter=order), len(order) - 1)]
        known = numbers[at] == wanted
        return rows[known], at[known]

    def _names(self, string: int) -> frozenset[str]:
        text = self._trace.strings[string]
        return frozenset(text.split(",")) if text else _NONE

    def _mark_locked(self, found: dict[int, Committed]) -> None:
        """Those that began with a lock of the whole database, of a table, or of the program's own naming."""
        statements, inverse = np.unique(self._statements["statement"], return_inverse=True)
        locks = np.array([_locks(self._trace.strings[number]) for number in statements.tolist()], bool)
        for number in np.unique(self._statements["transaction"][locks[inverse]]).tolist():
            if number in found:
                found[number].locked = True


def _locks(statement: str) -> bool:
    text = statement.upper()
    return (
        text.startswith(("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "LOCK TABLE", "LOCK "))
        or "PG_ADVISORY" in text
        or "GET_LOCK(" in text
    )
