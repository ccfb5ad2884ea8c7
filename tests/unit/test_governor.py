"""The governor: what a budget quiets, what it leaves alone, and what the trace says of it."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pyscope
from pyscope.c_windows import OPEN_NS, SETTLING_NS, CCallWindows
from pyscope.errors import BackendUnavailable
from pyscope.governor import Governor, Row
from pyscope.quieting import Quieting
from pyscope.recorder import Recording
from pyscope.trace import Trace

LATEST = sys.version_info >= (3, 12)
BACKENDS = ["monitoring", "frame"] if LATEST else ["frame"]
SECONDS = 120  # a deadline that only a broken governor meets

made = 0


def tiny(number: int) -> int:
    return number


def kept(number: int) -> int:
    return number


def seldom(number: int) -> int:
    return number


def outer(times: int) -> None:
    global made
    for number in range(times):
        tiny(number)
    made += times


def spin(until: Callable[[], bool]) -> None:
    """Calls `tiny` as fast as it can until something holds."""
    end = time.monotonic() + SECONDS
    while not until():
        outer(2000)
        assert time.monotonic() < end


def numbers() -> object:
    while True:
        yield tiny(0)


def record(path: Path, body: Callable[[Recording], object], **arguments: object) -> Trace:
    global made
    made = 0
    given = {"modules": [__name__], "ring_mb": 8, "children": False, "budget": "10%"} | arguments
    with pyscope.record(path, **given) as recording:
        body(recording)
    assert recording.figures["faults"] == 0
    assert recording.governor is None or recording.governor.faults == 0
    return pyscope.load(path)


def is_quiet(recording: Recording, *, windows: int = 0) -> Callable[[], bool]:
    governor = recording.governor
    assert governor is not None
    return lambda: any(quieting.windows >= windows for quieting in list(governor.quiet.values()))


def calls(trace: Trace, name: str) -> int:
    return sum(function.calls for function in trace.functions if function.name == name)


@pytest.mark.parametrize("mode", ["stream", "flight"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_called_most_is_quieted_and_its_calls_are_estimated(
    tmp_path: Path, backend: str, mode: str
) -> None:
    trace = record(
        tmp_path / "r.pyscope",
        lambda recording: spin(is_quiet(recording, windows=4)),
        backend=backend,
        mode=mode,
    )
    rows = [loss for loss in trace.losses if loss.reason == "quieted" and loss.function >= 0]
    [function] = [function for function in trace.functions if function.name == "tiny"]
    estimated = function.calls + function.unrecorded_calls

    assert {trace.functions[loss.function].name for loss in rows} >= {"tiny"}
    assert all(loss.low <= loss.count <= loss.high for loss in rows)
    assert all(trace.start_ns <= loss.start_ns <= loss.end_ns <= trace.end_ns for loss in rows)
    assert "tiny" in rows[0].detail
    assert function.estimated
    if mode == "stream":
        assert function.calls < made
        assert made / 5 < estimated < made * 5  # windows are few here, and others use the machine too


def test_a_function_that_is_to_be_kept_is_recorded_in_full(tmp_path: Path) -> None:
    times = 0

    def body(recording: Recording) -> None:
        def until() -> bool:
            nonlocal times
            times += 1
            kept(times)
            return is_quiet(recording)()

        spin(until)

    trace = record(tmp_path / "r.pyscope", body, keep=[f"{__name__}.kept"], backend=BACKENDS[0])
    if LATEST:
        assert calls(trace, "kept") == times
    assert not any(function.estimated for function in trace.functions if function.name == "kept")


def test_what_is_called_seldom_is_not_quieted(tmp_path: Path) -> None:
    trace = record(tmp_path / "r.pyscope", lambda _: [seldom(n) for n in range(200)])
    assert calls(trace, "seldom") == 200
    assert not [loss for loss in trace.losses if loss.reason == "quieted" and loss.function >= 0]


@pytest.mark.skipif(not LATEST, reason="sys.monitoring came with 3.12")
def test_a_call_that_is_open_when_its_function_is_quieted_ends_there(tmp_path: Path) -> None:
    def down(n: int) -> int:
        return n if n == 0 else down(n - 1)

    def body(recording: Recording) -> None:
        end = time.monotonic() + SECONDS
        while not is_quiet(recording, windows=2)():
            down(50)
            assert time.monotonic() < end
        seldom(1)

    trace = record(tmp_path / "r.pyscope", body, backend="monitoring")
    [call] = trace.find(function="seldom")
    assert call.parent is None or call.parent.function in ("body", "<lambda>")
    assert not [c for c in trace.find(function="*down") if c.outcome in ("raised", "open")]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_function_that_has_become_rare_is_armed_again(tmp_path: Path, backend: str) -> None:
    again = 0

    def body(recording: Recording) -> None:
        nonlocal again
        assert recording.governor is not None
        spin(is_quiet(recording))
        end = time.monotonic() + SECONDS
        while recording.governor.quiet:
            sum(range(10_000))  # no call of Python
            assert time.monotonic() < end
        outer(10)
        again = 10

    trace = record(tmp_path / "r.pyscope", body, backend=backend, budget="10%")
    last = trace.find(function="outer")[-1]
    assert [call.function for call in last.children()] == ["tiny"] * again


def test_generators_are_quieted_too(tmp_path: Path) -> None:
    def body(recording: Recording) -> None:
        source = numbers()
        end = time.monotonic() + SECONDS
        governor = recording.governor
        assert governor is not None
        while len(governor.quiet) < 2:
            for _ in range(2000):
                next(source)  # type: ignore[call-overload]
            assert time.monotonic() < end

    trace = record(tmp_path / "r.pyscope", body, backend=BACKENDS[0])
    assert calls(trace, "numbers") == 1
    assert not [c for c in trace.find(function="numbers") if c.outcome == "cut"]


@pytest.mark.skipif(not LATEST, reason="sys.monitoring came with 3.12")
def test_the_next_recording_records_what_the_last_one_had_quieted(tmp_path: Path) -> None:
    before = [sys.monitoring.get_tool(number) for number in range(6)]
    record(tmp_path / "r.pyscope", lambda recording: spin(is_quiet(recording)), backend="monitoring")
    assert [sys.monitoring.get_tool(number) for number in range(6)] == before
    for budget in (None, "50%"):
        trace = record(tmp_path / "r.pyscope", lambda _: outer(100), backend="monitoring", budget=budget)
        assert (calls(trace, "outer"), calls(trace, "tiny")) == (1, 100)


@pytest.mark.skipif(LATEST, reason="from 3.12 on single functions are disarmed")
def test_the_frame_hook_is_taken_out_where_it_costs_too_much_by_itself(tmp_path: Path) -> None:
    trace = record(
        tmp_path / "r.pyscope", lambda r: spin(lambda: r.governor is not None and 0 in r.governor.quiet)
    )
    [row] = [loss for loss in trace.losses if loss.reason == "quieted" and loss.function < 0]
    assert row.detail.startswith("every function")


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_a_fork_finds_no_thread_of_the_governor_and_it_goes_on_afterwards(tmp_path: Path) -> None:
    def body(recording: Recording) -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        spin(is_quiet(recording))

    assert record(tmp_path / "r.pyscope", body, children=True).losses


@pytest.mark.parametrize("backend", ["python", "setprofile"])
def test_a_backend_that_cannot_keep_a_budget_says_so(tmp_path: Path, backend: str) -> None:
    with pytest.raises(BackendUnavailable, match="cannot keep a budget"):
        pyscope.start(tmp_path / "r.pyscope", budget="3%", backend=backend)


# --- estimates -----------------------------------------------------------------------------------


def quieting(calls_a_window: list[int], *, window_ns: int = 1_000_000) -> Quieting:
    found = Quieting(0, 1, 0, 0, 0.0, 10_000_000.0, 1000, 0.0)
    for number, seen in enumerate(calls_a_window):
        found.sampled(window_ns, 0.0, seen, 2 * seen, number)
    return found


def test_an_estimate_holds_the_truth_about_as_often_as_it_claims() -> None:
    chance = random.Random(7)
    hits = 0
    for _ in range(200):
        rate = chance.uniform(1e3, 1e6)
        seen = [round(rate * 0.001 * chance.uniform(0.5, 1.5)) for _ in range(12)]
        low_high = quieting(seen).estimate(10_000_000_000)
        hits += low_high.low <= rate * (10 - 0.012) <= low_high.high
    assert hits >= 180


def test_few_windows_give_a_wide_interval_and_many_a_narrow_one() -> None:
    one, many = (quieting([100] * number).estimate(10**10) for number in (1, 50))
    assert one.high - one.low > many.high - many.low
    assert many.low <= many.calls <= many.high


def test_no_call_in_any_window_is_not_taken_for_none_at_all() -> None:
    found = quieting([0] * 6).estimate(10**10)
    assert found.calls == found.low == 0
    assert found.high > 0


# --- windows of C calls --------------------------------------------------------------------------


class _SlowToRead:
    """A hook that has so many functions that each look takes 4 ms."""

    def __init__(self) -> None:
        self.looks = 0

    def event_totals(self) -> list[Row]:
        self.looks += 1
        end = time.thread_time() + 0.004
        while time.thread_time() < end:
            pass
        return [(code, 1000, 500, 500, True) for code in range(100)]

    def quiet(self, codes: list[int]) -> list[int]:
        return []

    arm = quiet

    def hold_out(self, out: bool) -> bool:
        return False

    def frames(self) -> int:
        return 0

    def set_window(self, is_open: bool) -> None: ...

    def note_quieting(self, *row: int) -> None: ...

    def now(self) -> int:
        return 0

    def figures(self) -> dict[str, int]:
        return {}


def governed(hook: _SlowToRead, *, seconds: float, event_ns: float) -> None:
    """A budget of 5 % on a program that is busy for so long."""
    half = event_ns / 2
    governor = Governor(
        hook, 0.05, mechanism_ns=half, record_ns=half, frame=False, keeps=False, c_calls=False
    )
    governor.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    governor.stop()
    assert governor.faults == 0


def test_looking_around_takes_a_small_part_of_the_budget() -> None:
    hook = _SlowToRead()
    governed(hook, seconds=1.5, event_ns=20)
    assert 1 <= hook.looks <= 10


class _SlowAndQuiet(_SlowToRead):
    """The same, of which functions can be quieted, so that windows come; then they are hardly called."""

    def __init__(self) -> None:
        super().__init__()
        self.silent: set[int] = set()

    def event_totals(self) -> list[Row]:
        rows = super().event_totals()
        return [row for row in rows if row[0] not in self.silent]

    def quiet(self, codes: list[int]) -> list[int]:
        self.silent.update(codes)
        return codes

    def arm(self, codes: list[int]) -> list[int]:
        return codes


def test_windows_pay_for_the_looks_that_they_come_with() -> None:
    hook = _SlowAndQuiet()
    governed(hook, seconds=3, event_ns=200)
    assert hook.silent
    assert 3 <= hook.looks <= 16  # three for a window; twice as many where windows were not charged for them


class _Switch:
    def __init__(self) -> None:
        self.is_open = False

    def set_window(self, is_open: bool) -> None:
        self.is_open = is_open


@pytest.mark.parametrize("slowdown", [1.1, 2.0, 8.0])
def test_windows_of_c_calls_take_their_share_however_much_they_slow_the_program(slowdown: float) -> None:
    switch = _Switch()
    windows = CCallWindows(switch, 0.02)  # type: ignore[arg-type]
    step, cpu, events, lost = 5_000_000, 0.0, 0.0, 0.0
    for now in range(0, 600 * 10**9, step):  # ten minutes of a program that never rests
        windows.step(now, int(cpu), int(events), disturbed=False)
        cpu += step
        events += step / 1000 / (slowdown if switch.is_open else 1)
        lost += step * (1 - 1 / slowdown) if switch.is_open else 0
    assert 0.003 < lost / cpu < 0.03
    assert OPEN_NS > SETTLING_NS
