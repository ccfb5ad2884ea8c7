"""What findings cost at scale: a recording of ten million events, each analysis timed, memory at its peak.

`python -m benchmarks.findings_scale [EVENTS]`. The recording is a real one. Its program calls traced functions in
several threads, and tells what probes would tell of a service's requests: scopes, statements with an N+1, transactions
and their rows, calls to other services of which some are repeated, locks and accesses under them, changes of state. Of
the 136 events of a request 96 are calls and returns. The recording is made in one process and read in another.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import pyscope
from benchmarks import worker
from pyscope import emitter
from pyscope.analysis import (
    database_races,
    external,
    hotspots,
    queries,
    races,
    ranking,
    resources,
    states,
    supervision,
    time_parts,
)
from pyscope.events.external import EXTERNAL_BEGIN, EXTERNAL_END, RETRY_BEGIN, RETRY_END, AttemptOutcome
from pyscope.events.scope import SCOPE_BEGIN, SCOPE_END
from pyscope.events.sql import ROW, STATEMENT, TRANSACTION, Load, Step, Touch
from pyscope.events.sql import Operation as Sql
from pyscope.events.state import STATE_CHANGE, Seen, ValueKind
from pyscope.events.sync import ACCESS, LOCK, LockStep, Operation

EVENTS: Final = 10_000_000
EVENTS_A_REQUEST: Final = 136
THREADS: Final = 4
RING_MB: Final = 512
ACCOUNTS: Final = 500
MS: Final = 1_000_000

PARENTS = "SELECT id, name FROM projects WHERE owner_id = ?"
_CHILDREN = "SELECT id, title FROM tasks WHERE project_id = ?"
_UPDATE = "UPDATE accounts SET balance = ? WHERE id = ?"
_OTHERS = [f"SELECT {column} FROM people WHERE id = ?" for column in ("name", "email", "role", "team")]


def _step(depth: int) -> int:
    return _step(depth - 1) + 1 if depth else 0


def _work() -> None:
    """30 calls, 60 events."""
    for _ in range(7):
        _step(3)
    _step(0)


def _statement(
    transaction: int,
    text: str,
    operation: Sql,
    load: Load = Load.NONE,
    relationship: str = "",
    parent: int = 0,
) -> int:
    intern = emitter.intern
    number = emitter.next_id()
    emitter.emit(
        STATEMENT.kind, number, MS, intern(text), int(operation), 1, transaction, 1, emitter.stack(),
        parent or number % 1000 + 1, int(load), intern(relationship) if relationship else 0, parent,
        intern(PARENTS) if parent else 0, 0, 0,
    )  # fmt: skip
    return number


def _database(turn: int) -> None:
    """11 statements, one of them an N+1 of six, in a transaction that reads an account and writes it: 17 events."""
    transaction = emitter.next_id()
    isolation = emitter.intern("READ COMMITTED")

    def step(what: Step) -> None:
        emitter.emit(TRANSACTION.kind, int(what), transaction, 1, isolation, emitter.stack())

    step(Step.BEGIN)
    _statement(transaction, PARENTS, Sql.SELECT, Load.QUERY)
    for child in range(6):
        _statement(transaction, _CHILDREN, Sql.SELECT, Load.COLLECTION, "Project.tasks", turn * 6 + child + 1)
    read = _statement(transaction, _OTHERS[turn % 4], Sql.SELECT, Load.GET)
    _statement(transaction, _OTHERS[(turn + 1) % 4], Sql.SELECT)
    _statement(transaction, _OTHERS[(turn + 2) % 4], Sql.SELECT)
    write = _statement(transaction, _UPDATE, Sql.UPDATE)
    table, balance = emitter.intern("accounts"), emitter.intern("balance")
    for number, touch in ((read, Touch.READ_KEY), (write, Touch.WRITE)):
        for account in (turn % ACCOUNTS, ACCOUNTS + turn):
            emitter.emit(ROW.kind, transaction, number, int(touch), table, account + 1, balance, 0, 0, False)
    step(Step.COMMIT)


def _call_out(turn: int) -> None:
    """4 events of a call to another service; one in ten is a retry that ends badly."""
    intern = emitter.intern
    group, attempt, failed = emitter.next_id(), emitter.next_id(), turn % 10 == 0
    outcome = int(AttemptOutcome.TIMED_OUT if failed else AttemptOutcome.SUCCEEDED)
    error = intern("ReadTimeout") if failed else 0
    stack = emitter.stack()
    emitter.emit(RETRY_BEGIN.kind, group, 1, 0, 0, intern("notify"), intern("tenacity"), stack)
    emitter.emit(
        EXTERNAL_BEGIN.kind, attempt, 0, group, 1, intern("http"), intern("POST /hooks"), intern("hooks:80"),
        intern("httpx"), 1, 0, 0, stack,
    )  # fmt: skip
    emitter.emit(EXTERNAL_END.kind, attempt, 5 * MS, outcome, 0, error)
    emitter.emit(RETRY_END.kind, group, 6 * MS, outcome, error)


def _share(turn: int, lock: threading.Lock) -> None:
    """16 events of a counter that is read and written under a lock, four times."""
    attribute = emitter.intern("Stock.count")
    number = 7 + turn % 50
    for _ in range(4):
        with lock:
            emitter.emit(LOCK.kind, int(LockStep.ACQUIRED), 1, 1, 0, 0)
            for operation in (Operation.READ, Operation.WRITE):
                emitter.emit(
                    ACCESS.kind, number, int(operation), 0, 0, 0, 0, 0, attribute, 0, emitter.stack()
                )
            emitter.emit(LOCK.kind, int(LockStep.RELEASED), 1, 1, 0, 0)


def _change(turn: int) -> None:
    intern = emitter.intern
    emitter.emit(
        STATE_CHANGE.kind, turn + 1, int(Seen.WRITE), 0, int(ValueKind.TEXT), int(ValueKind.TEXT), intern("Task"),
        intern("status"), intern("assign"), emitter.stack(), str(turn), "open", "assigned",
    )  # fmt: skip


def _request(turn: int, lock: threading.Lock) -> None:
    intern = emitter.intern
    number = emitter.next_id()
    token = emitter.scope.set(number)
    emitter.emit(SCOPE_BEGIN.kind, number, 0, intern("request"), intern("GET /projects"))
    _work()
    _database(turn)
    _call_out(turn)
    _share(turn, lock)
    _change(turn)
    route, outcome = intern("/projects/{id}"), intern("returned")
    emitter.emit(SCOPE_END.kind, number, 20 * MS, 9 * MS, 200, route, outcome, 0)
    emitter.scope.reset(token)


def record(*, path: str, events: int, ring_mb: int = RING_MB) -> dict[str, float]:
    """Make the recording. RuntimeError if events were dropped."""
    lock = threading.Lock()
    requests = events // EVENTS_A_REQUEST

    def serve(first: int) -> None:
        for turn in range(first, requests, THREADS):
            _request(turn, lock)

    # Only the small functions count as calls: what tells in place of the probes is not the program.
    with pyscope.record(path, modules=["benchmarks.*"], ring_mb=ring_mb, children=False) as recording:
        threads = [threading.Thread(target=serve, args=(first,)) for first in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if recording.figures["dropped"]:
        raise RuntimeError(f"{recording.figures['dropped']} events were dropped")
    return {name: float(recording.figures[name]) for name in ("events", "bytes")}


def read(*, path: str) -> dict[str, float]:
    """CPU seconds of each analysis, each on a trace that is read already, then of `rank` from the file on."""

    def timed(work: Any) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    seconds = {"rank, from the file on": timed(lambda: ranking.rank(pyscope.load(path)))}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    trace = pyscope.load(path)
    seconds["load, pair, probe events"] = timed(lambda: (len(trace.calls), trace.has_probe_events))
    parts = (database_races, external, hotspots, queries, races, resources, states, supervision)
    for part in parts:
        name = part.__name__.rpartition(".")[2]
        seconds[name] = timed(lambda part=part: part.find(trace))
    seconds["time_parts"] = timed(lambda: time_parts.of_scopes(trace))
    return seconds | {"peak MB": peak}


def main() -> None:
    """Record, read, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.findings_scale", description=__doc__)
    parser.add_argument("events", nargs="?", type=int, default=EVENTS)
    parser.add_argument("--json", type=Path, metavar="OUT", help="keep the figures there as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder:
        path = str(Path(folder) / "scale.pyscope")
        made = worker.run(
            sys.executable, "benchmarks.findings_scale:record", path=path, events=options.events
        )
        print(f"{made['events']:,.0f} events, {made['bytes'] / 1e6:,.0f} MB")
        found = worker.run(sys.executable, "benchmarks.findings_scale:read", path=path)
    for name, value in found.items():
        unit = "MB" if name == "peak MB" else "s CPU"
        print(f"{name.removesuffix(' MB'):30s} {value:10.1f} {unit}")
    if options.json:
        options.json.write_text(json.dumps(made | found, indent=1))


if __name__ == "__main__":
    main()
