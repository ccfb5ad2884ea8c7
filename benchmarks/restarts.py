"""Ten thousand recordings in one process: `python -m benchmarks.restarts [TIMES]`.

Handles, threads, mappings and memory after them must be those after the first hundred. Every interpreter's default
backend and the others in turn.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Final

import psutil

import pyscope
from pyscope import backends

TIMES: Final = 10_000
WARM: Final = 100
ALLOWED_KIB: Final = 8192


def leaf() -> None:
    """What is recorded."""


def cycle(path: str, backend: str) -> None:
    """One recording, with a thread that ends in it."""
    with pyscope.record(path, modules=[__name__], backend=backend, ring_mb=1, children=False):
        for _ in range(20):
            leaf()
        thread = threading.Thread(target=leaf)
        thread.start()
        thread.join()


def main(arguments: Sequence[str]) -> int:
    """Prints what has grown; the exit code is 1 if anything has."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restarts", description=main.__doc__)
    parser.add_argument("times", type=int, nargs="?", default=TIMES, help="recordings (%(default)s)")
    times = parser.parse_args(arguments).times
    names = [c.name for c in backends.backend_report() if c.available and c.name != "python"]
    me = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.pyscope")

        def look() -> tuple[int, int, int, int]:
            return (
                me.num_fds(),
                me.num_threads(),
                len(me.memory_maps(grouped=False)),
                me.memory_info().rss >> 10,
            )

        for number in range(WARM):
            cycle(path, names[number % len(names)])
        before, began = look(), time.perf_counter()
        for number in range(times - WARM):
            cycle(path, names[number % len(names)])
        after, took = look(), time.perf_counter() - began
        calls = len(pyscope.load(path).find(function="leaf"))
    print(f"{times} recordings by {', '.join(names)}, {took / (times - WARM) * 1e3:.2f} ms each")
    for name, one, other in zip(("handles", "threads", "mappings", "memory KiB"), before, after, strict=True):
        print(f"{name:<11}{one:>10}{other:>10}")
    flat = before[:2] == after[:2] and after[2] - before[2] < 30 and after[3] - before[3] < ALLOWED_KIB
    print("flat" if flat else "GROWN")
    return 0 if flat and calls == 21 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
