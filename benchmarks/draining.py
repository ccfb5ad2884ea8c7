"""The recorder's drain thread works behind the program: what it still has to do for a block is counted with it."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Final

NAME: Final = "pyscope-drain"


def catch_up() -> int:
    """Wait until the drain thread of this process has written what is full; CPU time in ns that it took for that.

    Other threads' work meanwhile is not counted. 0, at once, where there is no such thread.
    """
    hook = sys.modules.get("pyscope._hook")
    if hook is None:
        return 0
    clock = _clock()
    began = 0 if clock is None else time.clock_gettime_ns(clock)
    hook.catch_up()
    clock = clock or _clock()  # a thread that was made just before has its name only now
    return 0 if clock is None else time.clock_gettime_ns(clock) - began


def _clock() -> int | None:
    """The drain thread's CPU clock (clock_getcpuclockid(3): a thread's is the complement of its id, and 6)."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # threads end meanwhile
            if (task / "comm").read_text().strip() == NAME:
                return (~int(task.name) << 3) | 6
    return None
