"""What is known of a function while it is quiet: an estimate of its calls, from windows in which it was recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["Estimate", "Quieting"]

# Of Student's distribution, two-sided 95 %, by degrees of freedom from 1.
_STUDENT: Final = (12.7, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18)
_MANY: Final = 2.0
COST_ERROR: Final = 0.15
ENOUGH_WINDOWS: Final = 5  # then what was seen before the function was quieted no longer counts


class Estimate(NamedTuple):
    """Calls that were not recorded: a number and its 95 % interval."""

    calls: int
    low: int
    high: int


@dataclass(slots=True)
class _Windows:
    """Sums over windows, of durations in seconds and calls: all that a ratio estimator and its error need."""

    number: int = 0
    seconds: float = 0.0
    calls: float = 0.0
    seconds_squared: float = 0.0
    calls_squared: float = 0.0
    products: float = 0.0

    def add(self, seconds: float, calls: float) -> None:
        self.number += 1
        self.seconds += seconds
        self.calls += calls
        self.seconds_squared += seconds * seconds
        self.calls_squared += calls * calls
        self.products += seconds * calls

    def rate(self) -> tuple[float, float]:
        """Calls a second, and half its interval's width: by how the windows differ, at least by chance (Poisson)."""
        rate = self.calls / self.seconds
        if self.number < 2:
            return rate, max(rate, 3 / self.seconds)  # of no call in a window, up to three are likely enough
        residuals = self.calls_squared - 2 * rate * self.products + rate * rate * self.seconds_squared
        freedom = self.number - 1
        spread = math.sqrt(max(0.0, residuals) * self.number / freedom) / self.seconds
        student = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _MANY
        return rate, max(student * spread, _MANY * math.sqrt(self.calls + 1) / self.seconds)


@dataclass(slots=True)
class Quieting:
    """One function (`code`; 0 is all of them) that is not recorded, but for windows, since `since_ns`.

    `first_ticks`: the same moment by the recording's clock; `since_work`: by the program's own CPU time. Rates are in
    terms of that: the program is slower in a window, and may be waiting for its turn. `work_before` and `calls_before`:
    how much it was called for how long just before.
    """

    number: int
    code: int
    since_ns: int
    first_ticks: int
    since_work: float
    work_before: float
    calls_before: int
    events_a_second: float
    sampled_ns: int = 0
    windows: int = 0
    work_in_windows: float = 0.0
    cost_in_windows: float = 0.0
    _seen: _Windows = field(default_factory=_Windows)

    def sampled(self, work: float, cost: float, calls: int, events: float, now_ns: int) -> None:
        """Takes a window's count. `work`: CPU ns of the program itself; `cost`: the recorder's, estimated."""
        seconds = max(work, 1.0) / 1e9
        self.windows += 1
        self.work_in_windows += work
        self.cost_in_windows += cost
        self.sampled_ns = now_ns
        self._seen.add(seconds, calls)
        # The present counts more than the past: this decides whether it may be armed again.
        weight = max(0.2, 1 / self.windows)
        self.events_a_second += weight * (events / seconds - self.events_a_second)

    def estimate(self, work: float) -> Estimate:
        """The calls that were not recorded until the program had used so much CPU time."""
        quiet = max(0.0, work - self.since_work - self.work_in_windows) / 1e9
        windows = self._seen
        if windows.number < ENOUGH_WINDOWS and self.work_before > 0:
            windows = _Windows(*(getattr(windows, name) for name in _Windows.__slots__))
            windows.add(self.work_before / 1e9, self.calls_before)
        if not windows.seconds:
            return Estimate(0, 0, 0)
        rate, half = windows.rate()
        # What an event costs is not known better than that, and the program's part is what it leaves.
        half += rate * COST_ERROR * self.cost_in_windows / max(self.work_in_windows, 1.0)
        return Estimate(
            round(rate * quiet), round(max(0.0, rate - half) * quiet), math.ceil((rate + half) * quiet)
        )
