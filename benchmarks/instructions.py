"""Instructions counted by callgrind: of an event, and of TaskFlow's requests.

They repeat to 2 in 1,000 where CPU time varies by 10 %, within one process: from one to the next, addresses differ,
and with them the collisions in the interpreter's caches, by 1 %. A clock reading counts as one instruction but takes
the time of forty. TaskFlow's threads would hand over by time, and the count differ by 5 %: here a thread keeps the
interpreter until it waits. Of TaskFlow only the main thread is told, since threads that wake by the clock do so fifty
times as often for each request as without callgrind.
`python -m benchmarks.instructions WORK SIZE WARMING SWITCH VARIANT …` is the program that is counted.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks import call_tree, draining, variants, worker
from benchmarks.estimator import BASELINE
from benchmarks.variants import EMPTY
from benchmarks.workload import InProcessWorkload

RECORDED: Final = "everything, "  # then the backend's name
BOUGHS: Final = 100  # of a call tree that is counted
WARMING_BOUGHS: Final = 20
WARMING_PAIRS: Final = 20  # of requests, after each switch: until bytecode is specialised again
RING_MB: Final = 16
SOURCE: Final = Path(__file__).with_name("callgrind_switch.c")
HEADER: Final = Path("/usr/include/valgrind/callgrind.h")
OUTPUT: Final = "callgrind.out"
MAIN_THREAD: Final = re.compile(r"\.(\d+)-01$")
Work = Callable[[int], object]


def available() -> bool:
    """Whether there are valgrind, its header and a C compiler."""
    return shutil.which("valgrind") is not None and HEADER.exists() and _compiler() is not None


def of_an_event(*, backends: list[str]) -> dict[str, dict[str, float]]:
    """Instructions an event by backend: of the calling thread untraced, under an empty hook, recorded; of the drain."""
    events = 2 * call_tree.CALLS_A_BOUGH * BOUGHS
    names = [BASELINE, *(f"{kind}{backend}" for backend in backends for kind in (EMPTY, RECORDED))]
    with _callgrind("tree", BOUGHS, WARMING_BOUGHS) as count, ThreadPoolExecutor(os.cpu_count()) as pool:
        # as many programs at a time as there are cores: what they count is their own
        folders = dict(zip(names, pool.map(lambda name: count([name]), names), strict=True))
        totals = {name: _threads(folder) for name, folder in folders.items()}
    return {
        backend: {
            BASELINE: totals[BASELINE][0] / events,
            "empty": totals[f"{EMPTY}{backend}"][0] / events,
            "recorded": totals[f"{RECORDED}{backend}"][0] / events,
            "drain": sum(totals[f"{RECORDED}{backend}"][1:]) / events,
        }
        for backend in backends
    }


def of_requests(*, names: Sequence[str], pairs: int) -> list[float]:
    """Instructions of TaskFlow's main thread for a pair of requests under each variant in turn, in one process."""
    with _callgrind("requests", pairs, WARMING_PAIRS) as count:
        return [total / pairs for total in _parts(count(names))]


@contextmanager
def _callgrind(work: str, size: int, warming: int) -> Iterator[Callable[[Sequence[str]], Path]]:
    """A function that counts a program of some variants, and returns the folder with what callgrind wrote."""
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as top:
        switch = Path(top) / "callgrind_switch.so"
        subprocess.run(
            [str(_compiler()), "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(switch)], check=True
        )

        def count(names: Sequence[str]) -> Path:
            folder = Path(tempfile.mkdtemp(dir=top))
            subprocess.run(
                [
                    "setarch", platform.machine(), "--addr-no-randomize",
                    "valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes",
                    f"--callgrind-out-file={folder / OUTPUT}",
                    sys.executable, "-m", "benchmarks.instructions",
                    work, str(size), str(warming), str(switch), *names,
                ],
                cwd=worker.ROOT,
                env=worker.quiet_environment() | {"PYTHONMALLOC": "malloc", "PYSCOPE_RING_MB": str(RING_MB)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=True,
            )  # fmt: skip
            return folder

        yield count


def _compiler() -> str | None:
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")


def _threads(folder: Path) -> list[int]:
    """The totals of a program's threads, the main thread's first."""
    return [_total(path) for path in sorted(folder.glob(f"{OUTPUT}-*"))]


def _parts(folder: Path) -> list[int]:
    """The main thread's totals of one part of a program after another."""
    found = {int(match[1]): path for path in folder.iterdir() if (match := MAIN_THREAD.search(path.name))}
    return [_total(found[part]) for part in sorted(found)]


def _total(path: Path) -> int:
    with path.open() as lines:
        for line in lines:
            if line.startswith("totals:"):
                return int(line.split()[1])
    raise RuntimeError(f"callgrind left no total in {os.fspath(path)}")


def main() -> None:
    """The program that is counted: every variant in turn, in this process."""
    name, size, warming, library, *names = sys.argv[1:]
    switch = ctypes.PyDLL(library)
    sys.setswitchinterval(3600)
    with WORKS[name]() as work:
        work(int(warming))
        for variant in names:
            off = variants.switch(variant)()
            work(int(warming))
            draining.catch_up()
            gc.collect()
            switch.begin()
            work(int(size))
            draining.catch_up()
            switch.end(variant.encode() if len(names) > 1 else None)
            off()


@contextmanager
def _tree() -> Iterator[Work]:
    yield lambda boughs: call_tree.grow(boughs * call_tree.CALLS_A_BOUGH)


@contextmanager
def _requests() -> Iterator[Work]:
    with (
        tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder,
        InProcessWorkload(Path(folder)) as workload,
    ):
        yield workload.request_pairs


WORKS: Final = {"tree": _tree, "requests": _requests}

if __name__ == "__main__":
    main()
