"""Instructions counted by callgrind: runs of N and N + 5 slices, and the difference.

They repeat to 1 in 10,000 where CPU time varies by 10 %. A clock reading counts as one instruction but
takes the time of forty. TaskFlow itself is not counted: its threads hand over by time, and the control
differs by 5 %.
`python -m benchmarks.instructions VARIANT SLICES` is the program that is counted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from benchmarks import call_tree, variants, worker
from benchmarks.estimator import BASELINE
from benchmarks.variants import EMPTY

RECORDED: Final = "everything, "  # then the backend's name
FEW: Final = 2
SLICES: Final = 5
CALLS_A_SLICE: Final = 20 * call_tree.CALLS_A_BOUGH
RING_MB: Final = 16  # its allocation is counted in both runs


def of_an_event(*, backends: list[str]) -> dict[str, dict[str, float]]:
    """Instructions an event by backend: of the calling thread untraced, under an empty hook, recorded; of the drain.

    As many programs are counted at a time as there are cores: what they count is their own.
    """
    events = 2 * CALLS_A_SLICE * SLICES
    names = [BASELINE, *(f"{kind}{backend}" for backend in backends for kind in (EMPTY, RECORDED))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        totals = {(n, k): pool.submit(_totals, n, k) for n in names for k in (FEW, FEW + SLICES)}
        main, others = {}, {}
        for name in names:
            few, many = (totals[name, slices].result() for slices in (FEW, FEW + SLICES))
            main[name] = (many[0] - few[0]) / events
            others[name] = (sum(many[1:]) - sum(few[1:])) / events
    return {
        backend: {
            BASELINE: main[BASELINE],
            "empty": main[f"{EMPTY}{backend}"],
            "recorded": main[f"{RECORDED}{backend}"],
            "drain": others[f"{RECORDED}{backend}"],
        }
        for backend in backends
    }


def available() -> bool:
    """Whether valgrind is there."""
    return shutil.which("valgrind") is not None


def _totals(variant: str, slices: int) -> list[int]:
    """Instructions of each thread, the main thread first."""
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder:
        output = Path(folder) / "callgrind.out"
        subprocess.run(
            [
                "valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={output}",
                sys.executable, "-m", "benchmarks.instructions", variant, str(slices),
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
    variant, slices = sys.argv[1], int(sys.argv[2])
    os.environ["PYSCOPE_RING_MB"] = str(RING_MB)
    call_tree.grow(CALLS_A_SLICE)
    off = variants.switch(variant)()
    call_tree.grow(CALLS_A_SLICE * slices)
    off()


if __name__ == "__main__":
    main()
