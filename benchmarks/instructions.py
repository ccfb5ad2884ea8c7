"""Instructions an event, counted by callgrind: runs of N and N + 5 slices, and the difference.

`python -m benchmarks.instructions BACKEND MODE SLICES` is the program that is counted. A clock reading counts
as one instruction but takes the time of forty.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks import call_tree, worker

SLICES: Final = 5
CALLS_A_SLICE: Final = 20 * call_tree.CALLS_A_BOUGH
MODES: Final = ("bare", "empty", "recorded")


def count(*, backend: str) -> dict[str, float]:
    """Instructions an event of the calling thread in each mode, and of the drain thread ("drain")."""
    result: dict[str, float] = {}
    events = 2 * CALLS_A_SLICE * SLICES
    for mode in MODES:
        few, many = (_totals(backend, mode, slices) for slices in (SLICES, 2 * SLICES))
        result[mode] = (many[0] - few[0]) / events
        if mode == "recorded":
            result["drain"] = (sum(many[1:]) - sum(few[1:])) / events
    return result


def available() -> bool:
    """Whether valgrind is there."""
    return shutil.which("valgrind") is not None


def _totals(backend: str, mode: str, slices: int) -> list[int]:
    """Instructions of each thread, the main thread first."""
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder:
        output = Path(folder) / "callgrind.out"
        subprocess.run(
            [
                "valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={output}",
                sys.executable, "-m", "benchmarks.instructions", backend, mode, str(slices),
            ],
            cwd=worker.ROOT,
            env=worker.quiet_environment() | {"PYTHONMALLOC": "malloc"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )  # fmt: skip
        return [_total(path) for path in sorted(Path(folder).glob("callgrind.out-*"))]


def _total(path: Path) -> int:
    with path.open() as lines:
        for line in lines:
            if line.startswith(("totals:", "summary:")):
                return int(line.split()[1])
    raise RuntimeError(f"callgrind left no total in {os.fspath(path)}")


def main() -> None:
    """The program that is counted."""
    backend, mode, slices = sys.argv[1], sys.argv[2], int(sys.argv[3])
    call_tree.grow(CALLS_A_SLICE)
    if mode == "bare":
        call_tree.grow(CALLS_A_SLICE * slices)
    elif mode == "empty":
        from pyscope import _hook

        _hook.install_empty(backend)
        call_tree.grow(CALLS_A_SLICE * slices)
        _hook.remove_empty(backend)
    else:
        import pyscope

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.pyscope"
            with pyscope.record(path, modules=["*"], backend=backend, children=False, ring_mb=16):
                call_tree.grow(CALLS_A_SLICE * slices)


if __name__ == "__main__":
    main()
