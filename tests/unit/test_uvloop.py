"""Under uvloop, which most servers of FastAPI run on: tasks have their names, and what blocks the loop is found."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest
import uvloop

import pyscope
from pyscope.backends import backend_report
from pyscope.trace import Trace

TASKS = 50
STEPS = 10

BACKENDS = [choice.name for choice in backend_report() if choice.available]


async def child(number: int) -> int:
    for _ in range(STEPS):
        await asyncio.sleep(0)
        step(number)
    return number


def step(number: int) -> int:
    return number


async def blocks() -> None:
    time.sleep(0.2)


async def program(blocking: bool) -> list[int]:
    children = [asyncio.create_task(child(number), name=f"child {number}") for number in range(TASKS)]
    if blocking:
        await blocks()
    else:
        await asyncio.sleep(0.2)
    await asyncio.get_running_loop().run_in_executor(None, step, -1)
    return await asyncio.gather(*children)


def recorded(path: Path, backend: str = "auto", blocking: bool = False) -> Trace:
    with pyscope.record(
        path / "run.pyscope", modules=[__name__], backend=backend, probes=["auto"], ring_mb=16
    ):
        assert uvloop.run(program(blocking)) == list(range(TASKS))
    return pyscope.load(path / "run.pyscope")


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_step_stands_in_the_task_that_made_it(tmp_path: Path, backend: str) -> None:
    trace = recorded(tmp_path, backend)
    in_tasks = Counter(call.context for call in trace.find(function="step") if call.context)
    assert in_tasks == {f"child {number}": STEPS for number in range(TASKS)}
    assert len(trace.find(function="step")) == TASKS * STEPS + 1
    assert trace.losses == []


def test_a_call_that_blocks_the_loop_is_found_and_one_that_waits_is_not(tmp_path: Path) -> None:
    [found] = pyscope.diagnose(recorded(tmp_path, blocking=True))
    assert found.kind == "blocking_call_in_event_loop"
    assert found.where is not None
    assert found.where.function == "blocks"


def test_a_loop_that_waits_is_not_blocked(tmp_path: Path) -> None:
    assert pyscope.diagnose(recorded(tmp_path)) == []
