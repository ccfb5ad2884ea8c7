"""What probes do at each step of an event loop: compiled with the native recorder, in Python where none is built."""

from __future__ import annotations

from typing import Any

from pyscope import backends
from pyscope.fallback import steps as in_python

__all__ = ["Entered", "LateLoops", "LoopTimes", "Steps", "entered", "watched_select"]

_compiled: Any = backends.native() or in_python

Steps: Any = _compiled.Steps
Entered: Any = _compiled.Entered
entered: Any = _compiled.entered
LoopTimes: Any = _compiled.LoopTimes
LateLoops: Any = _compiled.LateLoops
watched_select: Any = _compiled.watched_select
