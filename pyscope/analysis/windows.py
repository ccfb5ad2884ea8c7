"""Windows: from a read to the write that relies on it, and what others write meanwhile.

A *check* (its value is compared, or decides a branch) and an own write with no check since: `check_then_act`. A
read and an own write with no read since: `lost_update`. What breaks a window is another strand's write inside
it. That the write relies on the read is taken for granted, unless the code shows that it does not: it runs
whatever the check gave, it stores a constant, or the value never got there.

The windows of all accesses are found at once, in columns; only the broken ones, and a few of each kind for what could
have broken them, are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis.happens_before import Moment, happened_before
from pyscope.events.sync import AccessFlag, Operation
from pyscope.rows import Location

__all__ = [
    "WRITES",
    "Accesses",
    "Broken",
    "Stack",
    "Touch",
    "Window",
    "common_lock",
    "find",
    "includes",
    "judge",
    "relies",
    "same_activation",
]

UNKNOWN_LEVEL = 99
DEEPEST_STACK = 32
MOST_BROKEN = 300  # windows between the same places with another's write inside that are looked at
MOST_WHOLE = 64  # windows without one
MOST_WRITES = 12  # inside one window; the last ones are kept too
FEW = 3  # of a kind, from the begin and from the end

WRITES = (Operation.WRITE, Operation.DELETE, Operation.CONTENT_WRITE, Operation.CONTENT_CLAIM)
_READS = (Operation.READ, Operation.CONTENT_READ)
_CHECK, _CONSTANT, _DISCARDED = int(AccessFlag.CHECK), int(AccessFlag.CONSTANT), int(AccessFlag.DISCARDED)
_UNSEEN, _BRANCHES = int(AccessFlag.UNSEEN_LOCK), int(AccessFlag.BRANCHES)
_VARIABLE = int(AccessFlag.VARIABLE)

Column = NDArray[Any]
Stack = Callable[[int], Sequence[Location]]


class Accesses(NamedTuple):
    """Accesses as columns, by subject, and in order of time for each.

    `number`: which access; one may be of several subjects. `whole`: its subject is a container as a whole, of which
    reading says nothing. `strand`, `subject`: numbers. The others are as in the events.
    """

    number: Column
    subject: Column
    strand: Column
    operation: Column
    flags: Column
    level: Column
    task: Column
    loop_step: Column
    lines: Column
    stack: Column
    attribute: Column
    whole: Column

    def only(self, rows: NDArray[np.bool_]) -> Accesses:
        """Some of them."""
        return Accesses(*(column[rows] for column in self))


class Window(NamedTuple):
    """A read and the write that relies on it; others' writes inside, and some outside. Numbers of accesses."""

    kind: str
    subject: int
    read: int
    write: int
    inside: tuple[int, ...]
    outside: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Touch:
    """One access, looked at closely. `row`: in the events; `at`: its place in the order of time."""

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


class Broken(NamedTuple):
    """A window that another's write broke, or could."""

    kind: str
    read: Touch
    foreign: Touch
    write: Touch
    observed: bool


# --- finding ---------------------------------------------------------------------------------------


def find(accesses: Accesses, relies_on: Callable[[int, int, bool], bool]) -> list[list[Window]]:
    """For each own write the windows that it closes: of the last check, and of the last read, if there is one.

    relies_on: whether the write may rely on the read, by the places of both in `accesses`, and whether its strand has
    read the subject anew between.
    """
    kept = ~_undone(accesses)
    places = np.flatnonzero(kept)
    accesses = accesses.only(kept)
    writes = np.isin(accesses.operation, WRITES)
    checks, reads = _pairs(accesses, writes)
    found: dict[int, list[Window]] = {}
    passed = np.cumsum(writes)
    written = np.flatnonzero(writes)
    outside = _some_writes(accesses, written)
    for kind, (begins, ends, renewed) in (("check_then_act", checks), ("lost_update", reads)):
        chosen = _relying(accesses, begins, ends, renewed, places, relies_on)
        begins, ends = begins[chosen], ends[chosen]
        broken = passed[ends] - 1 - passed[begins] > 0
        looked = _worth_a_look(accesses, begins, ends, broken)
        for begin, end in zip(begins[looked].tolist(), ends[looked].tolist(), strict=True):
            first, last = np.searchsorted(written, (begin, end), side="left").tolist()
            between = written[first:last]
            if len(between) > MOST_WRITES:
                between = np.concatenate([between[: MOST_WRITES - FEW], between[-FEW:]])
            subject = int(accesses.subject[end])
            found.setdefault(end, []).append(
                Window(
                    kind,
                    subject,
                    int(accesses.number[begin]),
                    int(accesses.number[end]),
                    tuple(accesses.number[between].tolist()),
                    outside.get(subject, ()),
                )
            )
    return list(found.values())


def _undone(accesses: Accesses) -> Column:
    """The writes that were refused, and the events that say so."""
    out: Column = accesses.operation == Operation.UNDONE
    if not out.any():
        return out
    order = np.lexsort((accesses.number, accesses.strand, accesses.subject))
    refused = np.flatnonzero(out[order])
    before = order[refused[refused > 0] - 1]
    said = order[refused[refused > 0]]
    same = (accesses.subject[before] == accesses.subject[said]) & (
        accesses.strand[before] == accesses.strand[said]
    )
    out[before[same & np.isin(accesses.operation[before], WRITES)]] = True
    return out


def _pairs(
    accesses: Accesses, writes: NDArray[np.bool_]
) -> tuple[tuple[Column, Column, Column], tuple[Column, Column, Column]]:
    """For each write its strand's last check, and last read, since its write before; and whether a read came since."""
    order = np.lexsort((accesses.number, accesses.strand, accesses.subject))
    subject, strand = accesses.subject[order], accesses.strand[order]
    operation, flags = accesses.operation[order], accesses.flags[order]
    places = np.arange(len(order))
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (subject[1:] != subject[:-1]) | (strand[1:] != strand[:-1])
    begin = np.maximum.accumulate(np.where(fresh, places, 0))
    is_write = writes[order]
    is_read = np.isin(operation, _READS)

    def last_before(which: NDArray[np.bool_]) -> Column:
        seen = np.maximum.accumulate(np.where(which, places, -1))
        return np.concatenate([[-1], seen[:-1]]).astype(np.intp)

    floor = np.maximum(begin - 1, last_before(is_write))
    acts = np.flatnonzero(is_write & (operation != Operation.CONTENT_CLAIM))  # that checks for itself
    last_read = last_before(is_read)[acts]
    pairs = []
    for which, plain in ((is_read & (flags & _CHECK != 0), False), (is_read, True)):
        last = last_before(which)[acts]
        good = last > floor[acts]
        if plain:
            good &= (flags[last] & _CHECK == 0) & (flags[acts] & _CONSTANT == 0)
            good &= ~accesses.whole[order[acts]]
        begins, ends = order[last[good]], order[acts[good]]
        # of callbacks of an event loop, which are no task, both ends lie in one
        together = (accesses.task[begins] != 0) | (accesses.loop_step[begins] == accesses.loop_step[ends])
        renewed = (last_read > last)[good]
        pairs.append((begins[together], ends[together], renewed[together]))
    return pairs[0], pairs[1]


def _relying(
    accesses: Accesses,
    begins: Column,
    ends: Column,
    renewed: Column,
    places: NDArray[np.intp],
    relies_on: Callable[[int, int, bool], bool],
) -> Column:
    """Which writes may rely on their reads; asked once for each combination of places in the code."""
    if not len(begins):
        return np.zeros(0, np.bool_)
    combinations = np.stack(
        [
            accesses.stack[begins],
            accesses.level[begins],
            accesses.lines[begins],
            accesses.flags[begins],
            accesses.stack[ends],
            renewed,
        ]
    )
    _, first, which = np.unique(combinations, axis=1, return_index=True, return_inverse=True)
    answers = np.array(
        [
            relies_on(int(places[begins[place]]), int(places[ends[place]]), bool(renewed[place]))
            for place in first.tolist()
        ],
        np.bool_,
    )
    chosen: NDArray[np.bool_] = answers[which.reshape(-1)]
    return chosen


def _worth_a_look(accesses: Accesses, begins: Column, ends: Column, broken: NDArray[np.bool_]) -> Column:
    """The windows that are looked at: broken ones, and a few of the others between the same places."""
    if not len(begins):
        return np.zeros(0, np.intp)
    places = accesses.attribute[ends], accesses.stack[begins], accesses.stack[ends]
    of_a_kind = _rank(*places, broken)
    of_a_strand = _rank(accesses.subject[ends], accesses.strand[ends], *places[1:], broken)
    from_the_end = _rank(accesses.subject[ends], accesses.strand[ends], *places[1:], broken, reverse=True)
    few = ((of_a_strand < FEW) | (from_the_end < FEW)) & (of_a_kind < MOST_WHOLE)
    return np.flatnonzero(np.where(broken, of_a_kind < MOST_BROKEN, few))


def _some_writes(accesses: Accesses, written: NDArray[np.intp]) -> dict[int, tuple[int, ...]]:
    """For each subject some writes of each strand at each place."""
    if not len(written):
        return {}
    columns = accesses.subject[written], accesses.strand[written], accesses.stack[written]
    few = written[(_rank(*columns) < FEW) | (_rank(*columns, reverse=True) < FEW)]
    few = few[_rank(accesses.subject[few]) < MOST_WHOLE]
    subjects, begins = np.unique(accesses.subject[few], return_index=True)
    parts = np.split(accesses.number[few], begins[1:])
    return {subject: tuple(part.tolist()) for subject, part in zip(subjects.tolist(), parts, strict=True)}


def _rank(*columns: NDArray[np.generic], reverse: bool = False) -> Column:
    """For each row how many rows before it (behind it) equal it."""
    order = np.lexsort(columns[::-1])  # stable
    if reverse:
        order = np.lexsort([column[::-1] for column in columns[::-1]])
    changed = np.zeros(len(order), np.bool_)
    for column in columns:
        ordered = (column[::-1] if reverse else column)[order]
        changed[1:] |= ordered[1:] != ordered[:-1]
    places = np.arange(len(order))
    begin = np.maximum.accumulate(np.where(changed, places, 0))
    rank = np.empty(len(order), np.intp)
    rank[order] = places - begin
    return rank[::-1] if reverse else rank


# --- judging ---------------------------------------------------------------------------------------


def judge(windows: Sequence[Window], touches: dict[int, Touch]) -> list[Broken]:
    """What broke, or could break, one of the windows that one write closes."""
    found = []
    for window in windows:
        broken = _observed(window, touches)
        if broken is not None:
            found.append(broken)
            if broken.observed:
                return found
            break
    for window in windows:
        possible = _possible(window, touches)
        if possible is not None:
            found.append(possible)
            break
    return found


def relies(
    there: Sequence[Location],
    level: int,
    flags: int,
    lines: str,
    here: Sequence[Location],
    renewed: bool = False,
) -> bool:
    """Whether a write (stack `here`) may rely on what was read (stack `there`), as far as the code tells.

    renewed: the value was read once more before the write.
    """
    if level >= UNKNOWN_LEVEL:
        return False
    if level >= len(there) or len(there) >= DEEPEST_STACK or len(here) >= DEEPEST_STACK:
        return True
    at = _activation(there, level, here)
    if at < 0:
        return False
    line = here[at].line
    if flags & _VARIABLE:
        return includes(lines, line)
    if line == there[level].line:
        return True
    if flags & _DISCARDED:
        return False
    if renewed and line < there[level].line:
        return False  # a loop has come round, and begins with what is there now
    if flags & _CHECK and flags & _BRANCHES:
        return includes(lines, line)
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


def same_activation(there: Sequence[Location], here: Sequence[Location]) -> bool:
    """Whether the function that made the first access also made the second, or called who did."""
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


def _observed(window: Window, touches: dict[int, Touch]) -> Broken | None:
    """The window with the first write of another inside it."""
    read, write = touches[window.read], touches[window.write]
    doubtful = None
    for number in window.inside:
        foreign = touches[number]
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
            return Broken(window.kind, read, foreign, write, True)
        doubtful = doubtful or Broken(window.kind, read, foreign, write, False)
    return doubtful


def _possible(window: Window, touches: dict[int, Touch]) -> Broken | None:
    """The window with a write of another that nothing keeps out of it."""
    read, write = touches[window.read], touches[window.write]
    for number in window.outside:
        foreign = touches[number]
        if foreign.strand == read.strand:
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
        return Broken(window.kind, read, foreign, write, False)
    return None
