"""Pauses of the garbage collector, by `gc.callbacks`. Short collections of the young are left out."""

from __future__ import annotations

import gc
import time
from typing import Any

from pyscope import emitter
from pyscope.events.runtime_health import GC_PAUSE
from pyscope.probes import Probe

__all__ = ["GCProbe"]

SHORT_NS = 100_000
LONG_NS = 1_000_000
"""From here on the stack is worth taking."""


class GCProbe(Probe):
    """Tells of collections."""

    name = "gc"

    def __init__(self) -> None:
        super().__init__()
        self._start_ns = 0
        self._callback = self._collected  # one object, so that it can be recognised

    def install(self) -> None:
        gc.callbacks.append(self._callback)

    def uninstall(self) -> None:
        if self._callback in gc.callbacks:
            gc.callbacks.remove(self._callback)

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        # Only one thread collects at a time.
        try:
            if phase == "start":
                self._start_ns = time.perf_counter_ns()
                return
            start, self._start_ns = self._start_ns, 0
            duration = time.perf_counter_ns() - start
            generation = info.get("generation", 0)
            if start == 0 or (duration < SHORT_NS and generation < 2):
                return
            emitter.emit(
                GC_PAUSE.kind,
                duration,
                generation,
                info.get("collected", 0),
                info.get("uncollectable", 0),
                emitter.stack() if duration >= LONG_NS else 0,
            )
        except Exception:
            self.fault()
