"""Two more ways to be disturbed: a container that changes while it is iterated over, and values that belong together.

Like windows, both are three accesses: two of one strand, and another's write between. They are found by their
order in time alone, and judged once it is known what was ordered and which locks were held.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pyscope.analysis.happens_before import happened_before
from pyscope.analysis.windows import (
    WRITES,
    Accesses,
    Broken,
    Stack,
    Touch,
    common_lock,
    includes,
    same_activation,
)
from pyscope.events.sync import AccessFlag, Operation
from pyscope.rows import Location

__all__ = ["Disturbed", "Torn", "iterations", "judge_iteration", "judge_torn", "torn_reads"]

MOST = 300  # of a kind that are looked at

_UNSEEN = int(AccessFlag.UNSEEN_LOCK)


class Disturbed(NamedTuple):
    """An iteration, others' writes during it, and what the loop's body did later. Numbers of accesses."""

    attribute: int
    begin: int
    writes: tuple[int, ...]
    last: int


class Torn(NamedTuple):
    """Two reads, and a write of each of the two values by one other strand."""

    attribute: int
    first_read: int
    second_read: int
    first_write: int
    second_write: int


def iterations(accesses: Accesses, stack: Stack, lines: Sequence[str]) -> Iterator[Disturbed]:
    """Iterations over containers that another wrote to before the loop's body did something for the last time."""
    begins = np.flatnonzero((accesses.operation == Operation.ITERATE) & accesses.whole)
    if not len(begins):
        return
    own: dict[int, list[int]] = {}  # strand: places of all it did, in order of time
    strands = np.unique(accesses.strand[begins])
    mine = np.flatnonzero(
        np.isin(accesses.strand, strands) & ~(accesses.whole & np.isin(accesses.operation, WRITES))
    )
    mine = mine[np.argsort(accesses.number[mine], kind="stable")]
    for place, strand in zip(mine.tolist(), accesses.strand[mine].tolist(), strict=True):
        own.setdefault(strand, []).append(place)
    numbers = {strand: accesses.number[places].tolist() for strand, places in own.items()}
    written: dict[int, list[int]] = {}
    for place in np.flatnonzero(np.isin(accesses.operation, WRITES) & accesses.whole).tolist():
        written.setdefault(int(accesses.subject[place]), []).append(place)
    seen: dict[int, int] = {}
    for place in begins.tolist():
        strand, subject = int(accesses.strand[place]), int(accesses.subject[place])
        begin, at = int(accesses.number[place]), int(accesses.stack[place])
        foreign = [
            int(accesses.number[write])
            for write in written.get(subject, ())
            if accesses.strand[write] != strand and accesses.number[write] > begin
        ]
        if not foreign or seen.get(at, 0) >= MOST:
            continue
        seen[at] = seen.get(at, 0) + 1
        body, there = lines[int(accesses.lines[place])], stack(at)
        last = -1
        for later in range(bisect_right(numbers[strand], begin), len(numbers[strand])):
            here = stack(int(accesses.stack[own[strand][later]]))
            if not same_activation(there, here) or not includes(body, here[len(here) - len(there)].line):
                break
            last = numbers[strand][later]
        inside = tuple(number for number in foreign if number < last)
        if inside:
            yield Disturbed(int(accesses.attribute[place]), begin, inside[:MOST], last)


def judge_iteration(found: Disturbed, touches: dict[int, Touch]) -> Broken | None:
    """What disturbed the iteration; None if a lock kept it out after all."""
    begin, last = touches[found.begin], touches[found.last]
    for number in found.writes:
        write = touches[number]
        if not common_lock(begin, last, write):
            return Broken("data_race", begin, write, last, not begin.flags & write.flags & _UNSEEN)
    return None


def torn_reads(accesses: Accesses, objects: dict[int, int], stack: Stack) -> Iterator[Torn]:
    """Two attributes of an object, read one after the other, and written by another around that.

    objects: of each subject the object.
    """
    plain = accesses.only(np.isin(accesses.operation, (Operation.READ, Operation.WRITE)))
    if not len(plain.number):
        return
    instance = np.array([objects[subject] for subject in plain.subject.tolist()], np.int64)
    order = np.lexsort((plain.number, plain.strand, instance))
    first, second = order[:-1], order[1:]
    pairs = (
        (instance[first] == instance[second])
        & (plain.strand[first] == plain.strand[second])
        & (plain.operation[first] == Operation.READ)
        & (plain.operation[second] == Operation.READ)
        & (plain.attribute[first] != plain.attribute[second])
    )
    if not pairs.any():
        return
    writes: dict[tuple[int, int], dict[int, list[int]]] = {}  # object and attribute: strand: numbers
    for place in np.flatnonzero(plain.operation == Operation.WRITE).tolist():
        key = int(instance[place]), int(plain.attribute[place])
        writes.setdefault(key, {}).setdefault(int(plain.strand[place]), []).append(int(plain.number[place]))
    for numbers in writes.values():
        for each in numbers.values():
            each.sort()
    seen: dict[tuple[int, int], int] = {}
    for one, other in zip(first[pairs].tolist(), second[pairs].tolist(), strict=True):
        attributes = int(plain.attribute[one]), int(plain.attribute[other])
        places = int(plain.stack[one]), int(plain.stack[other])
        if seen.get(places, 0) >= MOST or not _one_after_the_other(stack(places[0]), stack(places[1])):
            continue
        strand, at = int(plain.strand[one]), int(instance[one])
        of_first, of_second = (writes.get((at, attribute), {}) for attribute in attributes)
        reads = int(plain.number[one]), int(plain.number[other])
        for writer in of_first.keys() & of_second.keys() - {strand}:
            seen[places] = seen.get(places, 0) + 1
            yield from _around(attributes, reads, of_first[writer], of_second[writer])


def _one_after_the_other(there: Sequence[Location], here: Sequence[Location]) -> bool:
    """Whether the second read is further on in the function that made the first: else that was called once more."""
    return same_activation(there, here) and here[len(here) - len(there)].line >= there[0].line


def _around(
    attributes: tuple[int, int], reads: tuple[int, int], of_first: list[int], of_second: list[int]
) -> Iterator[Torn]:
    """The writes next to the reads that make one of them new and the other old."""
    first, second = bisect_left(of_first, reads[0]), bisect_left(of_second, reads[1])
    if first and second < len(of_second):  # the first is new, the second still old
        yield Torn(attributes[1], *reads, of_first[first - 1], of_second[second])
    if first < len(of_first) and second:  # the other way about
        yield Torn(attributes[0], *reads, of_first[first], of_second[second - 1])


def judge_torn(found: Torn, touches: dict[int, Touch]) -> Broken | None:
    """The two reads and the write that made one of them old; None unless both writes are of one section."""
    reads = touches[found.first_read], touches[found.second_read]
    writes = touches[found.first_write], touches[found.second_write]
    held = writes[0].moment.held
    together = [
        lock
        for lock, acquisition in writes[1].moment.held.items()
        if lock > 0 and held.get(lock) == acquisition
    ]
    if not together or any(lock in read.moment.held for lock in together for read in reads):
        return None
    earlier, later = sorted(writes, key=lambda touch: touch.at)
    if happened_before(later.moment, reads[0].moment) or happened_before(reads[1].moment, earlier.moment):
        return None
    # told is what lies between the reads, else what had been written already
    foreign = next((write for write in writes if reads[0].at < write.at < reads[1].at), earlier)
    return Broken("data_race", reads[0], foreign, reads[1], not reads[1].flags & foreign.flags & _UNSEEN)
