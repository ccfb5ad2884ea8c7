"""Supervisor events: crashes, restarts and their reasons, in order of time."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.call_sites import calling_stack
from pyscope.events.supervision import CHILD
from pyscope.findings import SupervisorEvent
from pyscope.rows import OUTCOMES, Location

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["UNTOLD", "ends", "find"]

UNTOLD = "ended without a stop"

_OPEN = OUTCOMES.index("open")


def find(trace: Trace) -> list[SupervisorEvent]:
    """What happened to the children of watched supervisors, and to threads, tasks and processes without one.

    Of a process that was killed, and that recorded too, the stack is that of the calls which it was in.
    """
    stacks = _LastCalls(trace)
    return [
        SupervisorEvent(
            kind=row.kind,
            supervisor=row.supervisor,
            child=row.child,
            reason=row.reason,
            restart_count=row.restart_count,
            time_ns=row.time_ns,
            pid=row.pid,
            stack=(stacks.of(row.pid) if row.reason.startswith("killed by") else ()) or row.stack,
        )
        for row in trace.probe_events(CHILD).records()
    ]


def ends(trace: Trace, told: Iterable[SupervisorEvent]) -> list[SupervisorEvent]:
    """Processes that ended in the middle of a call, and of whose end nobody has `told`: the first of a recording has no
    parent in it that waits for it."""
    pids = {process.pid for process in trace.processes} | {event.pid for event in told if event.pid}
    stacks = _LastCalls(trace)
    found = []
    for process in trace.processes:
        if process.state in ("killed", "recovered") and process.parent_pid not in pids:
            stack = stacks.of(process.pid)
            if stack:
                reason = f"{UNTOLD}: killed, crashed in native code, or by os._exit or os.execv"
                child = f"process {process.pid}"
                found.append(
                    SupervisorEvent(
                        "child_terminated", "", child, reason, -1, process.end_ns, process.pid, stack
                    )
                )
    return found


class _LastCalls:
    """The calls that processes were in when they ended. All calls are gone through once, and not before one is asked
    for."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    @cached_property
    def _open(self) -> NDArray[np.intp]:
        return np.flatnonzero(self._trace.calls["outcome"] == _OPEN)

    def of(self, pid: int) -> tuple[Location, ...]:
        """Those of the main thread or, if it was in none, of the thread that began one last; innermost first."""
        trace, calls = self._trace, self._trace.calls
        numbers = {number for number, process in enumerate(trace.processes) if process.pid == pid}
        threads = {
            number: thread.os_tid for number, thread in enumerate(trace.threads) if thread.process in numbers
        }
        rows = self._open[np.isin(calls["thread"][self._open], list(threads))]
        main = [number for number, os_tid in threads.items() if os_tid == pid]
        of_main = rows[np.isin(calls["thread"][rows], main)]
        rows = of_main if len(of_main) else rows
        if not len(rows):
            return ()
        return calling_stack(trace, int(rows[np.argmax(calls["start_ns"][rows])]))
