"""Supervisor events: crashes, restarts and their reasons, in order of time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from pyscope.events.supervision import CHILD
from pyscope.findings import SupervisorEvent
from pyscope.rows import OUTCOMES, Location

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["UNTOLD", "ends", "find"]

UNTOLD = "ended without a stop"

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


def ends(trace: Trace, told: Iterable[SupervisorEvent]) -> list[SupervisorEvent]:
    """Processes that ended in the middle of a call, and of whose end nobody has `told`: the first of a recording has no
    parent in it that waits for it."""
    pids = {process.pid for process in trace.processes} | {event.pid for event in told if event.pid}
    found = []
    for process in trace.processes:
        if process.state in ("killed", "recovered") and process.parent_pid not in pids:
            stack = _last_calls(trace, process.pid)
            if stack:
                reason = f"{UNTOLD}: killed, crashed in native code, or by os._exit or os.execv"
                child = f"process {process.pid}"
                found.append(
                    SupervisorEvent(
                        "child_terminated", "", child, reason, -1, process.end_ns, process.pid, stack
                    )
                )
    return found


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
