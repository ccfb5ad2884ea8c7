"""Pauses of the garbage collector, and of event loops."""

from __future__ import annotations

from pyscope.events import EventType

__all__ = ["GC_PAUSE", "LOOP_BLOCKED", "LOOP_LAG"]

# Of collections of the oldest generation, and of others that took long. stack: what allocated meanwhile.
GC_PAUSE = EventType(130, "gc_pause", "duration_ns generation collected uncollectable stack:stack")
# An event loop did not look at its events for so long: callbacks ran. loop: numbers the loop.
LOOP_LAG = EventType(131, "loop_lag", "loop lag_ns")
# One callback (a task's step) ran for so long without giving the loop its turn. stack: where it was seen to
# be, taken from another thread. samples: how often it was seen there. task: its name, empty for a plain callback.
LOOP_BLOCKED = EventType(132, "loop_blocked", "loop duration_ns samples stack:stack task:text")
