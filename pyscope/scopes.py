"""The scopes of a trace: its requests, messages, reports and tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.events.scope import SCOPE_BEGIN, SCOPE_END

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["SCOPE_OUTCOMES", "ScopeRow", "Scopes", "of_trace"]

SCOPE_OUTCOMES = ("open", "returned", "raised", "cancelled")
"""How a scope ended. open: not, as far as was recorded."""


@dataclass(frozen=True, slots=True)
class ScopeRow:
    """One scope. Times in nanoseconds; `duration_ns` to the trace's end where it is open; `cpu_ns` -1 where unknown.

    `parent`: the id of the scope that it began in, 0 for none. `status`: of an HTTP answer, 0 for none. `route`: the
    template of the path. `error`: the type of the exception that ended it. `thread`, `context`: where it began, as in
    `Trace.calls`.
    """

    id: int
    kind: str
    name: str
    parent: int
    start_ns: int
    end_ns: int
    status: int
    route: str
    cpu_ns: int
    outcome: str
    error: str
    process: int
    thread: int
    context: int

    @property
    def duration_ns(self) -> int:
        """From begin to end."""
        return self.end_ns - self.start_ns


class Scopes:
    """All scopes of a trace, in order of their begin: `scopes["cpu_ns"]` is a column, `len(scopes)` the rows.

    Columns: id, parent, start_ns, end_ns, status, cpu_ns (int64), process, thread, context (int32), and kind,
    name, route, outcome, error (lists of str).
    """

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = columns
        self._rows = {identity: row for row, identity in enumerate(columns["id"].tolist())}

    def __len__(self) -> int:
        return len(self._columns["id"])

    def __getitem__(self, name: str) -> Any:
        try:
            return self._columns[name]
        except KeyError:
            raise KeyError(f"scopes have no column {name!r}; they have {', '.join(self._columns)}") from None

    def keys(self) -> list[str]:
        """The columns' names."""
        return list(self._columns)

    def row(self, identity: int) -> int:
        """The row of the scope with this id, -1 for none."""
        return self._rows.get(identity, -1)

    def rows(self, identities: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of many scopes, -1 where there is none."""
        ids = self._columns["id"]
        if not len(ids):
            return np.full(len(identities), -1, np.int64)
        order = np.argsort(ids, kind="stable")
        at = np.minimum(np.searchsorted(ids, identities, sorter=order), len(ids) - 1)
        return np.where(ids[order[at]] == identities, order[at], -1)

    def get(self, identity: int) -> ScopeRow | None:
        """The scope with this id."""
        row = self.row(identity)
        return None if row < 0 else self.at(row)

    def at(self, row: int) -> ScopeRow:
        """The scope in a row."""
        values: dict[str, Any] = {
            name: column[row] if isinstance(column, list) else int(column[row])
            for name, column in self._columns.items()
        }
        return ScopeRow(**values)

    def __iter__(self) -> Iterator[ScopeRow]:
        names = [field.name for field in fields(ScopeRow)]
        columns = [self._columns[name] for name in names]
        lists = [column if isinstance(column, list) else column.tolist() for column in columns]
        return map(ScopeRow, *lists)

    def __repr__(self) -> str:
        return f"<{len(self)} scopes>"


def of_trace(trace: Trace) -> Scopes:
    """The scopes that a trace tells of. One whose end is missing is open; one whose begin is missing is left out."""
    begins, ends = trace.probe_events(SCOPE_BEGIN), trace.probe_events(SCOPE_END)
    count = len(begins)
    latest = [process.end_ns for process in trace.processes]
    columns: dict[str, Any] = {
        "id": begins["id"],
        "kind": _strings(trace, begins["label"]),
        "name": _strings(trace, begins["name"]),
        "parent": begins["parent"],
        "start_ns": begins["time_ns"],
        "end_ns": np.array([latest[process] for process in begins["process"].tolist()], np.int64),
        "status": np.zeros(count, np.int64),
        "route": [""] * count,
        "cpu_ns": np.full(count, -1, np.int64),
        "outcome": [SCOPE_OUTCOMES[0]] * count,
        "error": [""] * count,
        "process": begins["process"],
        "thread": begins["thread"],
        "context": begins["context"],
    }
    scopes = Scopes(columns)
    rows = scopes.rows(ends["id"])
    known = rows >= 0
    at = rows[known]
    columns["end_ns"][at] = ends["time_ns"][known]
    columns["status"][at] = ends["status"][known]
    columns["cpu_ns"][at] = ends["cpu_ns"][known]
    for name in ("route", "outcome", "error"):
        for row, text in zip(at.tolist(), _strings(trace, ends[name][known]), strict=True):
            columns[name][row] = text
    return scopes


def _strings(trace: Trace, indexes: NDArray[np.int64]) -> list[str]:
    strings = trace.strings
    return [strings[index] for index in indexes.tolist()]
