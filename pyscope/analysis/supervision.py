"""Supervisor events: crashes, restarts and their reasons, in order of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyscope.events.supervision import CHILD
from pyscope.findings import SupervisorEvent

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["find"]


def find(trace: Trace) -> list[SupervisorEvent]:
    """What happened to the children of watched supervisors, and to threads, tasks and processes without one."""
    return [
        SupervisorEvent(
            kind=row.kind,
            supervisor=row.supervisor,
            child=row.child,
            reason=row.reason,
            restart_count=row.restart_count,
            time_ns=row.time_ns,
            pid=row.pid,
            stack=row.stack,
        )
        for row in trace.probe_events(CHILD).records()
    ]
