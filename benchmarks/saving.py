"""Saving, loading and reporting the same calls by PyScope and by VizTracer; each round has processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyscope
from benchmarks import call_tree, worker
from benchmarks.estimator import run_rounds
from benchmarks.peers import VIZTRACER

PYSCOPE: Final = "PyScope"
TOOLS: Final = (PYSCOPE, VIZTRACER)
RING_MB: Final = 64
SPARE_ENTRIES: Final = 10_000


def rounds(
    *, executable: str, tools: list[str], calls: int, seed: int, until: float
) -> list[dict[str, float]]:
    """Rounds of every tool: seconds to save, load and report, bytes a call on disk; keys are "tool: what"."""

    def block(tool: str) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            found = worker.run(executable, "benchmarks.saving:one", tool=tool, calls=calls)
            return {f"{tool}: {what}": value for what, value in found.items()}

        return run

    return run_rounds({tool: block(tool) for tool in tools}, seed=seed, baseline=None, until=until)


def one(*, tool: str, calls: int) -> dict[str, float]:
    """One recording of at least `calls` calls, saved, loaded and reported."""
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder:
        return {PYSCOPE: _pyscope, VIZTRACER: _viztracer}[tool](Path(folder), calls)


def _pyscope(folder: Path, calls: int) -> dict[str, float]:
    path = folder / "tree.pyscope"
    # All of it fits the ring's pages or the file: nothing is dropped, and the stop writes what is left.
    pyscope.start(path, modules=["benchmarks.call_tree"], ring_mb=RING_MB, children=False)
    made = call_tree.grow(calls)
    save = _seconds(pyscope.stop)
    found: list[int] = []

    def load() -> None:
        trace: Any = pyscope.load(path)
        found.append(len(trace.calls["duration_ns"]))

    loading = _seconds(load)
    if found[0] < made:
        raise RuntimeError(f"{found[0]} of {made} calls were loaded")
    command = [sys.executable, "-m", "pyscope", "report", str(path)]
    environment = worker.quiet_environment()
    report = _seconds(
        lambda: subprocess.run(
            command, cwd=worker.ROOT, env=environment, stdout=subprocess.DEVNULL, check=True
        )
    )
    return {"save": save, "load": loading, "report": report, "bytes": path.stat().st_size / made}


def _viztracer(folder: Path, calls: int) -> dict[str, float]:
    from viztracer import VizTracer

    path, page = folder / "tree.json", folder / "tree.html"
    most = calls + call_tree.CALLS_A_BOUGH + SPARE_ENTRIES
    tracer = VizTracer(verbose=0, tracer_entries=most)
    tracer.start()
    made = call_tree.grow(calls)

    def to_file() -> None:
        tracer.stop()
        tracer.save(output_file=str(path))

    save = _seconds(to_file)
    report = _seconds(lambda: tracer.save(output_file=str(page)))  # its report is a page that holds the trace
    tracer.clear()
    loaded: list[int] = []

    def load() -> None:
        with path.open() as text:
            events = json.load(text)["traceEvents"]
        loaded.append(sum(event["ph"] == "X" for event in events))

    loading = _seconds(load)
    tracer.terminate()
    if loaded[0] < made:
        raise RuntimeError(f"{loaded[0]} of {made} calls were loaded")
    return {"save": save, "load": loading, "report": report, "bytes": path.stat().st_size / made}


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
