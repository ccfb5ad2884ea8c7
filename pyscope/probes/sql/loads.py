"""Which statement filled which instance: of a thread, the latest loads, bounded.

The ORM numbers its runs of loading, and each instance has the number of the run that filled it. A number that is taken
as a statement ends is lower than that of its rows, and higher than those of all statements of the thread before it; so
the instance needs no note of its own, and no reference is held to it. Rows that are read for the sake of transactions
are noted as they are loaded, by the instance's state, which does not keep the instance.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pyscope.probes.sql.known import Known
    from pyscope.probes.sql.transaction import Transaction

__all__ = ["Loads", "LoadsOfThreads", "Statement"]

MOST_STATEMENTS = 2048
MOST_ROWS = 2048


class Statement(NamedTuple):
    """A statement that was sent. `run`: lower than the numbers of the runs that load its rows."""

    run: int
    number: int
    known: Known
    transaction: Transaction


class Loads:
    """The loads of a thread. `rows`: states of instances with the numbers of their runs."""

    def __init__(self) -> None:
        self.rows: deque[tuple[Any, int]] = deque(maxlen=MOST_ROWS)
        self.open = 0  # transactions
        self.most = MOST_STATEMENTS
        self.written: Statement | None = None
        # The fields of Statements, in order of their runs. One is made of them only when it is asked for.
        self.sent: list[tuple[int, int, Known, Transaction]] = []
        # Instances that were written, by the id of their state: two generations, of which the older is dropped.
        self._young: dict[int, tuple[Statement, Any]] = {}
        self._old: dict[int, tuple[Statement, Any]] = {}
        self.last = 0, ""  # the run that was asked for last, and its statement's text

    def shorten(self) -> None:
        """Forgets the older statements; to be called when there are more than `most`."""
        del self.sent[: self.most // 2]

    def statement_of(self, run: int | None) -> Statement | None:
        """The statement whose rows were loaded by a run; None if it was not on this thread, or too long ago."""
        if run is None:
            return None
        at = bisect_left(self.sent, (run,)) - 1  # a shorter tuple stands before a longer
        return Statement(*self.sent[at]) if at >= 0 else None

    def template_of(self, run: int | None) -> str:
        """The text of that statement, or nothing; mostly the same is asked for again."""
        if run is None:
            return ""
        if self.last[0] != run:
            statement = self.statement_of(run)
            self.last = run, statement.known.template if statement is not None else ""
        return self.last[1]

    def wrote(self, state: Any, statement: Statement) -> None:
        """An instance was written."""
        if len(self._young) >= MOST_ROWS:
            self._old = self._young
            self._young = {}
        self._young[id(state)] = statement, state.key

    def known_by(self, state: Any) -> Statement | None:
        """The statement by which the program knows an instance's values: that filled or wrote it last."""
        loaded = self.statement_of(state.runid)
        wrote = self._young.get(id(state)) or self._old.get(id(state))
        if wrote is None or wrote[1] is not state.key or (state.runid or 0) > wrote[0].run:
            return loaded
        return wrote[0]

    def ended(self) -> None:
        """A transaction has ended. When none is open, what was read is of no more interest."""
        self.open = max(0, self.open - 1)
        if not self.open:
            self.rows.clear()


class LoadsOfThreads(threading.local):
    """The calling thread's own: `note` appends to its rows."""

    def __init__(self) -> None:
        self.loads = Loads()
        self.note = self.loads.rows.append
