"""Threads of probes: nobody sees them, waits for them or is warned of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyscope.probes.background import Background
from tests.unit.watching import until

ROOT = Path(__file__).parents[2]


class Ticking:
    def __init__(self, failing: bool = False) -> None:
        self.ticks = 0
        self.faults = 0
        self.failing = failing
        self.thread = Background(self.body, self.fault)

    def body(self) -> None:
        while not self.thread.pause(0.001):
            self.ticks += 1
            if self.failing:
                raise ValueError("a defect of the probe")

    def fault(self) -> None:
        self.faults += 1

    def ticks_on(self) -> bool:
        before = self.ticks
        until(lambda: self.ticks > before, "a tick")
        return True


@pytest.fixture
def ticking() -> Iterator[Ticking]:
    ticking = Ticking()
    ticking.thread.start()
    yield ticking
    ticking.thread.stop()


def test_it_runs_until_it_is_stopped_and_can_be_started_again(ticking: Ticking) -> None:
    assert ticking.ticks_on()
    ticking.thread.start()
    ticking.thread.stop()
    assert not ticking.thread.alive
    before = ticking.ticks
    time.sleep(0.02)
    assert ticking.ticks == before
    ticking.thread.stop()
    ticking.thread.start()
    assert ticking.ticks_on()


def test_the_program_s_own_list_of_threads_does_not_hold_it(ticking: Ticking) -> None:
    before = threading.enumerate()
    other = Ticking()
    other.thread.start()
    assert ticking.ticks_on()
    assert other.ticks_on()
    assert threading.enumerate() == before
    assert threading.active_count() == len(before)
    other.thread.stop()


def test_an_error_ends_it_and_is_counted() -> None:
    ticking = Ticking(failing=True)
    ticking.thread.start()
    until(lambda: not ticking.thread.alive, "its end")
    assert ticking.faults == 1
    ticking.thread.stop()


def test_one_that_rests_is_started_anew_also_while_it_still_ends() -> None:
    begun: list[int] = []
    faults: list[int] = []
    may_end = threading.Event()

    def body() -> None:
        begun.append(1)
        if len(begun) == 1:
            assert not thread.rest(lambda: False)
            assert thread.rest(lambda: True)
            may_end.wait()
        else:
            while not thread.pause(0.001):
                pass

    thread = Background(body, lambda: faults.append(1))
    thread.start()
    until(lambda: not thread.alive, "its rest")
    thread.start()
    until(lambda: len(begun) == 2, "its return")
    may_end.set()
    time.sleep(0.02)
    assert thread.alive
    thread.stop()
    assert not thread.alive
    assert not faults


_FORK = """
import os, warnings
from tests.unit.test_background_threads import Ticking
from tests.unit.watching import until

ticking = Ticking()
ticking.thread.start()
assert ticking.ticks_on()
with warnings.catch_warnings(record=True) as given:
    warnings.simplefilter("always")  # 3.12 and later warn of forks in processes with threads
    pid = os.fork()
if pid == 0:
    code = 1
    try:
        alive = ticking.thread.alive
        ticking.thread.stop()
        ticking.thread.start()
        code = 0 if not alive and ticking.ticks_on() else 2
    finally:
        os._exit(code)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0
assert given == [], given
until(lambda: ticking.thread.alive, "its return")
assert ticking.ticks_on()
"""


def test_a_fork_meets_no_thread_and_both_sides_go_on() -> None:
    # In a process of its own: threads that other tests have left behind are warned of as well.
    subprocess.run([sys.executable, "-c", _FORK], cwd=ROOT, check=True, timeout=120)


def test_one_that_is_stopped_right_after_a_fork_does_not_come_back(ticking: Ticking) -> None:
    pid = os.fork()
    ticking.thread.stop()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    time.sleep(0.01)
    assert not ticking.thread.alive
