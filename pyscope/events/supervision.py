"""What happened to children: of supervisors, and of programs that have none (threads, asyncio tasks, processes)."""

from __future__ import annotations

from pyscope.events import EventType

__all__ = ["CHILD", "KINDS"]

KINDS = ("child_started", "child_terminated", "child_restarted", "child_shutdown", "max_restarts_exceeded")

# restart_count: -1 unknown. pid: of a child process, 0 for others. kind: one of KINDS. supervisor: its name;
# "threading", "asyncio", "subprocess", "multiprocessing" or "interpreter" for children without one. stack: of
# a child's crash or of its start.
CHILD = EventType(
    60, "child", "restart_count pid kind:string supervisor:string child:string stack:stack reason:text"
)
