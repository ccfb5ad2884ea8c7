"""What one event costs: tight loops under an empty hook and under the recorder, in the same rounds."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

import pyscope
from benchmarks import draining
from benchmarks.estimator import run_rounds

PARTS: Final = 5  # of a block, whose median counts
EVENTS_A_TURN: Final = 2  # call and return, resume and yield, C call and C return


def _callee() -> None:
    return None


def _calls(turns: int) -> None:
    for _ in range(turns):
        _callee()


def _numbers(turns: int) -> Generator[int]:
    for i in range(turns):  # noqa: UP028  a loop of our own, so that every value resumes this frame
        yield i


def _resumes(turns: int) -> None:
    for _ in _numbers(turns):
        pass


def _c_calls(turns: int) -> None:
    function = abs
    for _ in range(turns):
        function(1)


SHAPES: Final[dict[str, Callable[[int], None]]] = {
    "calls": _calls, "generator resumes": _resumes, "C calls": _c_calls
}  # fmt: skip


def samples(*, backend: str, shape: str, turns: int, seed: int, until: float) -> list[dict[str, float]]:
    """Rounds of: no hook, an empty hook (twice), the recorder; values in ns an event.

    "recorded" is the CPU time of the thread that runs the loop, "recorded, drain included" that of the whole
    process; "clock" is one clock reading.
    """
    from pyscope import _hook

    loop = SHAPES[shape]
    loop(turns)

    def timed() -> dict[str, float]:
        draining.catch_up()
        process = time.process_time_ns()
        threads = []
        for _ in range(PARTS):
            began = time.thread_time_ns()
            loop(turns // PARTS)
            threads.append(time.thread_time_ns() - began)
        whole = time.process_time_ns() - process
        whole += draining.catch_up()
        events = turns * EVENTS_A_TURN
        thread = statistics.median(threads) * PARTS
        return {"thread": thread / events, "process": whole / events}

    def bare() -> dict[str, float]:
        return {"bare": timed()["thread"]}

    def empty() -> dict[str, float]:
        _hook.install_empty(backend)
        try:
            loop(turns // 20)
            measured = timed()
        finally:
            _hook.remove_empty(backend)
        return {"empty": measured["thread"], "empty, process": measured["process"]}

    def recorded() -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as directory:
            arguments: dict[str, Any] = {"modules": ["*"], "backend": backend, "children": False}
            if shape == "C calls":
                arguments["detail"] = "c_calls"
            recording = pyscope.start(Path(directory) / "run.pyscope", **arguments)
            loop(turns // 20)
            measured = timed()
            pyscope.stop()
        figures = recording.figures
        if figures["dropped"] or figures["events"] < turns * EVENTS_A_TURN:
            raise RuntimeError(f"{figures['events']} events were recorded, {figures['dropped']} dropped")
        return {"recorded": measured["thread"], "recorded, drain included": measured["process"]}

    def clock() -> dict[str, float]:
        return {"clock": _hook.clock()["read_ns"]}

    blocks = {"bare": bare, "empty": empty, "recorded": recorded, "clock": clock}
    return run_rounds(blocks, seed=seed, baseline="empty", until=until)
