"""How costs grow: with events, threads, tasks and code objects. Each point is measured in a process of its own."""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

import pyscope
from benchmarks import call_tree, worker
from benchmarks.estimator import LEAST_ROUNDS

THREADED_CALLS: Final = 2_000_000  # of all threads together
TURNS: Final = 50_000  # of all tasks together; each is ten calls and one switch
GENERATED_CALLS: Final = 1_000_000  # of all generated functions together
MODULES: Final = ("benchmarks.call_tree", "benchmarks.scaling", "generated")
MOST_ROUNDS: Final = 7

Work = Callable[[], None]


def point(*, axis: str, size: int, until: float) -> dict[str, Any]:
    """One point of an axis ("events", "threads", "tasks" or "code objects").

    Rounds of the work untraced and recorded, until the time is over, give `costs` in CPU ns an event, the drain
    thread's included. `memory`: MiB of resident memory that recording adds, its ring included. `load` and
    `peak`: seconds and GB that a new process takes to load the last recording's calls.
    """
    work = AXES[axis](size)
    process = psutil.Process()
    work()
    costs: list[float] = []
    grown = 0.0
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder:
        path = Path(folder) / "run.pyscope"
        while len(costs) < LEAST_ROUNDS or (len(costs) < MOST_ROUNDS and time.monotonic() < until):
            bare = _cpu_seconds(work)
            before = process.memory_info().rss
            recording = pyscope.start(path, modules=list(MODULES), children=False)
            spent = _cpu_seconds(work, after=_settle)
            grown = max(grown, (process.memory_info().rss - before) / 2**20)
            pyscope.stop()
            figures = recording.figures
            costs.append((spent - bare) / (figures["events"] + figures["dropped"]) * 1e9)
        loaded = worker.run(sys.executable, "benchmarks.scaling:loading", path=str(path))
        return {
            "size": size,
            "costs": costs,
            "memory": grown,
            "events": figures["events"],
            "dropped": figures["dropped"],
            "bytes": path.stat().st_size / max(1, figures["events"]),
            **loaded,
        }


def loading(*, path: str) -> dict[str, float]:
    """Seconds, and GB of peak memory, to load the calls of a recording in this process."""
    began = time.perf_counter()
    trace: Any = pyscope.load(path)
    calls = len(trace.calls["duration_ns"])
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"load": seconds, "peak": peak, "calls": float(calls)}


def _cpu_seconds(work: Work, after: Work = lambda: None) -> float:
    began = time.process_time()
    work()
    after()
    return time.process_time() - began


def _settle() -> None:
    """Let the drain thread take what is left: it looks every 10 ms."""
    time.sleep(0.03)


# --- the axes ------------------------------------------------------------------------------------


def _of_events(events: int) -> Work:
    def work() -> None:
        call_tree.grow(events // 2)

    return work


def _of_threads(number: int) -> Work:
    def work() -> None:
        threads = [
            threading.Thread(target=call_tree.grow, args=(THREADED_CALLS // number,)) for _ in range(number)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return work


def _of_tasks(number: int) -> Work:
    async def one() -> None:
        for _ in range(TURNS // number):
            call_tree.twig()
            await asyncio.sleep(0)

    async def together() -> None:
        await asyncio.gather(*(one() for _ in range(number)))

    return lambda: asyncio.run(together())


def _of_code_objects(number: int) -> Work:
    names: dict[str, Any] = {"__name__": "generated"}
    exec(compile("def template():\n    pass\n", "generated.py", "exec"), names)
    code = names["template"].__code__
    functions = [
        types.FunctionType(code.replace(co_name=f"f{line}", co_firstlineno=line), names)
        for line in range(1, number + 1)
    ]
    turns = max(1, GENERATED_CALLS // number)

    def work() -> None:
        for _ in range(turns):
            for function in functions:
                function()

    return work


AXES: Final[dict[str, Callable[[int], Work]]] = {
    "events": _of_events,
    "threads": _of_threads,
    "tasks": _of_tasks,
    "code objects": _of_code_objects,
}
