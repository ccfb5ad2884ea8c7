"""What anyio hands over from task to task and from thread to thread, on asyncio and on trio, is no race; a race is."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import from_thread, to_thread

import pyscope
from pyscope.analysis import races
from pyscope.findings import Race
from tests.twins.races import PATIENCE, Stage

BACKENDS = ["asyncio", *(["trio"] if importlib.util.find_spec("trio") else [])]


class Box:
    def __init__(self) -> None:
        self.value = 0


Program = Callable[[Box], Awaitable[object]]


def run(path: Path, backend: str, program: Program) -> list[Race]:
    async def main() -> None:
        await program(Stage(PATIENCE).watch(Box()))

    with pyscope.record(path / "x.pyscope", modules=[__name__], probes=["sync", "accesses"], ring_mb=4):
        anyio.run(main, backend=backend)
    return races.find(pyscope.load(path / "x.pyscope"))


def add(box: Box) -> None:
    value = box.value
    box.value = value + 1


async def slowly(box: Box) -> None:
    value = box.value
    await anyio.sleep(0.001)
    box.value = value + 1


async def guarded(box: Box, guard: Any) -> None:
    async def work() -> None:
        for _ in range(3):
            async with guard:
                await slowly(box)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(work)
    assert box.value == 9


async def a_lock(box: Box) -> None:
    await guarded(box, anyio.Lock())


async def a_semaphore(box: Box) -> None:
    await guarded(box, anyio.Semaphore(1))


async def a_limiter(box: Box) -> None:
    await guarded(box, anyio.CapacityLimiter(1))


async def a_stream(box: Box, size: int = 0) -> None:
    send, receive = anyio.create_memory_object_stream[Box](size)

    async def produce() -> None:
        async with send:
            await slowly(box)
            await send.send(box)

    async def consume() -> None:
        async with receive:
            async for each in receive:
                await slowly(each)

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        group.start_soon(produce)
    assert box.value == 2


async def a_buffered_stream(box: Box) -> None:
    await a_stream(box, 1)


async def a_start(box: Box) -> None:
    async def serve(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        await slowly(box)
        task_status.started()
        await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        await group.start(serve)
        await slowly(box)


async def a_thread(box: Box) -> None:
    for _ in range(3):
        add(box)
        await to_thread.run_sync(add, box)
    add(box)


async def a_thread_that_calls_back(box: Box) -> None:
    def work() -> None:
        add(box)
        from_thread.run(slowly, box)
        add(box)
        from_thread.run_sync(add, box)
        add(box)

    for _ in range(2):
        await to_thread.run_sync(work)
        add(box)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "program",
    [
        a_lock,
        a_semaphore,
        a_limiter,
        a_stream,
        a_buffered_stream,
        a_start,
        a_thread,
        a_thread_that_calls_back,
    ],
)
def test_a_hand_over_is_no_race(tmp_path: Path, backend: str, program: Program) -> None:
    assert run(tmp_path, backend, program) == []


async def nothing_between_tasks(box: Box) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(slowly, box)


async def a_semaphore_of_two(box: Box) -> None:
    two = anyio.Semaphore(2)

    async def work() -> None:
        async with two:
            await slowly(box)

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(work)


@pytest.mark.parametrize("program", [nothing_between_tasks, a_semaphore_of_two])
def test_what_is_not_guarded_is_one(tmp_path: Path, program: Program) -> None:
    found = run(tmp_path, "asyncio", program)
    assert [(race.kind, race.subject, race.grade) for race in found] == [
        ("lost_update", "Box.value", "observed")
    ]
