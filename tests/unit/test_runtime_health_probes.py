"""The probes of garbage collection and of event loops: pauses are told with the place, and nothing else is."""

from __future__ import annotations

import asyncio
import gc
import selectors
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pyscope import probes
from pyscope.events import EventType
from pyscope.events.runtime_health import GC_PAUSE, LOOP_BLOCKED, LOOP_LAG
from pyscope.probes import event_loop
from tests.unit.watching import Watching, watching

pytestmark = pytest.mark.filterwarnings("ignore:modules=")

LONG = 0.4  # seconds: many times the threshold


def rows(watch: Watching, event: EventType) -> list[Any]:
    return list(watch.trace.probe_events(event).records())


# Garbage collection


def test_a_full_collection_is_told_with_its_duration_and_place(tmp_path: Path) -> None:
    with watching(tmp_path, "gc") as watch:
        cycles: list[Any] = [[] for _ in range(200_000)]
        for cycle in cycles:
            cycle.append(cycle)
        del cycles, cycle
        begun = time.perf_counter_ns()
        gc.collect()
        took = time.perf_counter_ns() - begun
    full = [row for row in rows(watch, GC_PAUSE) if row.generation == 2 and row.collected >= 200_000]
    assert len(full) == 1
    assert 0 < full[0].duration_ns <= took
    assert full[0].stack[0].file == __file__
    assert full[0].uncollectable == 0


def test_gc_callbacks_are_as_found_after_removal() -> None:
    def theirs(phase: str, info: dict[str, int]) -> None:
        pass

    gc.callbacks.append(theirs)
    try:
        before = list(gc.callbacks)
        held = probes.acquire(["gc"])
        assert len(gc.callbacks) == len(before) + 1
        probes.release(held)
        assert gc.callbacks == before
    finally:
        gc.callbacks.remove(theirs)


# Event loops


def block(seconds: float) -> None:
    time.sleep(seconds)


async def blocking(seconds: float) -> str:
    await asyncio.sleep(0)
    block(seconds)
    return "done"


async def politely(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


async def in_a_thread(seconds: float) -> str:
    await asyncio.to_thread(block, seconds)
    return "done"


def run(tmp_path: Path, main: Callable[[], Coroutine[Any, Any, Any]]) -> Watching:
    with watching(tmp_path, "event_loop") as watch:
        assert asyncio.run(met(watch, main())) == "done"
        assert watch.probe("event_loop").faults == 0
    return watch


async def met(watch: Watching, main: Coroutine[Any, Any, Any]) -> Any:
    """Runs `main` once the probe knows the loop, whose code must be what it was when the probe was imported."""
    probe, loop = watch.probe("event_loop"), asyncio.get_running_loop()
    await asyncio.sleep(0)
    assert any(known is not None and known.asyncio() is loop for _, known in probe._loops.values()), (
        type(loop),
        vars(type(loop._selector)).get("select"),  # type: ignore[attr-defined]
        probe._patches._replaced,
        probe.active,
    )
    assert asyncio.Handle._run.__code__ is event_loop._RUN  # type: ignore[attr-defined]
    assert asyncio.BaseEventLoop._run_once.__code__ is event_loop._RUN_ONCE  # type: ignore[attr-defined]
    result = await main
    assert any(known is not None and known.busy_ns for _, known in probe._loops.values()), "taken for ended"
    return result


def test_a_blocking_call_is_told_with_stack_task_and_duration(tmp_path: Path) -> None:
    async def main() -> str:
        return await asyncio.create_task(blocking(LONG), name="the culprit")

    watch = run(tmp_path, main)
    [found] = [row for row in rows(watch, LOOP_BLOCKED) if row.duration_ns > LONG * 0.9e9]
    assert found.task == "the culprit"
    assert [location.function for location in found.stack[:2]] == ["block", "blocking"]
    assert found.stack[0].line == block.__code__.co_firstlineno + 1
    assert found.samples >= 1
    assert max(row.lag_ns for row in rows(watch, LOOP_LAG)) >= LONG * 0.9e9


@pytest.mark.parametrize("fixed", [politely, in_a_thread])
def test_a_loop_that_gets_its_turn_is_not_told_of(tmp_path: Path, fixed: Any) -> None:
    watch = run(tmp_path, lambda: fixed(LONG))
    assert [row for row in rows(watch, LOOP_BLOCKED) if row.duration_ns > LONG * 0.9e9] == []


def test_many_short_callbacks_are_lag_but_no_blocking_call(tmp_path: Path) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        for _ in range(40):
            loop.call_soon(time.sleep, 0.01)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "done"

    watch = run(tmp_path, main)
    assert max(row.lag_ns for row in rows(watch, LOOP_LAG)) >= 0.3e9
    assert [row for row in rows(watch, LOOP_BLOCKED) if row.duration_ns > 0.3e9] == []


def test_two_blocking_callbacks_of_one_round_are_two(tmp_path: Path) -> None:
    def first() -> None:
        block(LONG)

    def second() -> None:
        block(LONG)

    async def main() -> str:
        asyncio.get_running_loop().call_soon(first)
        asyncio.get_running_loop().call_soon(second)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "done"

    watch = run(tmp_path, main)
    places = [row.stack[1].function for row in rows(watch, LOOP_BLOCKED) if row.duration_ns > LONG * 0.8e9]
    assert [place.rpartition(".")[2] for place in places] == ["first", "second"]


def test_loops_of_several_threads_are_told_apart(tmp_path: Path) -> None:
    with watching(tmp_path, "event_loop") as watch:
        threads = [threading.Thread(target=lambda: asyncio.run(blocking(LONG))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = [row for row in rows(watch, LOOP_BLOCKED) if row.duration_ns > LONG * 0.9e9]
    assert len(found) == len({row.loop for row in found}) == len({row.thread for row in found}) == 2


def test_a_loop_that_ran_before_the_probe_is_seen_too(tmp_path: Path) -> None:
    async def main() -> list[Any]:
        await asyncio.sleep(0)
        with watching(tmp_path, "event_loop") as watch:
            await asyncio.sleep(0.01)
            await blocking(LONG)
            await asyncio.sleep(0.01)
        return rows(watch, LOOP_BLOCKED)

    assert [row.stack[0].function for row in asyncio.run(main()) if row.duration_ns > LONG * 0.9e9] == [
        "block"
    ]


def test_a_selector_that_is_no_event_loop_s_is_left_alone(tmp_path: Path) -> None:
    with watching(tmp_path, "event_loop") as watch:
        with selectors.DefaultSelector() as selector:
            assert selector.select(0) == []
            block(LONG)
            assert selector.select(timeout=0.001) == []
        assert watch.probe("event_loop")._loops == {}
        assert not watch.probe("event_loop")._watchdog.alive
    assert rows(watch, LOOP_LAG) == []


def test_errors_of_the_selector_are_the_program_s_own(tmp_path: Path) -> None:
    with watching(tmp_path, "event_loop"):
        selector = selectors.DefaultSelector()
        selector.close()
        with pytest.raises(ValueError, match="closed"):
            selector.select(0)


def test_selectors_are_as_found_after_removal_and_closed_loops_are_forgotten(tmp_path: Path) -> None:
    found = vars(selectors.DefaultSelector)["select"]
    with watching(tmp_path, "event_loop") as watch:
        assert vars(selectors.DefaultSelector)["select"] is not found
        probe = watch.probe("event_loop")
        for _ in range(3):
            asyncio.run(politely(0))
        gc.collect()
        assert probe._loops == {}
        assert probe._watchdog.alive
    assert not probe._watchdog.alive
    assert vars(selectors.DefaultSelector)["select"] is found
