"""Restart intensity: how many restarts within how many seconds a supervisor takes before it gives up."""

from collections import deque
from collections.abc import Callable


class RestartIntensity:
    """Counts the restarts of one supervisor, over all of its children, in a sliding window.

    Up to `max_restarts` within `max_seconds` are allowed, a restart exactly `max_seconds` ago still
    counting. `clock` gives monotonic seconds.
    """

    def __init__(self, max_restarts: int, max_seconds: float, clock: Callable[[], float]) -> None:
        if max_restarts < 0:
            raise ValueError("max_restarts is 0 or more")
        if max_seconds <= 0:
            raise ValueError("max_seconds is more than 0")
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self._clock = clock
        self._restarts: deque[float] = deque()

    def add(self) -> int:
        """Count one restart, now; returns how many the window holds with it."""
        now = self._clock()
        self._restarts.append(now)
        while self._restarts[0] < now - self.max_seconds:
            self._restarts.popleft()
        return len(self._restarts)
