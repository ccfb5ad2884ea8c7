"""Races among threads and asyncio tasks on the attributes of watched objects.

What is shared: an attribute, one element of a container that an attribute holds, or such a container as a
whole. Findings are broken windows (`windows`), a container changed while it is iterated over, and two
attributes that belong together, read while only one of them had been written. Grade `observed`: it happened in
this run, though the program need not have come to harm; `possible`: nothing that was seen prevents it, or a
lock that was not seen may.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis import windows
from pyscope.analysis.happens_before import StrandKey, happened_before, replay, strand_keys
from pyscope.analysis.race_advice import Actor, explain, suggest
from pyscope.analysis.windows import Broken, Touch, common_lock, includes, same_activation
from pyscope.events.sync import ACCESS, LOCK, SIGNAL, AccessFlag, Operation
from pyscope.findings import Access, Race
from pyscope.rows import Location

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["find"]

WHOLE = 0  # key of a container as a whole
_UNKNOWN_KEY = -1
_WRITES = (Operation.WRITE, Operation.DELETE, Operation.CONTENT_WRITE, Operation.CONTENT_CLAIM)
_INSIDE = (Operation.CONTENT_READ, Operation.CONTENT_WRITE, Operation.CONTENT_CLAIM, Operation.ITERATE)
_OPERATIONS = {
    Operation.READ: "read",
    Operation.WRITE: "write",
    Operation.DELETE: "delete",
    Operation.CONTENT_READ: "read",
    Operation.CONTENT_WRITE: "write",
    Operation.CONTENT_CLAIM: "write",
    Operation.ITERATE: "iterate",
}


class _Subject(NamedTuple):
    """What is accessed. `key`: None the attribute itself, WHOLE the container in it, else one of its elements."""

    object: int
    attribute: int
    key: int | None


@dataclass(slots=True)
class _Found:
    """A race as often as it was found between the same places."""

    kind: str
    attribute: int
    inside: bool
    touches: tuple[Touch, ...]
    observed: bool
    count: int = 1


def find(trace: Trace) -> list[Race]:
    """The races of a trace, the observed ones first, then in order of time."""
    accesses = trace.probe_events(ACCESS)
    rows = _shared(accesses)
    if not len(rows):
        return []
    touches = _touches(trace, accesses, rows)
    objects, attributes, keys = (accesses[name][rows].tolist() for name in ("object", "attribute", "key"))
    subjects: dict[_Subject, list[Touch]] = {}
    by_object: dict[int, list[tuple[int, Touch]]] = {}
    iterations: list[tuple[_Subject, Touch]] = []
    for touch, instance, attribute, key in zip(touches, objects, attributes, keys, strict=True):
        if touch.operation == Operation.UNDONE:
            _undo(subjects.get(_Subject(instance, attribute, None), []), touch)
            continue
        for part in _parts(touch, key):
            subjects.setdefault(_Subject(instance, attribute, part), []).append(touch)
        by_object.setdefault(instance, []).append((attribute, touch))
        if touch.operation == Operation.ITERATE:
            iterations.append((_Subject(instance, attribute, WHOLE), touch))
    found: dict[Any, _Found] = {}
    for subject, its in subjects.items():
        for broken in _broken(trace, subject, its):
            _note(trace, found, subject.attribute, subject.key is not None, broken)
    for subject, broken in _while_iterating(trace, iterations, subjects, touches):
        _note(trace, found, subject.attribute, True, broken)
    for pairs in by_object.values():
        for attribute, broken in _torn(trace, pairs):
            _note(trace, found, attribute, False, broken)
    return _races(trace, accesses, _without_shadows(trace, found.values()))


# --- what is shared --------------------------------------------------------------------------------


def _shared(accesses: Any) -> NDArray[np.intp]:
    """The rows of attributes that more than one thread or task has used, and any has written."""
    if not len(accesses):
        return np.zeros(0, np.intp)
    strand = _codes(
        accesses["process"], np.where(accesses["task"] != 0, -1, accesses["thread"]), accesses["task"]
    )
    subject = _codes(accesses["object"], accesses["attribute"])
    pairs = np.unique(np.stack([subject, strand]), axis=1)
    strands = np.bincount(pairs[0], minlength=int(subject.max()) + 1)
    writes = np.isin(accesses["operation"], _WRITES)
    written = np.bincount(subject[writes], minlength=len(strands)) > 0
    shared = ((strands > 1) & written)[subject]
    iterating = np.unique(strand[shared & (accesses["operation"] == Operation.ITERATE)])
    found: NDArray[np.intp] = np.flatnonzero(shared | np.isin(strand, iterating))
    return found


def _codes(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Equal rows get equal small numbers."""
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, inverse = np.unique(column, return_inverse=True)
        codes = codes * len(values) + inverse
        codes = np.unique(codes, return_inverse=True)[1]
    return codes


def _touches(trace: Trace, accesses: Any, rows: NDArray[np.intp]) -> list[Touch]:
    names = ("process", "thread", "task", "operation", "flags", "level", "loop_step", "lines", "stack")
    columns = {name: accesses[name][rows] for name in names}
    threads = columns["thread"].tolist()
    keys: list[StrandKey] = strand_keys(columns)
    contexts = _tasks_by_context(trace)
    moments = replay(trace, accesses["time_ns"][rows], keys, threads, contexts)
    strings = trace.strings
    fields = (columns[name].tolist() for name in names[2:])
    return [
        Touch(row, at, operation, flags, level, task, step, strings[lines], stack, moment)
        for at, (row, task, operation, flags, level, step, lines, stack, moment) in enumerate(
            zip(rows.tolist(), *fields, moments, strict=True)
        )
    ]


def _tasks_by_context(trace: Trace) -> dict[int, int]:
    tasks: dict[int, int] = {}
    for event in (ACCESS, LOCK, SIGNAL):
        events = trace.probe_events(event)
        chosen = (events["task"] != 0) & (events["context"] != 0)
        tasks.update(zip(events["context"][chosen].tolist(), events["task"][chosen].tolist(), strict=True))
    return tasks


def _parts(touch: Touch, key: int) -> Iterable[int | None]:
    """What of an attribute an access concerns: itself (None), an element, the whole container."""
    if touch.operation not in _INSIDE:
        return (None,)
    if key == 0 or touch.operation == Operation.ITERATE:
        return (WHOLE,)
    if touch.writes:
        return (key, WHOLE)
    return (key,)


def _undo(touches: list[Touch], undone: Touch) -> None:
    """The last write of that strand was refused."""
    for place in range(len(touches) - 1, -1, -1):
        if touches[place].strand == undone.strand and touches[place].writes:
            del touches[place]
            return


# --- finding ---------------------------------------------------------------------------------------


def _broken(trace: Trace, subject: _Subject, touches: list[Touch]) -> Iterator[Broken]:
    first = touches[0].strand
    if all(touch.strand == first for touch in touches):
        return
    for broken in windows.find(touches, trace.stack, checks_only=subject.key == WHOLE):
        yield broken._replace(observed=False) if subject.key == _UNKNOWN_KEY else broken


def _while_iterating(
    trace: Trace,
    iterations: list[tuple[_Subject, Touch]],
    subjects: dict[_Subject, list[Touch]],
    touches: list[Touch],
) -> Iterator[tuple[_Subject, Broken]]:
    """Containers that another changes between the begin of an iteration and what the loop's body does later."""
    by_strand: dict[int, list[Touch]] = {}
    strands = {begin.strand for _, begin in iterations}
    for touch in touches:
        if touch.strand in strands:
            by_strand.setdefault(touch.strand, []).append(touch)
    for subject, begin in iterations:
        foreign = [touch for touch in subjects[subject] if touch.writes and touch.strand != begin.strand]
        if not foreign:
            continue
        own = by_strand[begin.strand]
        last = None
        for place in range(bisect_right(own, begin.at, key=lambda touch: touch.at), len(own)):
            if not _in_body(trace, begin, own[place]):
                break
            last = own[place]
        if last is None:
            continue
        for write in foreign:
            if begin.at < write.at < last.at and not common_lock(begin, last, write):
                certain = not (begin.flags & write.flags & AccessFlag.UNSEEN_LOCK)
                yield subject, Broken("data_race", begin, write, last, certain)
                break


def _in_body(trace: Trace, begin: Touch, later: Touch) -> bool:
    if not same_activation(begin, later, trace.stack):
        return False
    there, here = trace.stack(begin.stack), trace.stack(later.stack)
    return includes(begin.lines, here[len(here) - len(there)].line)


def _torn(trace: Trace, pairs: list[tuple[int, Touch]]) -> Iterator[tuple[int, Broken]]:
    """Two attributes written under one lock, read without it so that one is new and the other old."""
    sections: dict[tuple[int, int], list[tuple[int, Touch]]] = {}
    for attribute, touch in pairs:
        if touch.operation == Operation.WRITE:
            for lock, acquisition in touch.moment.held.items():
                if lock > 0:
                    sections.setdefault((lock, acquisition), []).append((attribute, touch))
    sections = {key: its for key, its in sections.items() if len({attribute for attribute, _ in its}) > 1}
    if not sections:
        return
    last: dict[int, tuple[int, Touch]] = {}
    for attribute, touch in pairs:
        if touch.operation != Operation.READ:
            if touch.operation != Operation.ITERATE:
                last.pop(touch.strand, None)
            continue
        before = last.get(touch.strand)
        last[touch.strand] = attribute, touch
        if before is None or before[0] == attribute or not same_activation(before[1], touch, trace.stack):
            continue
        for (lock, _), writes in sections.items():
            if (
                writes[0][1].strand == touch.strand
                or lock in touch.moment.held
                or lock in before[1].moment.held
            ):
                continue
            written = dict(writes)
            if before[0] in written and attribute in written:
                first, second = written[before[0]], written[attribute]
                if (before[1].at > first.at) != (touch.at > second.at) and not happened_before(
                    second.moment, before[1].moment
                ):
                    torn = second if before[1].at < second.at < touch.at else first
                    certain = not (touch.flags & torn.flags & AccessFlag.UNSEEN_LOCK)
                    yield attribute, Broken("data_race", before[1], torn, touch, certain)
                    break


# --- telling ---------------------------------------------------------------------------------------


def _place(trace: Trace, touch: Touch) -> Location:
    stack = trace.stack(touch.stack)
    return stack[0] if stack else Location("", 0, "")


def _note(trace: Trace, found: dict[Any, _Found], attribute: int, inside: bool, broken: Broken) -> None:
    touches = broken.read, broken.foreign, broken.write
    places = tuple(_place(trace, touch) for touch in touches)
    key = broken.kind, attribute, places
    known = found.get(key)
    if known is None:
        found[key] = _Found(broken.kind, attribute, inside, touches, broken.observed)
        return
    if broken.observed and not known.observed:
        known.observed, known.touches, known.count = True, touches, 1
    elif broken.observed == known.observed:
        known.count += 1


def _without_shadows(trace: Trace, found: Iterable[_Found]) -> list[_Found]:
    """One for each window in the code, observed if any is: the cure is the same whoever breaks it."""
    chosen: dict[Any, _Found] = {}
    for each in sorted(found, key=lambda each: (not each.observed, each.touches[0].at)):
        key = each.attribute, _place(trace, each.touches[0]), _place(trace, each.touches[2])
        known = chosen.setdefault(key, each)
        if known is not each and known.observed == each.observed:
            known.count += each.count
    return list(chosen.values())


def _access(trace: Trace, accesses: Any, row: int, touch: Touch) -> Access:
    stack = trace.stack(touch.stack)
    context = int(accesses["context"][row])
    operation = "check" if touch.flags & AccessFlag.CHECK else _OPERATIONS[Operation(touch.operation)]
    return Access(
        operation,
        trace.threads[int(accesses["thread"][row])].name,
        trace.contexts[context].name if context else None,
        int(accesses["time_ns"][row]),
        stack[0] if stack else Location("", 0, ""),
        tuple(stack),
        int(accesses["scope"][row]),
    )


def _races(trace: Trace, accesses: Any, found: Iterable[_Found]) -> list[Race]:
    strings = trace.strings
    races = []
    for each in found:
        subject = strings[each.attribute]
        rows = [touch.row for touch in each.touches]
        made = tuple(
            _access(trace, accesses, row, touch) for row, touch in zip(rows, each.touches, strict=True)
        )
        ordered = tuple(sorted(made, key=lambda access: access.time_ns))
        actor = Actor(
            on_tasks=bool(each.touches[0].task) and bool(each.touches[1].task),
            read=made[0],
            foreign=made[1],
            write=made[2],
        )
        grade = "observed" if each.observed else "possible"
        races.append(
            Race(
                each.kind,
                subject,
                ordered,
                grade,
                explain(each.kind, subject, actor, each.observed),
                suggest(each.kind, subject, actor),
                each.count,
            )
        )
    return races
