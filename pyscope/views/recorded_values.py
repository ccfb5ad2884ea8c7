"""The values that a recording was allowed to hold, by the request or the statement that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyscope.events.scope import VALUE
from pyscope.events.sql import STATEMENT

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["RecordedValues"]


class RecordedValues:
    """Of one trace; most have none."""

    def __init__(self, trace: Trace) -> None:
        self._scopes: dict[int, list[str]] = {}
        self._statements: dict[int, str] = {}
        values = trace.probe_events(VALUE)
        if not len(values):
            return
        statements = trace.probe_events(STATEMENT)
        process, thread, context = (statements[name] for name in ("process", "thread", "context"))
        rows: dict[tuple[int, int, int], NDArray[np.intp]] = {}
        for record in values.records():
            if record.id:
                name = record.what.removeprefix("request_header:").replace("request_body", "body")
                self._scopes.setdefault(record.id, []).append(f"{name}: {record.value}")
                continue
            where = record.process, record.thread, record.context
            if where not in rows:
                same = (process == record.process) & (thread == record.thread) & (context == record.context)
                rows[where] = np.flatnonzero(same)
            mine = rows[where]
            at = int(np.searchsorted(statements["time_ns"][mine], record.time_ns))
            if at < len(mine):
                self._statements.setdefault(int(mine[at]), f"-- {record.value}")

    def of_scope(self, identity: int) -> str:
        """Headers and body of a request, a line each; empty where there are none."""
        return "\n".join(self._scopes.get(identity, ()))

    def of_statement(self, row: int) -> str:
        """The parameters of the statement in this row of the STATEMENT events; empty where they are not known."""
        return self._statements.get(row, "")
