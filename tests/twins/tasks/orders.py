"""Tasks that wait for each other: await, events, queues, conditions, barriers, futures; threads beside the loop."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.twins.races import RaceCase, Stage


class Work:
    def __init__(self) -> None:
        self.total = 0
        self.state = "new"


async def _add(work: Work, value: int) -> None:
    total = work.total
    await asyncio.sleep(0)
    work.total = total + value


def _add_at_once(work: Work, value: int) -> None:
    work.total = work.total + value


async def gather_faulty(stage: Stage) -> None:
    work = stage.watch(Work())
    await asyncio.gather(*(_add(work, value) for value in range(3)))


async def gather_fixed(stage: Stage) -> None:
    """The tasks compute, and one adds up."""
    work = stage.watch(Work())

    async def compute(value: int) -> int:
        await asyncio.sleep(0)
        return value

    for value in await asyncio.gather(*(compute(value) for value in range(3))):
        await _add(work, value)
    assert work.total == 3


async def task_group_faulty(stage: Stage) -> None:
    work = stage.watch(Work())
    async with asyncio.TaskGroup() as group:
        for value in range(3):
            group.create_task(_add(work, value))


async def task_group_fixed(stage: Stage) -> None:
    work = stage.watch(Work())
    for value in range(3):
        async with asyncio.TaskGroup() as group:
            group.create_task(_add(work, value))
        await _add(work, value)
    assert work.total == 6


async def fire_and_forget_faulty(stage: Stage) -> None:
    work = stage.watch(Work())
    task = asyncio.create_task(_add(work, 1))
    total = work.total
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    work.total = total + 1
    await task


async def awaited_fixed(stage: Stage) -> None:
    work = stage.watch(Work())
    if work.state == "new":
        for value in (1, 2):
            await asyncio.create_task(_add(work, value))
            await _add(work, value)
        work.state = "done"
    assert work.total == 6


async def awaited_late_fixed(stage: Stage) -> None:
    """The second task has ended long before it is awaited."""
    work = stage.watch(Work())

    async def slow() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    first, second = asyncio.create_task(slow()), asyncio.create_task(_add(work, 1))
    await first
    await second
    await _add(work, 1)


async def event_faulty(stage: Stage) -> None:
    work, ready = stage.watch(Work()), asyncio.Event()

    async def prepare() -> None:
        total = work.total
        ready.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        work.total = total + 1

    async def use() -> None:
        await ready.wait()
        _add_at_once(work, 2)

    await asyncio.gather(use(), prepare())
    assert work.total == 1


async def event_fixed(stage: Stage) -> None:
    work, ready = stage.watch(Work()), asyncio.Event()

    async def prepare() -> None:
        await _add(work, 1)
        ready.set()
        await asyncio.sleep(0)

    async def use() -> None:
        await ready.wait()
        await _add(work, 2)

    await asyncio.gather(use(), prepare())
    assert work.total == 3


async def queue_faulty(stage: Stage) -> None:
    work, tasks = stage.watch(Work()), asyncio.Queue[Work]()

    async def produce() -> None:
        if work.state == "new":
            await tasks.put(work)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            work.state = "queued"

    async def consume() -> None:
        (await tasks.get()).state = "running"

    await asyncio.gather(produce(), consume())
    assert work.state == "queued"


async def queue_fixed(stage: Stage) -> None:
    work, tasks, done = stage.watch(Work()), asyncio.Queue[Work](), asyncio.Queue[Work]()

    async def produce() -> None:
        if work.state == "new":
            work.state = "queued"
            await tasks.put(work)
            finished = await done.get()
            if finished.state == "running":
                finished.state = "done"

    async def consume() -> None:
        work = await tasks.get()
        work.state = "running"
        await done.put(work)

    await asyncio.gather(produce(), consume())
    assert work.state == "done"


async def condition_faulty(stage: Stage) -> None:
    work, changed = stage.watch(Work()), asyncio.Condition()
    work.total = 1

    async def take() -> None:
        async with changed:
            enough = work.total >= 1
        await asyncio.sleep(0)
        if enough:
            async with changed:
                work.total -= 1

    await asyncio.gather(take(), take())
    assert work.total == -1


async def condition_fixed(stage: Stage) -> None:
    work, changed = stage.watch(Work()), asyncio.Condition()

    async def take() -> None:
        async with changed:
            while work.total < 1:
                await changed.wait()
            work.total -= 1

    async def put() -> None:
        async with changed:
            work.total += 1
            changed.notify()

    await asyncio.gather(take(), put())
    assert work.total == 0


async def barrier_faulty(stage: Stage) -> None:
    work, barrier = stage.watch(Work()), asyncio.Barrier(2)

    async def phase(value: int) -> None:
        await barrier.wait()
        await _add(work, value)

    await asyncio.gather(phase(1), phase(2))


async def barrier_fixed(stage: Stage) -> None:
    work, barrier = stage.watch(Work()), asyncio.Barrier(2)

    async def first() -> None:
        await _add(work, 1)
        await barrier.wait()
        await barrier.wait()
        await _add(work, 1)

    async def second() -> None:
        await barrier.wait()
        await _add(work, 2)
        await barrier.wait()

    await asyncio.gather(first(), second())
    assert work.total == 4


async def future_faulty(stage: Stage) -> None:
    work, answer = stage.watch(Work()), asyncio.get_running_loop().create_future()

    async def ask() -> None:
        total = work.total
        work.total = total + await answer

    async def reply() -> None:
        _add_at_once(work, 5)
        answer.set_result(1)

    async def other() -> None:
        _add_at_once(work, 7)

    await asyncio.gather(ask(), other(), reply())
    assert work.total == 1


async def future_fixed(stage: Stage) -> None:
    work, answer = stage.watch(Work()), asyncio.get_running_loop().create_future()

    async def ask() -> None:
        await answer
        await _add(work, 1)

    async def reply() -> None:
        await _add(work, 2)
        answer.set_result(None)

    await asyncio.gather(ask(), reply())
    assert work.total == 3


async def thread_faulty(stage: Stage) -> None:
    """A thread changes what the loop's task is at."""
    work = stage.watch(Work())

    async def count() -> None:
        total = work.total
        await asyncio.sleep(0)
        while work.state == "new":
            await asyncio.sleep(0.001)
        work.total = total + 1

    def beside() -> None:
        _add_at_once(work, 2)
        work.state = "done"

    await asyncio.gather(count(), asyncio.to_thread(beside))
    assert work.total == 1


async def thread_fixed(stage: Stage) -> None:
    """The thread does its part while nobody else is at it."""
    work = stage.watch(Work())
    await _add(work, 1)
    await asyncio.to_thread(_add_at_once, work, 2)
    await _add(work, 1)
    assert work.total == 4


async def callback_faulty(stage: Stage) -> None:
    work = stage.watch(Work())

    async def count() -> None:
        total = work.total
        asyncio.get_running_loop().call_soon(_add_at_once, work, 2)
        await asyncio.sleep(0)
        work.total = total + 1

    await asyncio.create_task(count())
    assert work.total == 1


async def callback_fixed(stage: Stage) -> None:
    work = stage.watch(Work())

    async def count() -> None:
        asyncio.get_running_loop().call_soon(_add_at_once, work, 2)
        await asyncio.sleep(0)
        _add_at_once(work, 1)

    await asyncio.create_task(count())
    assert work.total == 3


async def one_after_another_faulty(stage: Stage) -> None:
    """It went well this time."""
    work = stage.watch(Work())
    turn = [0]

    async def add(number: int) -> None:
        while turn[0] < number:
            await asyncio.sleep(0)
        await _add(work, 1)
        turn[0] += 1

    await asyncio.gather(add(0), add(1))
    assert work.total == 2


async def confined_fixed(stage: Stage) -> None:
    """Each task has its own."""

    async def add() -> int:
        work = stage.watch(Work())
        await _add(work, 1)
        await _add(work, 1)
        return work.total

    assert await asyncio.gather(add(), add()) == [2, 2]


async def cancelled_faulty(stage: Stage) -> None:
    work = stage.watch(Work())

    async def run() -> None:
        if work.state == "new":
            try:
                await asyncio.sleep(30)
            finally:
                work.state = "cancelled"

    async def stop(task: asyncio.Task[Any]) -> None:
        work.state = "stopping"
        task.cancel()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    await asyncio.gather(task, asyncio.create_task(stop(task)), return_exceptions=True)


async def cancelled_fixed(stage: Stage) -> None:
    work = stage.watch(Work())

    async def run() -> None:
        if work.state == "new":
            try:
                await asyncio.sleep(30)
            finally:
                if work.state == "stopping":
                    work.state = "cancelled"

    async def stop(task: asyncio.Task[Any]) -> None:
        work.state = "stopping"
        task.cancel()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    await asyncio.gather(task, asyncio.create_task(stop(task)), return_exceptions=True)
    assert work.state == "cancelled"


_LOST = ("lost_update", "Work.total", "observed")
_STATE = ("check_then_act", "Work.state", "observed")
CASES = [
    RaceCase("gather", gather_faulty, gather_fixed, _LOST),
    RaceCase("task group", task_group_faulty, task_group_fixed, _LOST),
    RaceCase("awaited", fire_and_forget_faulty, awaited_fixed, _LOST),
    RaceCase("awaited late", fire_and_forget_faulty, awaited_late_fixed, _LOST),
    RaceCase("event", event_faulty, event_fixed, _LOST),
    RaceCase("queue", queue_faulty, queue_fixed, _STATE),
    RaceCase("condition", condition_faulty, condition_fixed, ("check_then_act", "Work.total", "observed")),
    RaceCase("barrier", barrier_faulty, barrier_fixed, _LOST),
    RaceCase("future", future_faulty, future_fixed, _LOST),
    RaceCase("thread beside the loop", thread_faulty, thread_fixed, _LOST),
    RaceCase("callback", callback_faulty, callback_fixed, _LOST),
    RaceCase(
        "confined to a task",
        one_after_another_faulty,
        confined_fixed,
        ("lost_update", "Work.total", "possible"),
    ),
    RaceCase("cancelled", cancelled_faulty, cancelled_fixed, _STATE),
]
