"""Under trio: what a task does lies in a context with the task's name, and so what blocks its event loop is found."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import pyscope
from pyscope.backends import backend_report
from pyscope.trace import Trace

trio = pytest.importorskip("trio")

ROOT = Path(__file__).parents[2]
BACKENDS = [choice.name for choice in backend_report() if choice.available]


def step() -> None:
    """Something to record."""


def block() -> None:
    time.sleep(0.2)


async def child() -> None:
    for _ in range(3):
        step()
        await trio.sleep(0)


async def parent() -> None:
    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(child, name=f"child {number}")
    step()


def steps(trace: Trace) -> Counter[str]:
    """How often `step` ran in each context; "" is that of no task."""
    rows = [row for row in range(len(trace.calls)) if trace.call(row).function == "step"]
    return Counter(trace.contexts[int(trace.calls["context"][row])].name for row in rows)


EXPECTED = {"child 0": 3, "child 1": 3, "child 2": 3, "child 3": 3, f"{__name__}.parent": 1}


@pytest.mark.parametrize("backend", BACKENDS)
def test_tasks_are_told_apart_by_name(tmp_path: Path, backend: str) -> None:
    with pyscope.record(tmp_path / "run.pyscope", modules=[__name__], backend=backend, ring_mb=4):
        trio.run(parent)
        step()
    assert steps(pyscope.load(tmp_path / "run.pyscope")) == EXPECTED | {"": 1}


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_a_recording_that_begins_and_ends_within(tmp_path: Path, backend: str) -> None:
    async def main() -> None:
        with pyscope.record(tmp_path / "run.pyscope", modules=[__name__], backend=backend, ring_mb=4):
            await parent()

    trio.run(main)
    found = steps(pyscope.load(tmp_path / "run.pyscope"))
    assert found.pop(f"{__name__}.{main.__qualname__}") == 1
    assert found == {name: 3 for name in EXPECTED if name.startswith("child")}


def test_of_two_loops_in_two_threads(tmp_path: Path) -> None:
    async def main() -> None:
        await parent()
        await trio.to_thread.run_sync(step)

    with pyscope.record(tmp_path / "run.pyscope", modules=[__name__], ring_mb=4):
        threads = [threading.Thread(target=trio.run, args=(main,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = steps(pyscope.load(tmp_path / "run.pyscope"))
    assert found.pop(f"{__name__}.{main.__qualname__}") == 2
    assert found == {"": 2} | {name: 6 for name in EXPECTED if name.startswith("child")}


def test_a_call_that_blocks_the_loop_is_found(tmp_path: Path) -> None:
    async def blocks() -> None:
        await trio.sleep(0)
        block()

    with pyscope.record(tmp_path / "run.pyscope", modules=[__name__], probes=["auto"], ring_mb=4):
        trio.run(blocks)
    findings = pyscope.diagnose(pyscope.load(tmp_path / "run.pyscope"))
    assert any("block blocks the event loop" in finding.what for finding in findings)


NEVER_RUN = """
import asyncio, sys
import trio._core._run
import pyscope

class Asked:
    times = 0
    def __getattribute__(self, name):
        Asked.times += 1
        return object.__getattribute__(self, name)

trio._core._run.GLOBAL_RUN_CONTEXT = Asked()

async def work():
    await asyncio.sleep(0)

async def main():
    await asyncio.gather(*(work() for _ in range(100)))

with pyscope.record(sys.argv[1], modules=["*"], backend=sys.argv[2], ring_mb=4):
    asyncio.run(main())
print(Asked.times)
"""


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "python"])
def test_trio_that_is_imported_and_never_run_is_asked_once(tmp_path: Path, backend: str) -> None:
    """It is, for one by httpcore; in most threads it has no task, and to be told so takes an exception."""
    command = [sys.executable, "-c", NEVER_RUN, str(tmp_path / "run.pyscope"), backend]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True).stdout
    assert int(told) <= 1
