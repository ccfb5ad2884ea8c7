"""Which statement filled which instance: of a thread, the latest loads, bounded.

The ORM numbers its runs of loading, and each instance has the number of the run that filled it. A number that is taken
as a statement ends is lower than that of its rows, and higher than those of all statements of the thread before it; so
the instance needs no note of its own, and no reference is held to it. Rows that are read for the sake of transactions
are noted as they are loaded, by the instance's state, which does not keep the instance.

What is noted lies in parallel lists and not in a tuple for each: thousands of tuples that live for a while make the
garbage collector look at all of the program's objects more often.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

from pyscope.probes.sql.fields import LoadsFields

if TYPE_CHECKING:
    from pyscope.probes.sql.known import Known
    from pyscope.probes.sql.transaction import Transaction

__all__ = ["Loads", "LoadsOfThreads", "Statement"]

MOST_STATEMENTS = 2048
FEW_ROWS = 256
MOST_ROWS = 2048


class Statement(NamedTuple):
    """A statement that was sent. `run`: lower than the numbers of the runs that load its rows. `transaction`: None for
    one that reads, and commits by itself."""

    run: int
    number: int
    known: Known
    transaction: Transaction | None


class Loads(LoadsFields):
    """The loads of a thread.

    `sent`: of statements, in order of their runs, the fields of `Statement`, a list for each; `rows`: states of
    instances, and the numbers of their runs. Another thread may look at them: the lists are only added to at their
    ends, and replaced when they are shortened.
    """

    def __init__(self) -> None:
        self.sent = [], [], [], []
        self.most = MOST_STATEMENTS
        self.rows = [], []
        self.most_rows = self.few_rows = FEW_ROWS
        self.open = 0  # transactions
        self.alone = [self]  # those of a transaction that stays on this thread: of all of them the same list
        self.written: Statement | None = None
        # Instances that were written, by the id of their state: two generations, of which the older is dropped.
        self._young: dict[int, tuple[Statement, Any]] = {}
        self._old: dict[int, tuple[Statement, Any]] = {}
        self.last = 0, ""  # the run that was asked for last, and its statement's text

    def shorten(self) -> None:
        """Forgets the older statements; to be called when there are more than `most`."""
        runs, numbers, known, transactions = self.sent
        half = self.most // 2
        self.sent = runs[half:], numbers[half:], known[half:], transactions[half:]

    def shorten_rows(self) -> None:
        """Forgets the rows of transactions that have ended, and of too many others the older; to be called when there
        are more than `most_rows`."""
        states: list[Any] = []
        runs: list[int] = []
        looked, is_open = 0, False
        for state, run in zip(*self.rows, strict=False):
            if run != looked:  # rows of one run mostly lie together
                looked = run
                statement = self.statement_of(run)
                transaction = None if statement is None else statement.transaction
                is_open = transaction is not None and not transaction.ended
            if is_open:
                states.append(state)
                runs.append(run)
        del states[:-MOST_ROWS], runs[:-MOST_ROWS]
        self.rows = states, runs
        self.most_rows = max(FEW_ROWS, 2 * len(states))

    def statement_of(self, run: int | None) -> Statement | None:
        """The statement whose rows were loaded by a run; None if it was not on this thread, or too long ago."""
        if run is None:
            return None
        runs, numbers, known, transactions = self.sent
        at = bisect_left(runs, run) - 1
        return Statement(runs[at], numbers[at], known[at], transactions[at]) if at >= 0 else None

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


class LoadsOfThreads(threading.local):
    """The calling thread's own."""

    def __init__(self) -> None:
        self.loads = Loads()
