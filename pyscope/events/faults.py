"""What PyScope tells of its own failures."""

from __future__ import annotations

from pyscope.events import EventType

__all__ = ["PART_OFF"]

# A part of PyScope has failed so often that it took itself out. part: "recorder", or "probe" and its name.
PART_OFF = EventType(140, "part_off", "faults part:string detail:text")
