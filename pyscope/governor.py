"""The governor: keeps the recorder's own cost within a budget, by quieting the functions that cost most.

The cost is estimated as the program runs: events times what an event costs on this machine (measured at the start),
and the CPU time of the recorder's own threads. Where it goes beyond the budget the functions with the most events are
disarmed, short ones first, until what is left fits. What they are called meanwhile is estimated from short windows in
which they are recorded; every quieting is a row of `trace.losses`. A function that has become rare is armed again for
good.

Under the frame hook every call costs something even if it is not recorded; where that alone is too much, the hook
itself is taken out between the windows.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import random
import sys
import time
from typing import Final, Protocol

from pyscope.c_windows import CCallWindows
from pyscope.quieting import Quieting

__all__ = ["Governor", "Hook"]

EVERYTHING: Final = 0  # the code id that stands for all functions
# An event of a service takes longer than one of a tight loop: its memory is cold, most of all that of the rarer
# functions, which are what is left. By what TaskFlow takes beyond its budget (`python -m benchmarks --only budget`).
MARGIN: Final = 3.0
# Of the budget: what recorded calls may come to before something is quieted down to it, what windows of quiet functions
# may take, and what C calls may, where they are recorded.
CALLS: Final = 0.75
WINDOWS: Final = 0.2
C_CALLS: Final = 0.4
LOOKS: Final = 0.05  # ... and what looking around may: it takes longer the more functions there are
BURST_NS: Final = 250_000_000  # of CPU time, whose budget may be spent at once
LONGEST_DEBT_NS: Final = (
    1_000_000_000  # what was spent beyond the budget is not held against the program for ever
)
WINDOW_SECONDS: Final = 0.001  # at least: the program lets go of the GIL when it likes
MOST_IN_A_WINDOW: Final = 64
NEW_CODE_NS: Final = (
    8_000  # what a code object costs when it is met first: its names, and its instrumentation
)
LEAST_WORK: Final = 0.05  # of CPU time, that the program itself has used: the estimated cost may be too high
LATELY_NS: Final = 1e9  # of CPU time
SHORTEST_WAIT, LONGEST_WAIT = 0.01, 0.1  # seconds between two looks
LONGEST_PAUSE: Final = 1.0  # ... that take long
LATER: Final = 1.1  # what is due by the CPU's time is so later by the clock on the wall
ROWS_EVERY_NS: Final = 1_000_000_000
HOLD_NS, LONGEST_HOLD_NS = 1_000_000_000, 60_000_000_000  # how long a function stays quiet at least
MOST_FAULTS: Final = 3

Row = tuple[int, int, int, int, bool]  # code, events, calls, calls of a leaf, whether it may be quieted


class Hook(Protocol):
    """What the governor uses of `pyscope._hook`."""

    def event_totals(self) -> list[Row]: ...
    def quiet(self, codes: list[int]) -> list[int]: ...
    def arm(self, codes: list[int]) -> list[int]: ...
    def hold_out(self, out: bool) -> bool: ...
    def frames(self) -> int: ...
    def set_window(self, is_open: bool) -> None: ...
    def note_quieting(
        self, identity: int, code: int, first: int, last: int, calls: int, low: int, high: int, windows: int
    ) -> None: ...
    def now(self) -> int: ...
    def figures(self) -> dict[str, int]: ...


class Governor:
    """Watches the recording in progress. `budget`: a fraction of the program's CPU time.

    `mechanism_ns`, `record_ns`: of an event, as `_hook.calibrate` measured them. `frame`: by the frame hook.
    `keeps`: something must not be quieted, so the frame hook stays in.
    """

    def __init__(
        self,
        native: Hook,
        budget: float,
        *,
        mechanism_ns: float,
        record_ns: float,
        frame: bool,
        keeps: bool,
        c_calls: bool,
    ) -> None:
        self.faults = 0
        self.quiet: dict[int, Quieting] = {}
        self._native = native
        self._budget = budget
        self._frame_ns = 2 * mechanism_ns * MARGIN if frame else 0.0
        self._event_ns = (record_ns if frame else mechanism_ns + record_ns) * MARGIN
        self._may_hold_out = frame and not keeps
        self._calls_share = budget * (CALLS - C_CALLS if c_calls else CALLS)
        self._windows = CCallWindows(native, budget * C_CALLS) if c_calls else None
        self._numbers = 0
        # Since the last decision: events, calls, calls of a leaf; of what may be quieted.
        self._events: dict[int, list[int]] = {}
        self._recorded = 0  # events, ever
        self._spent = 0.0  # ns, since the last decision
        self._margin = 0.0  # ... and what of it is margin
        self._spent_before = 0.0  # until then, without the margin
        self._frames = 0
        self._frames_spent = 0.0  # ns of `_spent`
        self._own_cpu = self._drain_cpu = self._codes = 0
        self._cpu = 0
        self._debt = -budget * BURST_NS / 2
        self._load = 0.0  # what recorded calls cost, of the program's CPU time, lately
        self._window_due = 0.0  # in ns of CPU time
        self._rows_due = 0
        self._holds: dict[int, int] = {}
        self._wait = SHORTEST_WAIT
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        self._ended: _thread.LockType | None = None
        self._os_tid = 0
        self._stopping = False
        self._changed = False

    # its thread

    def start(self) -> None:
        """Begins to watch, in a thread that `threading` does not know: the program's own threads are what it lists."""
        self._stopping = False
        self._cpu = time.process_time_ns()
        self._frames, self._own_cpu = self._native.frames(), 0
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        _thread.start_new_thread(self._run, (self._ended,))

    def pause(self) -> None:
        """Ends the thread, for the time of a fork."""
        ended, self._ended = self._ended, None
        if ended is None or self._os_tid == _thread.get_native_id():
            return
        self._stopping = True
        with contextlib.suppress(RuntimeError):  # it was asked to wake already
            self._wake.release()
        if not ended.acquire(timeout=5):
            return
        path = f"/proc/self/task/{self._os_tid}"  # the kernel's thread ends a moment later
        until = time.monotonic() + 0.2
        while os.path.exists(path) and time.monotonic() < until:
            time.sleep(0.0005)

    def stop(self) -> None:
        """Ends the watching and writes the last rows. The recording is still in progress."""
        self.pause()
        if self._windows is not None and self._windows.is_open:
            self._native.set_window(False)
        self._write_rows()

    def _run(self, ended: _thread.LockType) -> None:
        self._os_tid = _thread.get_native_id()
        try:
            while not self._stopping and self.faults < MOST_FAULTS:
                self._wake.acquire(timeout=self._wait)
                if self._stopping:
                    break
                try:
                    self.step()
                except Exception:
                    self.faults += 1
            if self.faults >= MOST_FAULTS:
                self._give_up()
        finally:
            ended.release()

    def _give_up(self) -> None:
        """It cannot keep the budget by measuring any more: whatever may be quieted is."""
        with contextlib.suppress(Exception):
            self._read()
            self._native.quiet(list(self._events))

    # the loop

    def step(self) -> None:
        """One look at what was spent, and what follows from it."""
        began = time.thread_time()
        self._read()
        now, cpu = time.monotonic_ns(), time.process_time_ns()
        passed = cpu - self._cpu
        if self._windows is not None:
            self._spent += self._windows.step(
                now, cpu - self._own_cpu, self._recorded, disturbed=self._changed
            )
            self._changed = False
        if passed >= 1_000_000:
            self._decide(now, cpu, passed)
        looked = time.thread_time() - began
        if self.quiet and cpu >= self._window_due:
            self._sample(began)
        if now >= self._rows_due:
            self._arm_rare(now)
            self._write_rows()
            self._rows_due = now + ROWS_EVERY_NS
        measuring = self._windows is not None and (self._windows.measuring or self._windows.is_open)
        active = measuring or self._debt > -self._budget * BURST_NS / 2
        self._wait = SHORTEST_WAIT if active else min(self._wait * 1.5, LONGEST_WAIT)
        if not measuring:
            pause = min(looked / (self._budget * LOOKS), LONGEST_PAUSE)
            if self.quiet:  # a window has its own part of the budget
                due = max(0.0, self._window_due - time.process_time_ns()) / 1e9
                pause = min(pause, due * LATER + SHORTEST_WAIT / 4)
            self._wait = max(self._wait, pause)

    def _read(self) -> dict[int, tuple[int, int]]:
        """Takes what was recorded since the last time; returns events and calls by code."""
        found = {}
        for code, events, calls, leaves, may_be_quieted in self._native.event_totals():
            found[code] = (events, calls)
            self._recorded += events
            self._charge(events * self._event_ns)
            if may_be_quieted:
                sums = self._events.setdefault(code, [0, 0, 0])
                sums[0] += events
                sums[1] += calls
                sums[2] += leaves
        frames = self._native.frames()
        spent = (frames - self._frames) * self._frame_ns
        self._frames = frames
        self._frames_spent += spent
        self._charge(spent)
        own, figures = time.thread_time_ns(), self._native.figures()
        drain, codes = figures.get("drain_cpu_ns", self._drain_cpu), figures.get("codes", self._codes)
        self._spent += max(0, own - self._own_cpu) + max(0, drain - self._drain_cpu)
        self._spent += (codes - self._codes) * NEW_CODE_NS
        self._own_cpu, self._drain_cpu, self._codes = own, drain, codes
        return found

    def _decide(self, now: int, cpu: int, passed: int) -> None:
        """Quiets what must be, after `passed` ns of CPU time."""
        events, self._events = self._events, {}
        spent, self._spent = self._spent, 0.0
        likely = spent - self._margin
        self._margin = 0.0
        self._spent_before += likely
        self._cpu = cpu
        work = max(passed - likely, passed * LEAST_WORK)
        debt = self._debt + spent - self._budget * work
        self._debt = min(max(debt, -self._budget * BURST_NS), self._budget * LONGEST_DEBT_NS)
        recorded = {code: sums for code, sums in events.items() if code not in self.quiet}
        load = sum(sums[0] for sums in recorded.values()) * self._event_ns
        self._load += min(1.0, work / LATELY_NS) * (load / work - self._load)
        frames, self._frames_spent = self._frames_spent, 0.0
        if self._debt <= 0:
            return
        room = self._calls_share * work
        if load + frames > room:
            self._quiet_hottest(recorded, load + frames - room, work, now)
        if (
            frames > room
            and self._may_hold_out
            and EVERYTHING not in self.quiet
            and self._disarm([EVERYTHING])
        ):
            calls = sum(sums[1] for code, sums in recorded.items() if code not in self.quiet)
            self._note(EVERYTHING, work, calls, frames / self._event_ns, now)

    def _quiet_hottest(self, recorded: dict[int, list[int]], excess: float, work: float, now: int) -> None:
        # Of two that are called as often, the one that calls nothing is the shorter.
        hottest = sorted(recorded.items(), key=lambda item: item[1][0] + item[1][2], reverse=True)
        for code, (events, calls, _) in hottest:
            if excess <= 0 or events < 10:
                break
            if self._disarm([code]):
                self._note(code, work, calls, events, now)
                excess -= events * self._event_ns

    def _disarm(self, codes: list[int]) -> list[int]:
        done = self._native.quiet([code for code in codes if code != EVERYTHING])
        return [*done, EVERYTHING] if EVERYTHING in codes and self._native.hold_out(True) else done

    def _arm(self, codes: list[int]) -> list[int]:
        done = self._native.arm([code for code in codes if code != EVERYTHING])
        return [*done, EVERYTHING] if EVERYTHING in codes and self._native.hold_out(False) else done

    def _note(self, code: int, work: float, calls: int, events: float, now: int) -> None:
        since = self._work(time.process_time_ns())
        rate = events / work * 1e9
        self.quiet[code] = Quieting(self._numbers, code, now, self._native.now(), since, work, calls, rate)
        self._numbers += 1
        self._write_row(self.quiet[code])
        self._changed = True
        self._holds[code] = min(2 * self._holds.get(code, HOLD_NS // 2), LONGEST_HOLD_NS)

    def _work(self, cpu: int) -> float:
        """The program's own CPU time so far, in ns."""
        return cpu - self._spent_before - (self._spent - self._margin)

    def _charge(self, recorded: float) -> None:
        self._spent += recorded
        self._margin += recorded * (1 - 1 / MARGIN)

    # windows

    def _sample(self, woken: float) -> None:
        """Records quiet functions for a moment, those first that were not for the longest time. `woken`: the thread's
        CPU time in seconds when it came to do so."""
        oldest = sorted(self.quiet.values(), key=lambda quieting: quieting.sampled_ns)
        codes = [quieting.code for quieting in oldest[:MOST_IN_A_WINDOW]]
        if EVERYTHING in self.quiet and EVERYTHING not in codes:
            codes.append(EVERYTHING)  # the frame hook must be in for any of them
        self._read()
        frames = self._frames
        armed = self._arm(codes)
        began = time.process_time_ns() - time.thread_time_ns()
        try:
            time.sleep(WINDOW_SECONDS)
        finally:
            passed = time.process_time_ns() - time.thread_time_ns() - began
            self._disarm(armed)
        seen = self._read()
        now, frames = time.monotonic_ns(), self._frames - frames
        # Without the margin: what was recorded for a moment has its memory warm.
        cost = (
            sum(events for events, _ in seen.values()) * self._event_ns + frames * self._frame_ns
        ) / MARGIN
        work = max(passed - cost, passed * LEAST_WORK, 0.0)
        seen[EVERYTHING] = (
            round(frames * self._frame_ns / self._event_ns),
            sum(calls for code, (_, calls) in seen.items() if code not in self.quiet),
        )
        for code in armed:
            events, calls = seen.get(code, (0, 0))
            self.quiet[code].sampled(work, cost, calls, events, now)
            self._events.pop(code, None)
        for code in set(codes) - set(armed) - {EVERYTHING}:
            self._forget(code)  # its code object is no more
        # At random, so as to be in step with nothing. The look that led here is a part of what it took.
        spent = cost + (time.thread_time() - woken) * 1e9
        pause = spent / (self._budget * WINDOWS) * random.uniform(0.6, 1.4)
        self._window_due = time.process_time_ns() + max(pause, 20e6)

    def _arm_rare(self, now: int) -> None:
        """Arms again what would cost little by now."""
        room = 0.6 * self._calls_share - self._load
        if self._debt > 0:
            return
        for quieting in sorted(self.quiet.values(), key=lambda quieting: quieting.events_a_second):
            cost = quieting.events_a_second * self._event_ns / 1e9
            if cost > room:
                break
            if quieting.windows >= 3 and now - quieting.since_ns >= self._holds[quieting.code]:
                room -= cost
                self._forget(quieting.code)
                self._arm([quieting.code])

    def _forget(self, code: int) -> None:
        quieting = self.quiet.pop(code)
        self._write_row(quieting)
        self._changed = True

    def _write_rows(self) -> None:
        for quieting in self.quiet.values():
            self._write_row(quieting)

    def _write_row(self, quieting: Quieting) -> None:
        found = quieting.estimate(self._work(time.process_time_ns()))
        most = sys.maxsize
        self._native.note_quieting(
            quieting.number, quieting.code, quieting.first_ticks, self._native.now(),
            min(found.calls, most), min(found.low, most), min(found.high, most), quieting.windows,
        )  # fmt: skip
