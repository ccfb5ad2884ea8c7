"""What tracing costs TaskFlow: CPU time of the process for each pair of requests, variants interleaved.

`in_process` behind an ASGI transport, `served` over HTTP to a uvicorn process, `synchronous` by TaskFlow's
data layer alone on one thread, `installed` in a process for each block, because an import cannot be undone.
Values are CPU seconds a pair, the drain thread's included.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from benchmarks import variants, worker
from benchmarks.controlled import ControlledServer
from benchmarks.estimator import BASELINE, run_rounds
from benchmarks.served import Meter
from benchmarks.workload import InProcessWorkload, SynchronousWorkload

WARMING_PAIRS: Final = 6
"""After each switch. To start a recorder fills its 62 MiB of ring, and with them all caches; code objects are resolved
and bytecode is specialised again. With one pair to warm up, a tenth of the next pairs' time was still that."""
FIRST_PAIRS: Final = 5  # before the first round
FIGURES: Final = ("events", "dropped", "bytes", "stopped by itself")
Rounds = list[dict[str, float]]


class Switches(Protocol):
    """Turns variants on and off, here or in a server."""

    def on(self, name: str) -> None:
        """Turn the variant on."""

    def mark(self) -> None:
        """Begin to measure."""

    def off(self) -> dict[str, float]:
        """CPU seconds since the mark, and the variant's own figures."""


def in_process(
    *, names: Sequence[str], seed: int, until: float, pairs: int, block_seconds: float = 0.0
) -> Rounds:
    """Rounds of the variants in this process; a block is `pairs` pairs, or as many as `block_seconds` hold."""
    with (
        tempfile.TemporaryDirectory(prefix="pyscope-bench-") as directory,
        InProcessWorkload(Path(directory)) as workload,
    ):
        workload.request_pairs(FIRST_PAIRS)
        return _rounds(names, seed, until, Meter(), workload.request_pairs, pairs, block_seconds)


def synchronous(
    *, names: Sequence[str], seed: int, until: float, pairs: int, block_seconds: float = 0.0
) -> Rounds:
    """The same statements without web, event loop and greenlets."""
    with (
        tempfile.TemporaryDirectory(prefix="pyscope-bench-") as directory,
        SynchronousWorkload(Path(directory)) as workload,
    ):
        workload.request_pairs(FIRST_PAIRS)
        return _rounds(names, seed, until, Meter(), workload.request_pairs, pairs, block_seconds)


def served(
    *,
    names: Sequence[str],
    seed: int,
    until: float,
    pairs: int,
    block_seconds: float = 0.0,
    settling_seconds: float = 0.0,
) -> Rounds:
    """The same against a server process; only its own CPU time counts. A block begins after `settling_seconds`."""
    with (
        tempfile.TemporaryDirectory(prefix="pyscope-bench-") as directory,
        ControlledServer(Path(directory)) as server,
    ):
        work = server.workload.run_slice
        work(FIRST_PAIRS)
        return _rounds(names, seed, until, server, work, pairs, block_seconds, settling_seconds)


def _rounds(
    names: Sequence[str],
    seed: int,
    until: float,
    switches: Switches,
    work: Callable[[int], object],
    pairs: int,
    block_seconds: float,
    settling_seconds: float = 0.0,
) -> Rounds:
    def block(name: str) -> dict[str, float]:
        switches.on(name)
        settled = time.perf_counter() + settling_seconds
        work(WARMING_PAIRS)
        while time.perf_counter() < settled:
            work(1)
        switches.mark()
        done, began = 0, time.perf_counter()
        while done < pairs or time.perf_counter() - began < block_seconds:
            work(1)
            done += 1
        figures = switches.off()
        return {name: figures["cpu_seconds"] / done} | own_figures(name, figures)

    return interleaved(block, names, seed, until)


def interleaved(
    block: Callable[[str], dict[str, float]], names: Sequence[str], seed: int, until: float
) -> Rounds:
    """Rounds of `block` for the baseline, its control, and those of `names` that this interpreter can run."""
    plan = {name: (lambda name=name: block(name)) for name in (BASELINE, *filter(variants.available, names))}
    found = run_rounds(plan, seed=seed, until=until)
    return [{name.replace(f"control {BASELINE}", "control"): v for name, v in row.items()} for row in found]


def own_figures(name: str, figures: dict[str, float]) -> dict[str, float]:
    """What a variant says of itself, as values of a round."""
    return {f"{name}: {figure}": figures[figure] for figure in FIGURES if figure in figures}


# --- installed and off ---------------------------------------------------------------------------


def installed(*, executable: str, seed: int, until: float, pairs: int) -> Rounds:
    """Rounds of: pyscope not importable (twice), imported and never started, started and stopped before."""
    states = {BASELINE: "absent", "installed": "imported", "stopped": "stopped"}

    def block(state: str) -> Callable[[], float]:
        function = "benchmarks.service:one_process"
        return lambda: float(worker.run(executable, function, state=state, pairs=pairs))

    return run_rounds({name: block(state) for name, state in states.items()}, seed=seed, until=until)


def one_process(*, state: str, pairs: int) -> float:
    """CPU seconds a pair: the median over `pairs` pairs in this process."""
    if state == "absent":
        sys.modules["pyscope"] = None  # type: ignore[assignment]
    else:
        import pyscope
    with (
        tempfile.TemporaryDirectory(prefix="pyscope-bench-") as directory,
        InProcessWorkload(Path(directory)) as workload,
    ):
        if state == "stopped":
            pyscope.start(Path(directory) / "run.pyscope", modules=["*"], children=False)
            workload.request_pairs(1)
            pyscope.stop()
        workload.request_pairs(FIRST_PAIRS)
        return sorted(_costs(workload, pairs))[pairs // 2]


def _costs(workload: InProcessWorkload, pairs: int) -> Iterator[float]:
    for _ in range(pairs):
        began = time.process_time_ns()
        workload.request_pair()
        yield (time.process_time_ns() - began) / 1e9
