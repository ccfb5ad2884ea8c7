"""What reading costs: decoding and pairing against a naive loop; from a recording to its report."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import pyscope
from benchmarks import call_tree, worker
from benchmarks.estimator import run_rounds
from benchmarks.workload import InProcessWorkload
from pyscope.format import Kind

NAIVE_SOURCE: Final = Path(__file__).with_name("naive_loop.cpp")
NAIVE_FLAGS: Final = ("-O3", "-march=native", "-std=c++20")
BEGINS: Final = (Kind.CALL, Kind.GEN_START, Kind.GEN_RESUME, Kind.GEN_THROW, Kind.C_CALL)
ENDS: Final = (
    Kind.RETURN, Kind.RAISE, Kind.GEN_YIELD, Kind.GEN_RETURN, Kind.GEN_RAISE, Kind.C_RETURN, Kind.C_RAISE
)  # fmt: skip
RING_MB: Final = 256  # the program makes 30 million events a second; nothing is to be dropped


def record_tree(path: Path, calls: int) -> int:
    """Record a program of at least `calls` calls; returns the events. RuntimeError if some were lost."""
    with pyscope.record(path, modules=["benchmarks.call_tree"], ring_mb=RING_MB, children=False) as recording:
        made = call_tree.grow(calls)
    figures = recording.figures
    if figures["dropped"] or figures["events"] < 2 * made:
        raise RuntimeError(f"{figures['events']} of {2 * made} events were recorded")
    return int(figures["events"])


def record_service(path: Path, pairs: int) -> int:
    """Record every Python call of `pairs` pairs of TaskFlow requests; returns the events."""
    with InProcessWorkload(path.parent) as workload:
        workload.request_pairs(2)
        with pyscope.record(path, modules=["*"], ring_mb=RING_MB, children=False) as recording:
            workload.request_pairs(pairs)
    if recording.figures["dropped"]:
        raise RuntimeError(f"{recording.figures['dropped']} events were dropped")
    return int(recording.figures["events"])


def decoding(*, program: str, size: int, seed: int, until: float) -> list[dict[str, float]]:
    """Rounds of: the naive loops (twice), decode and pairing; in million events a second of CPU time.

    `program`: "tree", of `size` calls, or "service", of `size` pairs of requests. All read the same events.
    """
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder:
        directory = Path(folder)
        naive, words = directory / "naive_loop", directory / "words"
        compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or "c++"
        subprocess.run([compiler, *NAIVE_FLAGS, str(NAIVE_SOURCE), "-o", str(naive)], check=True)
        path = directory / "run.pyscope"
        events = record_tree(path, size) if program == "tree" else record_service(path, size)
        from pyscope import _codec

        trace: Any = pyscope.load(path)
        _words(trace.events).tofile(words)
        trace = pyscope.load(path)
        inputs = (trace._recording.buffers, trace._names.inputs, len(trace._names.functions))

        def naive_loops() -> dict[str, float]:
            output = subprocess.check_output([naive, words], stderr=subprocess.DEVNULL)
            names = ("naive decode", "naive pair", "cold decode", "cold pair")
            return dict(zip(names, map(float, output.split()), strict=True))

        def timed(name: str, work: Callable[[], object]) -> Callable[[], dict[str, float]]:
            def block() -> dict[str, float]:
                began = time.process_time()
                work()
                return {name: events / (time.process_time() - began) / 1e6}

            return block

        blocks = {
            "naive": naive_loops,
            "decode": timed("decode", lambda: _codec.decode_events(*inputs, workers=1)),
            "pair": timed("pair", lambda: _codec.pair_calls(*inputs)),
        }
        return run_rounds(blocks, seed=seed, baseline="naive", until=until)


def _words(events: Any) -> NDArray[np.uint64]:
    """The events as the naive loop reads them."""
    kind = events["kind"]
    begins = np.isin(kind, BEGINS)
    plain = np.where(begins, 1, np.where(np.isin(kind, ENDS), 2, 31)).astype(np.uint64)
    since = (events["time_ns"] - events["time_ns"].min()).astype(np.uint64)
    return since << np.uint64(28) | events["code"].astype(np.uint64) << np.uint64(5) | plain


def _crowding() -> float:
    """Wall over CPU time of a busy loop: 1 on a machine that has a core to spare."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 0.3:
        pass
    return (time.perf_counter() - wall) / (time.process_time() - cpu)


def reports(*, calls: int, rounds: int) -> list[dict[str, float]]:
    """Rounds of `pyscope report` on `calls` calls: seconds on the wall, peak memory of the child in GB."""
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder:
        path = Path(folder) / "tree.pyscope"
        events = record_tree(path, calls)
        result = []
        for _ in range(rounds):
            crowding = _crowding()
            began = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "pyscope", "report", str(path)],
                cwd=worker.ROOT,
                env=worker.quiet_environment(),
                stdout=subprocess.DEVNULL,
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise RuntimeError(f"pyscope report ended with status {process.returncode}")
            row = {
                "crowding": crowding,
                "seconds": seconds,
                "gigabytes": usage.ru_maxrss * 1024 / 1e9,
                "calls": events / 2,
            }
            row["CPU seconds"] = usage.ru_utime + usage.ru_stime
            result.append(row)
        return result
