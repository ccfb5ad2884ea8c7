"""Under uvloop, which most servers of FastAPI run on: tasks have their names, and what blocks the loop is found."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import uvloop

import pyscope
from pyscope.analysis import supervision
from pyscope.backends import backend_report
from pyscope.events.runtime_health import LOOP_BLOCKED, LOOP_LAG
from pyscope.trace import Trace
from tests.unit.watching import watching

pytestmark = pytest.mark.filterwarnings("ignore:modules=")

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


# The probe of event loops, where no call is recorded

LONG = 0.4  # seconds: many times the threshold


def block() -> None:
    time.sleep(LONG)


async def blocking() -> None:
    await asyncio.sleep(0)
    block()


def name_task(name: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.set_name(name)


def told(trace: Trace) -> list[tuple[str, str]]:
    """The long ones of what blocked: the task, and the function in which it was seen."""
    rows = [row for row in trace.probe_events(LOOP_BLOCKED).records() if row.duration_ns > LONG * 0.8e9]
    assert all(row.duration_ns < LONG * 1.5e9 for row in rows)
    return [(row.task, row.stack[0].function) for row in rows]


def test_the_probe_tells_what_blocked_the_loop(tmp_path: Path) -> None:
    async def main() -> None:
        await asyncio.create_task(blocking(), name="the culprit")
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().call_soon(block)
        asyncio.get_running_loop().call_soon(block)
        await asyncio.sleep(0.05)
        name_task("main")
        block()

    with watching(tmp_path, "event_loop") as watch:
        uvloop.run(main())
        assert watch.probe("event_loop").faults == 0
    assert told(watch.trace) == [("the culprit", "block"), ("", "block"), ("", "block"), ("main", "block")]
    lags = [row.lag_ns for row in watch.trace.probe_events(LOOP_LAG).records()]
    assert sum(lags) >= 4 * LONG * 0.9e9


def test_a_loop_that_gets_its_turn_is_not_told_of(tmp_path: Path) -> None:
    async def main() -> None:
        await asyncio.sleep(0.05)
        await asyncio.to_thread(block)
        for _ in range(40):
            asyncio.get_running_loop().call_soon(lambda: time.sleep(0.01))  # lag, but no blocking call
        await asyncio.sleep(0.05)

    with watching(tmp_path, "event_loop") as watch:
        uvloop.run(main())
        loop = uvloop.new_event_loop()
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0.01))
            block()  # nothing of the loop's
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()
    assert told(watch.trace) == []
    assert max(row.lag_ns for row in watch.trace.probe_events(LOOP_LAG).records()) < 0.6e9


def test_a_loop_that_ran_before_the_probe_is_seen_too(tmp_path: Path) -> None:
    async def main() -> list[tuple[str, str]]:
        name_task("main")
        await asyncio.sleep(0)
        for _ in range(2):  # that a second recording sees it as well
            with watching(tmp_path, "event_loop") as watch:
                await asyncio.sleep(0.05)
                await blocking()
                await asyncio.sleep(0.05)
        return told(watch.trace)

    assert uvloop.run(main()) == [("main", "block")]


def test_loops_of_several_threads_are_told_apart(tmp_path: Path) -> None:
    with watching(tmp_path, "event_loop") as watch:
        threads = [threading.Thread(target=lambda: uvloop.run(blocking())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = [row for row in watch.trace.probe_events(LOOP_BLOCKED).records() if row.duration_ns > LONG * 0.8e9]
    assert len(rows) == len({row.loop for row in rows}) == len({row.thread for row in rows}) == 2


def test_the_probe_leaves_loops_as_they_were(tmp_path: Path) -> None:
    before = dict(vars(uvloop.Loop))
    loop = uvloop.new_event_loop()
    with watching(tmp_path, "event_loop") as watch:
        probe = watch.probe("event_loop")
        loop.run_until_complete(asyncio.sleep(0.05))
        assert len(probe._beating) == 1
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            loop.run_forever()
        del loop
        gc.collect()
        assert probe._beating == {}
        assert probe.faults == 0
    assert dict(vars(uvloop.Loop)) == before
