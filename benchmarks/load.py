"""TaskFlow under load: requests a second with its one core saturated, and the latencies of a crowd.

The client is another process than the server and needs a small part of the second core; PyScope's drain
thread needs some of it too. Variants alternate inside one server, blocks of all of them in each round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.connections import Answers, Connections, allow_files, request
from benchmarks.controlled import ControlledServer
from benchmarks.service import FIRST_PAIRS, WARMING_PAIRS, Rounds, interleaved, own_figures
from benchmarks.workload import CREATE, DASHBOARD, TASKS

CREATING: Final = request("POST", "/tasks", CREATE["json"])
SHOWING: Final = request("GET", DASHBOARD)
FILES: Final = 4096
WARMING: Final = 8  # one in so many connections sends a request before the block: its code has run then
WRITERS: Final = 4  # one in so many of a crowd's requests creates a task


def throughput(*, names: Sequence[str], seed: int, until: float, connections: int, pairs: int) -> Rounds:
    """Wall seconds a request, while `connections` connections send `pairs` pairs each without a pause."""
    work = [[CREATING, SHOWING] * pairs] * connections
    return _rounds(names, seed, until, work, lambda answers: answers.seconds / len(answers.latencies))


def crowd(*, names: Sequence[str], seed: int, until: float, connections: int, requests: int) -> Rounds:
    """The latency in seconds that one request in a hundred exceeds, when `connections` clients all have one out."""
    work = []
    for client in range(connections):
        tasks = [1 + (client * requests + number) % TASKS for number in range(requests)]
        mine = [request("GET", f"/tasks/{task}") for task in tasks]
        if client % WRITERS == 0:
            mine[-1] = CREATING
        work.append(mine)
    return _rounds(names, seed, until, work, lambda answers: float(np.quantile(answers.latencies, 0.99)))


def _rounds(
    names: Sequence[str],
    seed: int,
    until: float,
    work: Sequence[Sequence[bytes]],
    value: Callable[[Answers], float],
) -> Rounds:
    allow_files(FILES)  # the server inherits it
    with (
        tempfile.TemporaryDirectory(prefix="pyscope-bench-") as directory,
        ControlledServer(Path(directory)) as server,
    ):

        def block(name: str) -> dict[str, float]:
            server.on(name)
            server.workload.run_slice(WARMING_PAIRS)
            with Connections(server.workload.server.url, len(work)) as clients:
                clients.send([[] if number % WARMING else mine[:1] for number, mine in enumerate(work)])
                server.mark()
                answers = clients.send(work)
            figures, requests = server.off(), sum(map(len, work))
            counts = {
                f"{name}: requests": float(requests),
                f"{name}: failed": float(answers.failed),
                f"{name}: CPU": figures["cpu_seconds"] / requests,
            }
            return {name: value(answers)} | counts | own_figures(name, figures)

        server.workload.run_slice(FIRST_PAIRS)
        return interleaved(block, names, seed, until)
