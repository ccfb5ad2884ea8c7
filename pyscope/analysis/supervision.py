"""Supervisor events: crashes, restarts and their reasons, in order of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyscope.events.supervision import CHILD
from pyscope.findings import SupervisorEvent
from pyscope.rows import OUTCOMES, Location

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["find"]

_OPEN = OUTCOMES.index("open")
_MOST_FRAMES = 32


def find(trace: Trace) -> list[SupervisorEvent]:
    """What happened to the children of watched supervisors, and to threads, tasks and processes without one.

    Of a process that was killed, and that recorded too, the stack is that of the calls which it was in.
    """
    return [
        SupervisorEvent(
            kind=row.kind,
            supervisor=row.supervisor,
            child=row.child,
            reason=row.reason,
            restart_count=row.restart_count,
            time_ns=row.time_ns,
            pid=row.pid,
            stack=(_last_calls(trace, row.pid) if row.reason.startswith("killed by") else ()) or row.stack,
        )
        for row in trace.probe_events(CHILD).records()
    ]


def _last_calls(trace: Trace, pid: int) -> tuple[Location, ...]:
    """The calls that a process was in when it ended: those of its main thread, or of the thread that began one last."""
    numbers = {number for number, process in enumerate(trace.processes) if process.pid == pid}
    threads = {
        number: thread.os_tid for number, thread in enumerate(trace.threads) if thread.process in numbers
    }
    calls = trace.calls
    rows = np.flatnonzero((calls["outcome"] == _OPEN) & np.isin(calls["thread"], list(threads)))
    main = [number for number, os_tid in threads.items() if os_tid == pid]
    of_main = rows[np.isin(calls["thread"][rows], main)]
    rows = of_main if len(of_main) else rows
    if not len(rows):
        return ()
    row = int(rows[np.argmax(calls["start_ns"][rows])])
    stack: list[Location] = []
    while row >= 0 and len(stack) < _MOST_FRAMES:
        function = trace.functions[int(calls["function"][row])]
        stack.append(Location(function.file, function.line, function.qualname))
        row = int(calls["parent"][row])
    return tuple(stack)
