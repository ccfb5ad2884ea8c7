"""What tracing costs TaskFlow: CPU time of the process for each pair of requests, variants interleaved.

`in_process` behind an ASGI transport, `served` over HTTP to a uvicorn process, `installed` in a
process for each block, because an import cannot be undone. Values are CPU seconds a pair, the drain
thread's included.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import variants, worker
from benchmarks.estimator import BASELINE, run_rounds
from benchmarks.served import CONTROL_SOCKET, Meter
from benchmarks.workload import InProcessWorkload, ServedWorkload

WARMING_PAIRS: Final = 1  # after each switch: code objects are resolved, bytecode is specialised again
FIRST_PAIRS: Final = 5  # before the first round
Rounds = list[dict[str, float]]


def in_process(*, names: Sequence[str], rounds: int, seed: int, pairs: int, seconds: float = 0.0) -> Rounds:
    """Rounds of the variants in this process; a block is `pairs` pairs, or as many as `seconds` hold."""
    with (
        tempfile.TemporaryDirectory(prefix="pyscope-bench-") as directory,
        InProcessWorkload(Path(directory)) as workload,
    ):
        workload.request_pairs(FIRST_PAIRS)
        meter = Meter()
        work = workload.request_pairs
        return _rounds(names, rounds, seed, meter.on, meter.mark, meter.off, work, pairs, seconds)


def served(*, names: Sequence[str], rounds: int, seed: int, pairs: int, seconds: float = 0.0) -> Rounds:
    """The same against a server process; only its own CPU time counts."""
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder:
        directory = Path(folder)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(directory / "control"))
            listener.listen(1)
            launcher = (sys.executable, "-m", "benchmarks.served")
            environment = {CONTROL_SOCKET: str(directory / "control")}
            with ServedWorkload(directory, launcher, environment) as workload:
                connection, _ = listener.accept()
                connection.settimeout(120)
                pid = workload.server.pid

                def command(text: str) -> Any:
                    connection.sendall(text.encode() + b"\n")
                    os.kill(pid, signal.SIGUSR1)
                    answer = b""
                    while not answer.endswith(b"\n"):
                        part = connection.recv(4096)
                        if not part:
                            raise RuntimeError(f"the server has ended:\n{workload.server.log_tail()}")
                        answer += part
                    value = json.loads(answer)
                    if value and "error" in value:
                        raise RuntimeError(f"the server could not {text}: {value['error']}")
                    return value

                workload.run_slice(FIRST_PAIRS)
                return _rounds(
                    names,
                    rounds,
                    seed,
                    lambda name: command(f"on {name}"),
                    lambda: command("mark"),
                    lambda: command("off"),
                    workload.run_slice,
                    pairs,
                    seconds,
                )


def _rounds(
    names: Sequence[str],
    rounds: int,
    seed: int,
    on: Callable[[str], object],
    mark: Callable[[], object],
    off: Callable[[], dict[str, float]],
    work: Callable[[int], object],
    pairs: int,
    seconds: float,
) -> Rounds:
    def block(name: str) -> dict[str, float]:
        on(name)
        work(WARMING_PAIRS)
        mark()
        done, began = 0, time.perf_counter()
        while done < pairs or time.perf_counter() - began < seconds:
            work(1)
            done += 1
        figures = off()
        row = {name: figures["cpu_seconds"] / done}
        for figure in ("events", "dropped", "bytes"):
            if figure in figures:
                row[f"{name}: {figure}"] = figures[figure]
        return row

    plan = {name: (lambda name=name: block(name)) for name in names if variants.available(name)}
    plan.setdefault(BASELINE, lambda: block(BASELINE))
    found = run_rounds(plan, rounds, seed=seed)
    return [{name.replace(f"control {BASELINE}", "control"): v for name, v in row.items()} for row in found]


# --- installed and off ---------------------------------------------------------------------------


def installed(*, interpreter: str, rounds: int, seed: int, pairs: int) -> Rounds:
    """Rounds of: pyscope not importable (twice), imported and never started, started and stopped before."""
    states = {BASELINE: "absent", "installed": "imported", "stopped": "stopped"}

    def block(state: str) -> Callable[[], float]:
        function = "benchmarks.service:one_process"
        return lambda: float(worker.run(interpreter, function, state=state, pairs=pairs))

    return run_rounds({name: block(state) for name, state in states.items()}, rounds, seed=seed)


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
