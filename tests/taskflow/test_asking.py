"""Asking actors from coroutines: awaited, bounded in time, cancellable, and across restarts."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from taskflow.actors.asking import ask
from taskflow.errors import Busy
from taskflow.supervision import ChildSpec, Supervisor
from tests.taskflow.children import Child, Diary, Stuck

LONG = 60.0


class Clerk(Child):
    """Does what it is asked."""

    capacity = 2

    def echo(self, value: Any) -> Any:
        return value

    def do(self, work: Callable[[], Any]) -> Any:
        return work()


@pytest.fixture
def clerk() -> Any:
    clerk = Clerk("clerk", Diary())
    clerk.launch()
    yield clerk
    clerk.shutdown()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_an_answer_is_awaited_while_the_loop_goes_on(clerk: Clerk) -> None:
    async def main() -> None:
        stuck = Stuck()
        answer = asyncio.ensure_future(ask(lambda: clerk, "do", stuck, seconds=LONG))
        await until(stuck.entered.is_set)
        await asyncio.sleep(0)  # the loop turns although the actor is busy
        assert not answer.done()
        stuck.released.set()
        assert await answer is None
        assert await ask(lambda: clerk, "echo", "hello", seconds=LONG) == "hello"

    asyncio.run(main())


def test_an_error_of_the_actor_is_the_askers(clerk: Clerk) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await ask(lambda: clerk, "do", lambda: 1 // 0, seconds=LONG)

    asyncio.run(main())


def test_a_timeout_of_the_actors_own_is_not_taken_for_the_askers(clerk: Clerk) -> None:
    def late() -> None:
        raise TimeoutError("of the actor")

    async def main() -> None:
        with pytest.raises(TimeoutError, match="of the actor"):
            await ask(lambda: clerk, "do", late, seconds=LONG)

    asyncio.run(main())


def test_no_answer_in_time_is_busy_and_what_had_not_begun_never_happens(clerk: Clerk) -> None:
    done: list[str] = []

    async def main() -> None:
        stuck = Stuck()
        first = asyncio.ensure_future(ask(lambda: clerk, "do", stuck, seconds=LONG))
        await until(stuck.entered.is_set)
        with pytest.raises(Busy, match=r"no answer within 0\.01 s"):
            await ask(lambda: clerk, "do", lambda: done.append("late"), seconds=0.01)
        stuck.released.set()
        await first
        await ask(lambda: clerk, "echo", "after", seconds=LONG)

    asyncio.run(main())
    assert done == []


def test_what_was_begun_in_time_is_waited_for_however_long_it_takes(clerk: Clerk) -> None:
    # Busy would say that nothing was done, and whoever believes that asks for it a second time.
    async def main() -> None:
        stuck = Stuck()
        asked = asyncio.ensure_future(ask(lambda: clerk, "do", stuck, seconds=1.0))
        await until(stuck.entered.is_set)
        await asyncio.sleep(1.2)
        assert not asked.done()
        stuck.released.set()
        assert await asked is None

    asyncio.run(main())


def test_a_cancelled_asker_withdraws_its_message(clerk: Clerk) -> None:
    done: list[str] = []

    async def main() -> None:
        stuck = Stuck()
        first = asyncio.ensure_future(ask(lambda: clerk, "do", stuck, seconds=LONG))
        await until(stuck.entered.is_set)
        second = asyncio.ensure_future(ask(lambda: clerk, "do", lambda: done.append("no"), seconds=LONG))
        await until(lambda: clerk.message_queue_length == 1)
        second.cancel()
        first.cancel()  # begun: it cannot be undone, and its answer goes nowhere
        for cancelled in (first, second):
            with pytest.raises(asyncio.CancelledError):
                await cancelled
        stuck.released.set()
        assert await ask(lambda: clerk, "echo", "after", seconds=LONG) == "after"

    asyncio.run(main())
    assert done == []


def test_a_full_mailbox_is_busy_at_once(clerk: Clerk) -> None:
    async def main() -> None:
        stuck = Stuck()
        asked = [asyncio.ensure_future(ask(lambda: clerk, "do", stuck, seconds=LONG))]
        await until(stuck.entered.is_set)
        asked += [asyncio.ensure_future(ask(lambda: clerk, "echo", n, seconds=LONG)) for n in (1, 2)]
        await until(lambda: clerk.message_queue_length == 2)
        with pytest.raises(Busy, match="2 messages wait already"):
            await ask(lambda: clerk, "echo", 3, seconds=LONG)
        stuck.released.set()
        assert await asyncio.gather(*asked) == [None, 1, 2]

    asyncio.run(main())


def test_what_waited_in_a_crashed_actor_is_done_by_its_successor() -> None:
    diary = Diary()

    def make() -> Clerk:
        return Clerk("clerk", diary)

    def find() -> Any:
        return root.whereis("clerk")

    async def main() -> None:
        stuck = Stuck()

        def crash() -> None:
            stuck()
            raise RuntimeError("in the middle")

        crashing = asyncio.ensure_future(ask(find, "do", crash, seconds=LONG))
        await until(stuck.entered.is_set)
        waiting = [asyncio.ensure_future(ask(find, "echo", number, seconds=LONG)) for number in (1, 2)]
        await until(lambda: find().message_queue_length == 2)
        stuck.released.set()
        with pytest.raises(RuntimeError, match="in the middle"):
            await crashing
        assert await asyncio.gather(*waiting) == [1, 2]

    with Supervisor("root", [ChildSpec("clerk", make)]) as root:
        asyncio.run(main())
        assert len(diary.made) == 2


def test_an_actor_that_does_not_come_back_is_busy() -> None:
    async def main() -> None:
        with pytest.raises(Busy):
            await ask(lambda: None, "echo", seconds=0.05)

    asyncio.run(main())


def test_an_answer_after_the_loop_has_ended_harms_nobody(clerk: Clerk) -> None:
    stuck = Stuck()

    async def main() -> None:
        asked: Coroutine[Any, Any, Any] = ask(lambda: clerk, "do", stuck, seconds=LONG)
        task = asyncio.ensure_future(asked)
        await until(stuck.entered.is_set)
        task.cancel()

    asyncio.run(main())
    stuck.released.set()
    assert clerk.actor_ref.ask("hello") == "hello"
