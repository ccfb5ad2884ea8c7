"""Windows in which C calls are recorded, as many as their share of the budget allows.

What an armed window costs is measured as the program runs: the CPU time that it took, less what as many recorded events
took just before it. So the bound holds whatever the program does, and however long its code takes to be instrumented
anew.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pyscope.governor import Hook

__all__ = ["CCallWindows"]

OPEN_NS: Final = 50_000_000
SETTLING_NS: Final = 20_000_000  # afterwards code is instrumented anew: that belongs to the window's cost
FEW_EVENTS: Final = 200  # from fewer nothing can be told
# Of the CPU time of a window, as long as nothing is known or can be told.
ASSUMED_SHARE: Final = 0.5
LEAST_SHARE: Final = 0.05
MOST_SHARE: Final = 0.95


class CCallWindows:
    """Opens and closes windows. `share`: of the program's CPU time, what they may cost."""

    def __init__(self, native: Hook, share: float) -> None:
        self.is_open = False
        self._native = native
        self._share = share
        self._costs: deque[float] = deque(maxlen=5)
        self._due_cpu_ns = 0.0
        self._began: tuple[int, int, int] | None = None  # time, CPU time, events: since the window opened
        self._before: float | None = None  # CPU ns an event, outside
        self._last: tuple[int, int] | None = None  # CPU time, events: since the last look outside

    @property
    def measuring(self) -> bool:
        """Whether a window is open, or its after-effects are still being measured."""
        return self._began is not None

    def step(self, now_ns: int, cpu_ns: int, events: int, *, disturbed: bool) -> float:
        """Opens or closes as is due; called every few milliseconds. Returns the cost of a window just measured, in ns.

        `cpu_ns`: CPU time of the process, without the governor's; `events`: recorded so far; `disturbed`: whether
        something else changed what is recorded since the last step.
        """
        if self._began is None:
            self._look_outside(cpu_ns, events, disturbed)
            if cpu_ns >= self._due_cpu_ns:
                self._native.set_window(True)
                self.is_open = True
                self._began = (now_ns, cpu_ns, events)
            return 0.0
        opened, cpu_then, events_then = self._began
        if disturbed:
            self._before = None
        if self.is_open and now_ns - opened >= OPEN_NS:
            self._native.set_window(False)
            self.is_open = False
        if self.is_open or now_ns - opened < OPEN_NS + SETTLING_NS:
            return 0.0
        cost = self._cost(cpu_ns - cpu_then, events - events_then)
        self._costs.append(cost)
        self._due_cpu_ns = cpu_ns + statistics.median(self._costs) / self._share
        self._began = self._last = None
        return cost

    def _look_outside(self, cpu_ns: int, events: int, disturbed: bool) -> None:
        if disturbed or self._last is None:
            self._last = (cpu_ns, events)
            return
        cpu, seen = cpu_ns - self._last[0], events - self._last[1]
        if seen >= FEW_EVENTS:
            now = cpu / seen
            self._before = now if self._before is None else 0.7 * self._before + 0.3 * now
            self._last = (cpu_ns, events)

    def _cost(self, cpu: float, events: int) -> float:
        if self._before is None or events < FEW_EVENTS:
            return cpu * ASSUMED_SHARE
        return min(max(cpu - events * self._before, cpu * LEAST_SHARE), cpu * MOST_SHARE)
