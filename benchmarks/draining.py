"""The recorder's drain thread works behind the program: what it still has to do for a block is measured after it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

NAME: Final = "pyscope-drain"
CYCLE_SECONDS: Final = 0.1  # native/drain.cpp: how often it looks for full pages, unless the ring fills
PATIENCE_SECONDS: Final = 1.5 * CYCLE_SECONDS


def settle() -> None:
    """Let the drain thread of this process, if any, catch up with what was recorded."""
    time.sleep(PATIENCE_SECONDS)


def rest_ns() -> int:
    """CPU time in ns that the drain thread needs to catch up; 0, at once, where there is none.

    Other threads' work meanwhile is not counted.
    """
    clock = _clock()
    if clock is None:
        return 0
    began = time.clock_gettime_ns(clock)
    settle()
    return time.clock_gettime_ns(clock) - began


def _clock() -> int | None:
    """The drain thread's CPU clock (clock_getcpuclockid(3): a thread's is the complement of its id, and 6)."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # threads end meanwhile
            if (task / "comm").read_text().strip() == NAME:
                return (~int(task.name) << 3) | 6
    return None
