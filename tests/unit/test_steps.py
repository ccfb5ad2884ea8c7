"""What probes do at each step of an event loop: compiled and in Python, the same."""

from __future__ import annotations

import asyncio
import gc
import inspect
import selectors
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pyscope import _hook
from pyscope.fallback import steps as in_python

BOTH = pytest.mark.parametrize("steps", [_hook, in_python], ids=["compiled", "python"])


class Given(Exception):
    """An exception of these tests."""


class Awaitable:
    """No coroutine: what it returns from `__await__` is a generator."""

    def __await__(self) -> Generator[Any, Any, str]:
        got = yield from asyncio.sleep(0).__await__()
        return f"awaited {got}"


async def works(events: list[str]) -> tuple[int, ...]:
    try:
        for turn in range(3):
            events.append(f"turn {turn}")
            await asyncio.sleep(0)
        return 1, 2
    except asyncio.CancelledError:
        events.append("cancelled")
        raise
    finally:
        events.append("end")


async def fails(events: list[str]) -> None:
    events.append("begins")
    await asyncio.sleep(0)
    raise Given("as asked")


@BOTH
def test_the_answer_is_the_coroutines_own(steps: Any) -> None:
    async def main() -> Any:
        return await steps.Steps(works(events))

    events: list[str] = []
    assert asyncio.run(main()) == (1, 2)
    assert events == ["turn 0", "turn 1", "turn 2", "end"]


@BOTH
def test_what_await_returns_of_another_awaitable_is_run_too(steps: Any) -> None:
    async def main() -> Any:
        return await steps.Steps(Awaitable().__await__())

    assert asyncio.run(main()) == "awaited None"


@BOTH
def test_its_exception_comes_out_as_it_is(steps: Any) -> None:
    async def main() -> None:
        await steps.Steps(fails(events))

    events: list[str] = []
    with pytest.raises(Given, match="as asked") as caught:
        asyncio.run(main())
    assert caught.value.__context__ is None
    assert events == ["begins"]


@BOTH
def test_a_cancellation_is_thrown_into_it(steps: Any) -> None:
    async def main() -> None:
        async def awaits() -> None:
            await steps.Steps(works(events))

        task = asyncio.create_task(awaits())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    events: list[str] = []
    asyncio.run(main())
    assert events == ["turn 0", "cancelled", "end"]


@BOTH
def test_a_value_can_be_sent_and_it_can_be_closed(steps: Any) -> None:
    got: list[object] = []

    def echoes() -> Generator[str, object, None]:
        try:
            while True:
                got.append((yield "more"))
        finally:
            got.append("closed")

    stepped = steps.Steps(echoes())
    assert next(stepped) == "more"
    assert stepped.send((1, 2)) == "more"
    stepped.close()
    assert got == [(1, 2), "closed"]


def around(steps: Any, coroutine: Any, told: list[object]) -> Any:
    """A coroutine with something before and after it."""

    class Told(steps.Entered):  # type: ignore[misc, name-defined]
        def enter(self) -> Any:
            told.append("enter")
            return coroutine()

        def leave(self, error: BaseException | None) -> None:
            told.append(error if error is None else type(error))

    return steps.entered(Told)()


@BOTH
def test_what_is_entered_at_the_first_step_is_left_after_the_last(steps: Any) -> None:
    async def main() -> Any:
        entered = around(steps, lambda: works(events), told)
        assert isinstance(entered, Coroutine)
        assert told == []
        return await asyncio.create_task(entered)

    events: list[str] = []
    told: list[object] = []
    assert asyncio.run(main()) == (1, 2)
    assert told == ["enter", None]


@BOTH
def test_what_is_entered_is_left_by_an_exception_a_cancellation_and_a_close(steps: Any) -> None:
    async def raises() -> None:
        with pytest.raises(Given, match="as asked"):
            await around(steps, lambda: fails([]), told)

    async def is_cancelled() -> None:
        task = asyncio.ensure_future(around(steps, lambda: works([]), told))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    told: list[object] = []
    asyncio.run(raises())
    asyncio.run(is_cancelled())
    assert told == ["enter", Given, "enter", asyncio.CancelledError]
    told.clear()
    events: list[str] = []
    closed = around(steps, lambda: works(events), told)
    closed.send(None)
    closed.close()
    closed.close()
    assert told == ["enter", GeneratorExit]
    assert events == ["turn 0", "end"]
    with pytest.raises(RuntimeError, match="cannot reuse"):
        closed.send(None)


@BOTH
def test_what_is_dropped_while_it_waits_is_left(steps: Any) -> None:
    events: list[str] = []
    told: list[object] = []
    dropped = around(steps, lambda: works(events), told)
    next(dropped)
    del dropped
    gc.collect()
    assert told == ["enter", GeneratorExit]
    assert events == ["turn 0", "end"]


@BOTH
def test_what_never_began_is_neither_entered_nor_left(steps: Any) -> None:
    told: list[object] = []
    thrown = around(steps, lambda: works([]), told)
    with pytest.raises(Given):
        thrown.throw(Given())
    around(steps, lambda: works([]), told).close()
    around(steps, lambda: works([]), told)
    assert told == []


@BOTH
def test_an_enter_that_raises_has_begun_and_ended(steps: Any) -> None:
    def refuses() -> None:
        raise Given("no")

    async def main() -> None:
        with pytest.raises(Given, match="no"):
            await around(steps, refuses, told)

    told: list[object] = []
    asyncio.run(main())
    assert told == ["enter", Given]


@BOTH
def test_who_looks_into_it_sees_the_coroutine_that_is_awaited(steps: Any) -> None:
    for stepped in (steps.Steps(works([])), around(steps, lambda: works([]), [])):
        assert inspect.iscoroutine(stepped)
        assert inspect.getcoroutinestate(stepped) != inspect.CORO_SUSPENDED
        next(stepped)
        assert inspect.getcoroutinestate(stepped) == inspect.CORO_SUSPENDED
        assert stepped.cr_frame.f_code is stepped.cr_code is works.__code__
        assert stepped.cr_await is not None
        stepped.close()
        assert inspect.getcoroutinestate(stepped) == inspect.CORO_CLOSED


@BOTH
def test_cpu_time_is_that_of_the_steps_and_not_of_the_time_between(steps: Any) -> None:
    async def main() -> int:
        stepped = steps.Steps(burns())
        await stepped
        return int(stepped.cpu_ns)

    async def burns() -> None:
        for _ in range(3):
            began = time.thread_time_ns()
            while time.thread_time_ns() - began < 10_000_000:
                pass
            await asyncio.sleep(0.1)

    assert 30_000_000 <= asyncio.run(main()) < 300_000_000


@BOTH
def test_a_step_that_waits_takes_no_cpu_time_and_many_short_ones_take_all_of_theirs(steps: Any) -> None:
    async def main() -> tuple[int, int, int]:
        waits, turns = steps.Steps(blocks()), steps.Steps(takes_turns())
        await waits
        began = time.thread_time_ns()
        await turns
        return waits.cpu_ns, turns.cpu_ns, time.thread_time_ns() - began

    async def blocks() -> None:
        for _ in range(3):
            time.sleep(0.05)
            await asyncio.sleep(0)

    async def takes_turns() -> None:
        for _ in range(3000):
            sum(range(300))
            await asyncio.sleep(0)

    waited, took, of_thread = asyncio.run(main())
    assert waited < 30_000_000
    assert of_thread / 20 < took < of_thread * 1.5


@BOTH
def test_steps_within_steps_count_in_both(steps: Any) -> None:
    inner: list[Any] = []

    async def main() -> int:
        outer = steps.Steps(around())
        await outer
        return int(outer.cpu_ns)

    async def around() -> None:
        burn(10_000_000)
        time.sleep(0.03)
        inner.append(steps.Steps(within()))
        await inner[0]
        burn(10_000_000)

    async def within() -> None:
        burn(10_000_000)
        await asyncio.sleep(0)
        time.sleep(0.03)
        burn(10_000_000)

    def burn(ns: int) -> None:
        began = time.thread_time_ns()
        while time.thread_time_ns() - began < ns:
            pass

    outer_ns = asyncio.run(main())
    assert 20_000_000 <= inner[0].cpu_ns < 35_000_000
    assert 40_000_000 <= outer_ns < 60_000_000


@asynccontextmanager
async def watched(steps: Any, late: list[tuple[Any, int]]) -> AsyncIterator[Any]:
    """An event loop whose selector is watched; gives the loop's times."""
    loop = asyncio.get_running_loop()
    selector: selectors.BaseSelector = loop._selector  # type: ignore[attr-defined]
    times = steps.LoopTimes()
    kind = type(selector)
    original = kind.select

    def meet(met: object) -> tuple[None, None]:
        return None, None

    def tell(of: Any, lag: int, now: int, run: object) -> None:
        late.append((of, lag))

    kind.select = steps.watched_select(original, {id(selector): (None, times)}, meet, tell, 20_000_000)  # type: ignore[method-assign]
    try:
        yield times
    finally:
        kind.select = original  # type: ignore[method-assign]


@BOTH
def test_a_round_that_takes_long_is_told_and_a_short_one_is_not(steps: Any) -> None:
    late: list[tuple[Any, int]] = []

    async def main() -> Any:
        async with watched(steps, late) as times:
            for _ in range(20):
                await asyncio.sleep(0)
            assert times.busy_ns > 0
            late.clear()  # a busy machine may be late without us
            await asyncio.sleep(0)
            time.sleep(0.05)
            await asyncio.sleep(0)
            return times

    times = asyncio.run(main())
    assert any(of is times and lag >= 50_000_000 for of, lag in late)


@BOTH
def test_a_selector_that_is_not_known_is_only_passed_on(steps: Any) -> None:
    asked: list[object] = []

    def meet(met: object) -> tuple[None, None]:
        asked.append(met)
        return None, None

    def original(selector: object, timeout: float | None = None) -> tuple[object, float | None]:
        return selector, timeout

    select = steps.watched_select(original, {}, meet, None, 1)
    selector = object()
    assert select(selector, 0.5) == (selector, 0.5)
    assert select(selector, timeout=None) == (selector, None)
    assert asked == [selector, selector]


@BOTH
def test_each_selector_has_its_own_loop_and_one_at_the_address_of_one_that_has_gone_another(
    steps: Any,
) -> None:
    one, other = object(), object()
    loops: dict[int, Any] = {}

    def meet(met: object) -> tuple[None, Any]:
        loops[id(met)] = None, steps.LoopTimes()
        return loops[id(met)]  # type: ignore[no-any-return]

    select = steps.watched_select(lambda selector, timeout: None, loops, meet, None, 10**18)
    for selector in (one, other, one, one):
        select(selector)
        times = loops[id(selector)][1]
        assert times.busy_ns > 0
        times.busy_ns = 0
    select(one)
    _, gone = loops.pop(id(one))
    gone.gone, gone.busy_ns = True, 0
    select(one)  # another selector, for all that is known
    assert loops[id(one)][1].busy_ns > 0
    assert gone.busy_ns == 0


@BOTH
def test_an_error_of_the_selector_comes_out_and_the_loop_counts_as_busy(steps: Any) -> None:
    def original(selector: object, timeout: float | None = None) -> None:
        raise Given("no selector")

    times, selector = steps.LoopTimes(), object()
    select = steps.watched_select(original, {id(selector): (None, times)}, None, None, 10**18)
    with pytest.raises(Given):
        select(selector)
    assert times.busy_ns > 0


@BOTH
def test_a_loop_that_is_late_ends_the_wait_and_one_on_time_does_not(steps: Any) -> None:
    waiting, on_time, late = steps.LateLoops(), steps.LoopTimes(), steps.LoopTimes()
    on_time.busy_ns = time.perf_counter_ns() + 60_000_000_000
    assert not waiting.wait([], 1_000_000, 0.001)
    assert not waiting.wait([on_time], 1_000_000, 0.001)
    late.busy_ns = time.perf_counter_ns()
    assert waiting.wait([on_time, late], 1_000_000, 0.001)
    late.busy_ns = 0  # back at its selector
    assert not waiting.wait([late], 1_000_000, 0.001)


@BOTH
def test_a_wait_ends_when_it_is_rung_also_before_it_begins(steps: Any) -> None:
    waiting, answers = steps.LateLoops(), []
    waiting.ring()
    assert not waiting.wait([], 1, 60.0)
    other = threading.Thread(target=lambda: answers.append(waiting.wait([], 1, 60.0)))
    other.start()
    time.sleep(0.02)  # the wait keeps nobody from running
    waiting.ring()
    other.join(10)
    assert answers == [False]
