"""Under uvloop, which most servers of FastAPI run on: tasks have their names, and what blocks the loop is found."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from pathlib import Path

import pytest
import uvloop

import pyscope
from pyscope.analysis import supervision
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


async def leaves_a_task_behind() -> None:
    async def clean_up() -> None:
        raise OSError("nothing to clean up")

    task = asyncio.create_task(clean_up(), name="clean-up")
    await asyncio.sleep(0)
    del task
    await asyncio.sleep(0)
    gc.collect()


def test_a_task_whose_exception_nobody_takes_is_told_and_the_loop_is_as_it_was(tmp_path: Path) -> None:
    before = dict(vars(uvloop.Loop))
    with pyscope.record(tmp_path / "run.pyscope", modules=[__name__], probes=["auto"], ring_mb=4):
        uvloop.run(leaves_a_task_behind())
    [event] = supervision.find(pyscope.load(tmp_path / "run.pyscope"))
    assert (event.kind, event.child) == ("child_terminated", "clean-up")
    assert event.reason == "OSError: nothing to clean up"
    assert event.stack[0].function.endswith("clean_up")
    assert dict(vars(uvloop.Loop)) == before


def test_a_loop_that_waits_is_not_blocked(tmp_path: Path) -> None:
    assert pyscope.diagnose(recorded(tmp_path)) == []
