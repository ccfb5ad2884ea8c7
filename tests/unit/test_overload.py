"""What took very much of a resource: backlogs of mailboxes, and work in which memory grows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pykka
import pytest

import pyscope
from pyscope import emitter
from pyscope.analysis import overload
from pyscope.analysis.overload import BACKLOG, GROWTH_BYTES
from pyscope.analysis.ranking import rank
from pyscope.events.resources import PROCESS_SAMPLE
from pyscope.findings import ResourceIssue
from pyscope.probes.scope import Scope
from pyscope.trace import Trace
from pyscope.views import findings
from tests.unit.watching import watching

pytestmark = pytest.mark.filterwarnings("ignore:modules=")

MB = 1 << 20


class Worker(pykka.ThreadingActor):
    """Handles nothing before it may."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__()
        self.gate = gate

    def on_receive(self, message: Any) -> None:
        if isinstance(message, threading.Event):
            message.set()
            assert self.gate.wait(30)


class Other(Worker): ...


def flood(worker: Any, messages: int, last: threading.Event) -> None:
    for message in [*range(1, messages), last]:
        worker.tell(message)


def drip(worker: Any) -> None:
    worker.tell("now and then")


@pytest.fixture(autouse=True)
def no_actor_is_left() -> Iterator[None]:
    yield
    pykka.ActorRegistry.stop_all()


def flooded(path: Path, messages: int) -> Trace:
    """One message is being handled, another is sent from elsewhere, and so many wait at most, that one included."""
    gate, begun, emptied = (threading.Event() for _ in range(3))
    with watching(path, "actors") as watch:
        worker = Worker.start(gate)
        other = Other.start(gate)
        worker.tell(begun)
        assert begun.wait(30)
        drip(worker)
        flood(worker, messages - 1, emptied)
        drip(other)
        gate.set()
        assert emptied.wait(30)  # before it is stopped, which is a message too
        worker.stop(timeout=30)
        other.stop(timeout=30)
    return watch.trace


def test_messages_that_pile_up_are_told_with_who_sent_them(tmp_path: Path) -> None:
    trace = flooded(tmp_path, BACKLOG)
    [found] = overload.find(trace)
    assert (found.kind, found.subject, found.amount) == ("mailbox_backlog", "Worker", BACKLOG)
    assert found.call_site.function == "flood"
    assert found.stack[0] == found.call_site
    assert found.call_site.file == __file__
    assert found.senders == BACKLOG - 1
    assert found.waited_ns > 0
    assert f"{BACKLOG} messages waited for Worker at once" in found.explanation
    assert "sent by flood" in found.explanation


def test_one_message_less_is_no_backlog(tmp_path: Path) -> None:
    trace = flooded(tmp_path, BACKLOG - 1)
    assert overload.find(trace) == []
    assert [issue.amount for issue in overload.find(trace, backlog=BACKLOG - 1)] == [BACKLOG - 1]


def test_a_backlog_is_a_ranked_finding_with_its_evidence(tmp_path: Path) -> None:
    trace = flooded(tmp_path, BACKLOG)
    ranking = rank(trace)
    assert ranking is not None
    [row] = [row for row in ranking.findings if row.kind == "mailbox_backlog"]
    assert row.what == f"{BACKLOG} messages waited for Worker at once"
    assert row.where is not None
    assert row.where.function == "flood"
    [shown] = [one for one in findings.message(trace)["findings"] if one["kind"] == "mailbox_backlog"]
    assert shown["severity"] == "warning"
    assert shown["details"]["messages"] == BACKLOG
    assert shown["details"]["sent_from_there"] == BACKLOG - 1
    assert shown["details"]["stack"][0]["function"] == "flood"


class Memory:
    """A process of which the test says how much memory it takes."""

    def __init__(self) -> None:
        self.tick = 0

    def is_now(self, resident: int) -> None:
        self.tick += 1
        emitter.emit(
            PROCESS_SAMPLE.kind, self.tick, os.getpid(), resident, resident, 1, 0, 1, emitter.intern("python")
        )


def holds_everything(memory: Memory, resident: int) -> None:
    time.sleep(0.02)
    memory.is_now(resident)


def grown(path: Path, before: int, after: int, kind: str = "request") -> list[ResourceIssue]:
    memory = Memory()
    with pyscope.record(path / "run.pyscope", modules=[__name__], ring_mb=8):
        memory.is_now(before)
        with Scope("request", "GET /before"):
            pass
        with Scope(kind, "GET /all"):
            memory.is_now(before)
            holds_everything(memory, after)
        with Scope("request", "GET /after"):
            memory.is_now(after)
            memory.is_now(after - MB)
    return overload.find(pyscope.load(path / "run.pyscope"))


@pytest.mark.parametrize("kind", ["request", "message", "report"])
def test_memory_that_grows_within_a_piece_of_work_is_told_with_the_call_in_which_it_did(
    tmp_path: Path, kind: str
) -> None:
    [found] = grown(tmp_path, 100 * MB, 100 * MB + GROWTH_BYTES, kind)
    assert (found.kind, found.subject, found.amount) == ("memory_growth", f"{kind} GET /all", GROWTH_BYTES)
    assert found.call_site.function == "holds_everything"
    assert found.call_site.file == __file__
    assert f"64 MiB more during this {kind}, most of it in holds_everything" in found.explanation


def test_a_byte_less_is_no_finding_nor_is_what_is_little_for_a_large_process(tmp_path: Path) -> None:
    assert grown(tmp_path, 100 * MB, 100 * MB + GROWTH_BYTES - 1) == []
    assert grown(tmp_path, 1000 * MB, 1000 * MB + GROWTH_BYTES) == []
    assert grown(tmp_path, 100 * MB, 100 * MB + GROWTH_BYTES, "task") == []


def test_of_work_that_overlaps_the_shortest_that_saw_all_of_it_is_told(tmp_path: Path) -> None:
    memory = Memory()
    with pyscope.record(tmp_path / "run.pyscope", modules=[__name__], ring_mb=8):
        with Scope("request", "GET /around"):
            memory.is_now(100 * MB)
            with Scope("request", "GET /within"):
                memory.is_now(100 * MB)
                memory.is_now(400 * MB)
        with Scope("request", "GET /later"):
            memory.is_now(400 * MB)
    [found] = overload.find(pyscope.load(tmp_path / "run.pyscope"))
    assert found.subject == "request GET /within"


PROGRAM = """
import sys
import pyscope
from pyscope import probes
from pyscope.probes.scope import Scope

MB = 1 << 20

def take(parts, look):
    total = 0
    for part in parts:
        total += part[-1]
        look()
    return total

def part():
    return bytes(b"x" * (16 * MB))  # written, so that it is resident

with pyscope.record(sys.argv[1], modules=["__main__"], probes=["resources"], ring_mb=4):
    look = probes.installed("resources").look_now
    with Scope("report", "streamed"):
        look()
        assert take((part() for _ in range(8)), look) == 8 * ord("x")
    with Scope("report", "held"):
        look()
        assert take([part() for _ in range(8)], look) == 8 * ord("x")
"""


def test_real_memory_is_seen_by_the_probe_and_a_generator_takes_none(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    path = tmp_path / "run.pyscope"
    subprocess.run([sys.executable, tmp_path / "program.py", path], check=True, timeout=120)
    [found] = overload.find(pyscope.load(path))
    assert found.subject == "report held"
    assert GROWTH_BYTES < found.amount < 200 * MB
