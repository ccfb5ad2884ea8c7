"""Windows: from a read to the write that relies on it, and what others write meanwhile.

A *check* (its value is compared, or decides a branch) and an own write with no check since: `check_then_act`. A
read and an own write with no read since: `lost_update`. What breaks a window is another strand's write inside
it. That the write relies on the read is taken for granted, unless the code shows that it does not: it runs
whatever the check gave, it stores a constant, or the value never got there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pyscope.analysis.happens_before import Moment, happened_before
from pyscope.events.sync import AccessFlag, Operation
from pyscope.rows import Location

__all__ = ["Broken", "Touch", "common_lock", "find", "relies", "same_activation"]

MOST_OF_A_KIND = 8  # windows, and writes, between the same places that are held against each other
UNKNOWN_LEVEL = 99
DEEPEST_STACK = 32

_WRITES = frozenset((Operation.WRITE, Operation.DELETE, Operation.CONTENT_WRITE, Operation.CONTENT_CLAIM))
_READS = frozenset((Operation.READ, Operation.CONTENT_READ))
_CHECK, _CONSTANT, _DISCARDED = int(AccessFlag.CHECK), int(AccessFlag.CONSTANT), int(AccessFlag.DISCARDED)
_UNSEEN, _BRANCHES = int(AccessFlag.UNSEEN_LOCK), int(AccessFlag.BRANCHES)

Stack = Callable[[int], Sequence[Location]]


@dataclass(frozen=True, slots=True)
class Touch:
    """An access, as the windows see it. `row`: in the events; `at`: its place in the order of time."""

    row: int
    at: int
    operation: int
    flags: int
    level: int
    task: int
    loop_step: int
    lines: str
    stack: int
    moment: Moment

    @property
    def strand(self) -> int:
        """Whose it is."""
        return self.moment.strand

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.operation in _WRITES


class Broken(NamedTuple):
    """A window that another's write broke, or could."""

    kind: str
    read: Touch
    foreign: Touch
    write: Touch
    observed: bool


class _Window(NamedTuple):
    kind: str
    read: Touch
    write: Touch


def find(touches: Sequence[Touch], stack: Stack, *, checks_only: bool = False) -> Iterator[Broken]:
    """The broken windows on one attribute or element. `touches`: all accesses to it, in order of time.

    checks_only: of a container as a whole, which a mere reading of it says nothing about.
    """
    writes = [touch for touch in touches if touch.writes]
    places = [touch.at for touch in writes]
    seen: dict[tuple[int, int, int], int] = {}
    for windows in _windows(touches, stack, checks_only):
        broken = None
        for window in windows:
            broken = _observed(window, writes, places)
            if broken is not None:
                break
        if broken is not None:
            yield broken
            if broken.observed:
                continue
        window = windows[0]
        key = window.read.stack, window.write.stack, window.write.strand
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= MOST_OF_A_KIND:
            for window in windows:
                possible = _possible(window, writes)
                if possible is not None:
                    yield possible
                    break


def _windows(touches: Sequence[Touch], stack: Stack, checks_only: bool) -> Iterator[list[_Window]]:
    """For each own write the windows that it closes: of the last check, and of the last read."""
    checks: dict[int, Touch] = {}
    reads: dict[int, Touch] = {}
    for touch in touches:
        strand = touch.strand
        if touch.operation in _READS:
            if touch.flags & _CHECK:
                checks[strand] = touch
            reads[strand] = touch
        elif touch.writes:
            check, read = checks.pop(strand, None), reads.pop(strand, None)
            if touch.operation == Operation.CONTENT_CLAIM:
                continue  # it checks for itself
            found = []
            if check is not None and relies(touch, check, stack):
                found.append(_Window("check_then_act", check, touch))
            if (
                read is not None
                and not checks_only
                and not read.flags & _CHECK
                and not touch.flags & _CONSTANT
                and relies(touch, read, stack)
            ):
                found.append(_Window("lost_update", read, touch))
            if found and _holds_together(found[0]):
                yield found


def _holds_together(window: _Window) -> bool:
    """Of callbacks of an event loop, which are no task: both ends lie in one."""
    return bool(window.read.task) or window.read.loop_step == window.write.loop_step


def relies(write: Touch, read: Touch, stack: Stack) -> bool:
    """Whether a write may rely on what was read, as far as the code tells."""
    level = read.level
    if level >= UNKNOWN_LEVEL:
        return False
    there, here = stack(read.stack), stack(write.stack)
    if level >= len(there) or len(there) >= DEEPEST_STACK or len(here) >= DEEPEST_STACK:
        return True
    at = _activation(there, level, here)
    if at < 0:
        return False
    line = here[at].line
    if line == there[level].line:
        return True
    if read.flags & _DISCARDED:
        return False
    if read.flags & _CHECK and read.flags & _BRANCHES:
        return includes(read.lines, line)
    return True


def includes(lines: str, line: int) -> bool:
    """Whether "12-14,20" includes a line."""
    for part in lines.split(","):
        first, _, last = part.partition("-")
        if first and int(first) <= line <= int(last or first):
            return True
    return False


def _activation(there: Sequence[Location], level: int, here: Sequence[Location]) -> int:
    """Where in the stack `here` the frame `there[level]` is, as far as functions and lines tell; -1: nowhere."""
    outer = there[level + 1 :]
    at = len(here) - len(outer) - 1
    if at < 0 or tuple(here[at + 1 :]) != tuple(outer):
        return -1
    same = here[at].function == there[level].function and here[at].file == there[level].file
    return at if same else -1


def same_activation(first: Touch, second: Touch, stack: Stack) -> bool:
    """Whether the function that made the first access also made the second, or called who did."""
    there, here = stack(first.stack), stack(second.stack)
    return bool(there) and _activation(there, 0, here) >= 0


def common_lock(*touches: Touch) -> bool:
    """Whether one lock is held at all of them, the strand of the first ones without letting go."""
    first, *others = touches
    foreign = others.pop()
    for lock, acquisition in first.moment.held.items():
        if lock <= 0 or lock not in foreign.moment.held:
            continue
        if all(other.moment.held.get(lock) == acquisition for other in others):
            return True
    return False


def _observed(window: _Window, writes: Sequence[Touch], places: Sequence[int]) -> Broken | None:
    """The window with the first write of another inside it."""
    kind, read, write = window
    doubtful = None
    for place in range(bisect_right(places, read.at), len(writes)):
        foreign = writes[place]
        if foreign.at >= write.at:
            break
        if foreign.strand == read.strand or common_lock(read, write, foreign):
            continue
        certain = True
        if happened_before(read.moment, foreign.moment) and happened_before(
            foreign.moment, write.moment, by_chance=True
        ):
            if happened_before(foreign.moment, write.moment):
                continue  # handed over, and handed back
            certain = False
        if (read.flags | write.flags) & foreign.flags & _UNSEEN:
            certain = False
        if certain:
            return Broken(kind, read, foreign, write, True)
        doubtful = doubtful or Broken(kind, read, foreign, write, False)
    return doubtful


def _possible(window: _Window, writes: Sequence[Touch]) -> Broken | None:
    """The window with a write of another that nothing keeps out of it."""
    kind, read, write = window
    seen: dict[tuple[int, int], int] = {}
    for foreign in writes:
        if foreign.strand == read.strand:
            continue
        key = foreign.stack, foreign.strand
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > MOST_OF_A_KIND:
            continue
        if foreign.moment.thread == read.moment.thread and (
            not foreign.task or not read.task or read.loop_step == write.loop_step
        ):
            continue  # they take turns on one thread, and the window is one turn
        if happened_before(foreign.moment, read.moment) or happened_before(write.moment, foreign.moment):
            continue
        if happened_before(read.moment, foreign.moment) and happened_before(foreign.moment, write.moment):
            continue  # handed over, and handed back
        if common_lock(read, write, foreign):
            continue
        split = any(
            lock > 0 and lock in write.moment.held and lock in foreign.moment.held
            for lock in read.moment.held
        )
        if not split and (
            happened_before(foreign.moment, read.moment, by_chance=True)
            or happened_before(write.moment, foreign.moment, by_chance=True)
        ):
            continue
        return Broken(kind, read, foreign, write, False)
    return None
