"""Races: what makes one observed or only possible, what is silent, and what is said of it."""

from __future__ import annotations

import _thread
import asyncio
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyscope
from pyscope import emitter, probes
from pyscope.analysis import races
from pyscope.analysis.happens_before import Moment, Strand, happened_before
from pyscope.analysis.windows import Accesses, Touch, find, includes, judge, relies
from pyscope.events.actors import MESSAGE_ANSWERED, MESSAGE_HANDLED, MESSAGE_RECEIVED, MESSAGE_SENT
from pyscope.events.sync import AccessFlag, Operation
from pyscope.findings import Race
from pyscope.rows import Location
from tests.twins.races import PATIENCE, Stage


class Box:
    def __init__(self) -> None:
        self.value = 0
        self.table: dict[Any, int] = {}
        self.lock = threading.Lock()


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., list[Race]]:
    """The races of a program's run."""

    def run(program: Callable[[Stage], object], patience: float = PATIENCE) -> list[Race]:
        with pyscope.record(
            tmp_path / "x.pyscope", modules=["test_races"], probes=["sync", "accesses"], ring_mb=4
        ):
            program(Stage(patience))
        return races.find(pyscope.load(tmp_path / "x.pyscope"))

    return run


Found = Callable[..., list[Race]]


def test_a_race_says_who_did_what_where_and_what_to_change(found: Found) -> None:
    def program(stage: Stage) -> None:
        box = stage.watch(Box())

        def add() -> None:
            value = box.value
            stage.pause()
            box.value = value + 1

        stage.together(add, add)

    [race] = found(program)
    assert (race.kind, race.subject, race.grade, race.count) == ("lost_update", "Box.value", "observed", 1)
    assert [access.operation for access in race.accesses] == ["read", "write", "write"]
    times = [access.time_ns for access in race.accesses]
    assert times == sorted(times)
    read, foreign, write = race.accesses
    assert read.thread == write.thread != foreign.thread
    assert read.stack[0] == read.location
    assert read.location.function.endswith("add")
    assert write.location.line == read.location.line + 2
    assert "was overwritten" in race.explanation
    assert f"lines {read.location.line}–{write.location.line} of test_races.py" in race.suggestion
    assert "threading.Lock" in race.suggestion


def test_one_thread_alone_and_readers_alone_are_no_race(found: Found) -> None:
    def alone(stage: Stage) -> None:
        box = stage.watch(Box())
        for _ in range(3):
            box.value += 1

    def readers(stage: Stage) -> None:
        box = stage.watch(Box())
        stage.together(lambda: box.value > 1, lambda: box.value > 1)

    assert found(alone) == []
    assert found(readers) == []


def test_the_same_race_is_told_once_with_how_often_it_was_found(found: Found) -> None:
    def program(stage: Stage) -> None:
        def add(box: Box) -> None:
            value = box.value
            stage.pause()
            box.value = value + 1

        for _ in range(3):
            box = stage.watch(Box())
            part = Stage(PATIENCE)
            stage.pause = part.pause  # type: ignore[method-assign]
            part.together(lambda box=box: add(box), lambda box=box: add(box))  # type: ignore[misc]

    [race] = found(program)
    assert race.count == 3


def test_two_sections_under_one_lock_are_possible_though_nobody_came_between(found: Found) -> None:
    def program(stage: Stage) -> None:
        box = stage.watch(Box())

        def add() -> None:
            with box.lock:
                value = box.value
            with box.lock:
                box.value = value + 1

        stage.together(add, add)

    [race] = found(program)
    assert race.grade == "possible"
    assert "would be overwritten" in race.explanation


def test_where_a_lock_may_be_held_that_is_not_seen_a_race_is_at_most_possible(tmp_path: Path) -> None:
    hidden = _thread.allocate_lock()  # in a local variable of this function: it cannot be replaced
    held = probes.acquire(["sync", "accesses"])
    box = Box()

    def program(stage: Stage) -> None:
        stage.watch(box)

        def add() -> None:
            value = box.value
            stage.pause()
            box.value = value + 1

        stage.together(add, add)

    with pyscope.record(tmp_path / "x.pyscope", modules=["test_races"], ring_mb=4):
        program(Stage(PATIENCE))
    probes.release(held)
    assert not hidden.locked()
    [race] = races.find(pyscope.load(tmp_path / "x.pyscope"))
    assert race.grade == "possible"


def test_an_element_whose_key_is_not_known_is_at_most_possible(found: Found) -> None:
    def program(stage: Stage) -> None:
        box = stage.watch(Box())

        def put() -> None:
            if str(1) not in box.table:
                stage.pause()
                box.table[str(1)] = 1

        stage.together(put, put)

    assert [race.grade for race in found(program)] == ["possible"]


def test_a_write_that_was_refused_did_not_happen(found: Found) -> None:
    class Careful(Box):
        def __setattr__(self, name: str, value: Any) -> None:
            if value == -1:
                raise ValueError(name)
            super().__setattr__(name, value)

    def program(stage: Stage) -> None:
        box = stage.watch(Careful())

        def add() -> None:
            value = box.value
            stage.pause()
            box.value = value + 1

        def refused() -> None:
            with pytest.raises(ValueError, match="value"):
                box.value = -1

        stage.together(add, refused)

    assert found(program) == []


def test_a_task_that_may_have_been_waited_for_makes_a_race_only_possible(found: Found) -> None:
    def program(stage: Stage) -> None:
        async def main() -> None:
            box = stage.watch(Box())

            async def child() -> None:
                box.value += 1

            value = box.value
            task = asyncio.create_task(child())
            await asyncio.sleep(0.001)
            await task  # it has ended: nothing is to be seen of this
            box.value = value + 1

        asyncio.run(main())

    assert [race.grade for race in found(program)] == ["possible"]


def test_a_message_and_its_answer_order_what_sender_and_receiver_do(found: Found) -> None:
    def program(stage: Stage) -> None:
        box = stage.watch(Box())
        box.value = 1
        letters: list[int] = []
        posted, answered = _thread.allocate_lock(), _thread.allocate_lock()
        posted.acquire()
        answered.acquire()

        def actor() -> None:
            posted.acquire()
            emitter.emit(MESSAGE_RECEIVED.kind, letters[0], 1, 0, 0, 0, 0)
            box.value += 1
            emitter.emit(MESSAGE_HANDLED.kind, letters[0], 1, 0, 0, "")
            answered.release()

        def sender() -> None:
            if box.value == 1:
                letters.append(emitter.next_id())
                if tells:
                    emitter.emit(MESSAGE_SENT.kind, letters[0], 1, 0, 0, 0, 0)
                posted.release()
                answered.acquire()
                if tells:
                    emitter.emit(MESSAGE_ANSWERED.kind, letters[0], 1)
                box.value = 3

        threads = [threading.Thread(target=target) for target in (actor, sender)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    tells = True
    assert found(program) == []
    tells = False
    assert "observed" in [race.grade for race in found(program)]


def test_a_living_recording_and_a_saved_one_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.pyscope"
    with pyscope.record(path, modules=["test_races"], probes=["sync", "accesses"], ring_mb=4) as recording:
        stage = Stage(PATIENCE)
        box = stage.watch(Box())

        def add() -> None:
            value = box.value
            stage.pause()
            box.value = value + 1

        stage.together(add, add)
        living = races.find(pyscope.load(recording.dump(tmp_path / "living.pyscope")))
    saved = races.find(pyscope.load(path))
    assert len(living) == 1
    assert [(race.kind, race.explanation) for race in living] == [
        (race.kind, race.explanation) for race in saved
    ]


def test_a_trace_without_accesses_has_no_races(tmp_path: Path) -> None:
    with pyscope.record(tmp_path / "x.pyscope", modules=["test_races"], probes=["sync"], ring_mb=4):
        items = queue.Queue[int]()
        items.put(1)
        items.get()
    assert races.find(pyscope.load(tmp_path / "x.pyscope")) == []


# --- windows ----------------------------------------------------------------------------------------


def _moment(strand: int, held: dict[int, int] | None = None) -> Moment:
    return Moment(strand, strand, 1, {}, {}, held or {})


CODE = {
    1: (Location("f.py", 10, "f"), Location("f.py", 1, "main")),
    2: (Location("f.py", 12, "f"), Location("f.py", 1, "main")),
    3: (Location("g.py", 5, "g"), Location("f.py", 2, "main")),
    4: (Location("f.py", 20, "f"), Location("f.py", 1, "main")),
}


def _touch(at: int, strand: int, operation: int, *, flags: int = 0, stack: int = 1, **more: Any) -> Touch:
    moment = more.pop("moment", None) or _moment(strand)
    values = {"level": 0, "task": 0, "loop_step": 0, "lines": ""} | more
    return Touch(at, at, int(operation), flags, stack=stack, moment=moment, **values)


def _kinds(*touches: Touch) -> list[tuple[str, bool]]:
    """What is found of accesses to one attribute."""
    lines = [touch.lines for touch in touches]
    columns = {
        name: np.array([getattr(touch, name) for touch in touches])
        for name in ("strand", "operation", "flags", "level", "task", "loop_step", "stack")
    }
    nothing = np.zeros(len(touches), np.int64)
    accesses = Accesses(
        number=np.arange(len(touches)),
        subject=nothing,
        attribute=nothing,
        lines=np.arange(len(touches)),
        whole=nothing.astype(bool),
        **columns,
    )

    def relies_on(read: int, write: int, renewed: bool) -> bool:
        first, second = touches[read], touches[write]
        return relies(CODE[first.stack], first.level, first.flags, lines[read], CODE[second.stack], renewed)

    closed = find(accesses, relies_on)
    judged = [judge(windows, dict(enumerate(touches))) for windows in closed]
    return [(broken.kind, broken.observed) for group in judged for broken in group]


READ, WRITE, CLAIM = Operation.READ, Operation.WRITE, Operation.CONTENT_CLAIM
CHECK = int(AccessFlag.CHECK)


def test_the_rule_of_windows() -> None:
    foreign = _touch(2, 2, WRITE, stack=3)
    check, read = _touch(1, 1, READ, flags=CHECK), _touch(1, 1, READ)
    write = _touch(4, 1, WRITE, stack=2)
    assert _kinds(check, foreign, write) == [("check_then_act", True)]
    assert _kinds(read, foreign, write) == [("lost_update", True)]
    # reading again is no check; checking again is
    again, checked_again = _touch(3, 1, READ), _touch(3, 1, READ, flags=CHECK)
    assert _kinds(check, foreign, again, write) == [("check_then_act", True)]
    assert ("lost_update", True) not in _kinds(read, foreign, again, write)
    assert ("check_then_act", True) not in _kinds(check, foreign, checked_again, write)
    # an own write ends a window
    assert _kinds(read, _touch(2, 1, WRITE, stack=2), _touch(3, 2, WRITE, stack=3), write) == [
        ("lost_update", False)
    ]
    # what is stored does not come from what was read
    constant = _touch(4, 1, WRITE, flags=int(AccessFlag.CONSTANT), stack=2)
    assert _kinds(read, foreign, constant) == []
    # a claim checks for itself
    assert _kinds(check, foreign, _touch(4, 1, CLAIM, stack=2)) == []


def test_one_lock_held_all_along_keeps_others_out_and_two_sections_do_not() -> None:
    def touch(at: int, strand: int, operation: int, acquisition: int, **more: Any) -> Touch:
        return _touch(at, strand, operation, moment=_moment(strand, {7: acquisition}), **more)

    foreign = touch(2, 2, WRITE, 2, stack=3)
    assert _kinds(touch(1, 1, READ, 1), foreign, touch(3, 1, WRITE, 1, stack=2)) == []
    assert _kinds(touch(1, 1, READ, 1), foreign, touch(3, 1, WRITE, 3, stack=2)) == [("lost_update", True)]


def test_a_check_that_does_not_decide_about_the_write_is_none_of_its_window() -> None:
    known = CHECK | int(AccessFlag.BRANCHES)
    foreign, write = _touch(2, 2, WRITE, stack=3), _touch(3, 1, WRITE, stack=4)
    assert _kinds(_touch(1, 1, READ, flags=known, lines="18-22"), foreign, write) == [
        ("check_then_act", True)
    ]
    assert _kinds(_touch(1, 1, READ, flags=known, lines="11-13"), foreign, write) == []


def test_a_write_relies_only_on_what_its_own_calls_have_read() -> None:
    assert relies(CODE[1], 0, 0, "", CODE[2])
    assert not relies(CODE[1], 0, 0, "", CODE[3])
    assert relies(CODE[1], 5, 0, "", CODE[3])  # where it went is not known
    assert not relies(CODE[1], 99, 0, "", CODE[2])
    assert not relies(CODE[1], 0, int(AccessFlag.DISCARDED), "", CODE[2])


def test_of_very_many_windows_some_are_looked_at_and_the_observed_one_among_them_is_found() -> None:
    quiet = [_touch(at, 1, WRITE if at % 2 else READ, stack=2 if at % 2 else 1) for at in range(2000)]
    foreign = _touch(1000, 2, WRITE, stack=3)
    touches = [*quiet[:1001], foreign, *quiet[1001:]]
    assert ("lost_update", True) in _kinds(*touches)
    assert len(_kinds(*touches)) < 100


def test_lines_are_written_as_ranges() -> None:
    assert [line for line in range(10) if includes("2-4,7", line)] == [2, 3, 4, 7]
    assert not includes("", 0)


def test_clocks_know_what_was_given_and_no_more() -> None:
    first, second = Strand(0, 0, True), Strand(1, 1, True)

    def moment(strand: Strand) -> Moment:
        strand.used = True
        return Moment(strand.number, strand.thread, strand.epoch, strand.hard, strand.full, {})

    before = moment(first)
    given = first.give()
    after = moment(first)
    assert not happened_before(before, moment(second))
    second.take(given)
    assert happened_before(before, moment(second))
    assert not happened_before(after, moment(second))
    third = Strand(2, 2, True)
    third.take(second.give())
    assert happened_before(before, moment(third))
    by_chance = Strand(3, 3, True)
    by_chance.take_by_chance(given[1])
    assert not happened_before(before, moment(by_chance))
    assert happened_before(before, moment(by_chance), by_chance=True)
