"""The overview's figures: what the processes use together."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any, cast

from pyscope.live.follow import FollowedProcess
from pyscope.live.meter import Meter

MB = 1_000_000


def _followed(pid: int) -> FollowedProcess:
    info = SimpleNamespace(pid=pid)
    record = SimpleNamespace(info=info, alive=True, meta=None, summary=None)
    return cast(FollowedProcess, SimpleNamespace(record=record, figures=None))


def test_peak_memory_is_that_of_all_processes_together() -> None:
    program = "import time; kept = bytearray(60_000_000); print(flush=True); time.sleep(100)"
    children = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(2)]
    meter = Meter()
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        processes = [_followed(child.pid) for child in children]
        both: dict[str, Any] = meter.sample(time.time_ns(), processes)
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert both["memory_bytes"] > 120 * MB
    assert both["peak_memory_bytes"] >= both["memory_bytes"]
    cast(Any, processes[0].record).alive = cast(Any, processes[1].record).alive = False
    after = meter.sample(time.time_ns(), processes)
    assert (after["memory_bytes"], after["peak_memory_bytes"]) == (None, both["peak_memory_bytes"])
