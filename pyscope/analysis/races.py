"""Races among threads and asyncio tasks on the attributes of watched objects.

What is shared: an attribute, one element of a container that an attribute holds, or such a container as a
whole. Findings are broken windows (`windows`), a container changed while it is iterated over, and two
attributes that belong together, read while only one of them had been written (`race_patterns`). Grade `observed`: it
happened in this run, though the program need not have come to harm; `possible`: nothing that was seen
prevents it, or a lock that was not seen may.

First come columns: what is shared, and what lies how in time. Only the accesses that this leaves are looked at one
by one, with what was ordered before what (`happens_before`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis import race_patterns, windows
from pyscope.analysis.happens_before import replay, strand_keys
from pyscope.analysis.race_advice import Actor, explain, suggest
from pyscope.analysis.windows import WRITES, Accesses, Broken, Touch
from pyscope.events.sync import ACCESS, LOCK, SIGNAL, AccessFlag, Operation
from pyscope.findings import Access, Race
from pyscope.rows import Location

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["find"]

_UNKNOWN_KEY = -1
_INSIDE = (Operation.CONTENT_READ, Operation.CONTENT_WRITE, Operation.CONTENT_CLAIM, Operation.ITERATE)
_ITSELF, _ELEMENT, _WHOLE = 0, 1, 2  # what of an attribute is accessed
_OPERATIONS = {
    Operation.READ: "read",
    Operation.WRITE: "write",
    Operation.DELETE: "delete",
    Operation.CONTENT_READ: "read",
    Operation.CONTENT_WRITE: "write",
    Operation.CONTENT_CLAIM: "write",
    Operation.ITERATE: "iterate",
}


@dataclass(slots=True)
class _Found:
    """A race as often as it was found between the same places."""

    kind: str
    attribute: int
    touches: tuple[Touch, ...]
    observed: bool
    count: int = 1


def find(trace: Trace) -> list[Race]:
    """The races of a trace, the observed ones first, then in order of time.

    Of very many between the same places in the code some hundreds are looked at: a large `count` is a lower bound.
    """
    events = trace.probe_events(ACCESS)
    rows = _shared(events)
    if not len(rows):
        return []
    accesses, uncertain, objects = _by_subject(events, rows)
    strings, stack = trace.strings, trace.stack

    def relies_on(read: int, write: int, renewed: bool) -> bool:
        return windows.relies(
            stack(int(accesses.stack[read])),
            int(accesses.level[read]),
            int(accesses.flags[read]),
            strings[int(accesses.lines[read])],
            stack(int(accesses.stack[write])),
            renewed,
        )

    closed = windows.find(accesses, relies_on)
    disturbed = list(race_patterns.iterations(accesses, stack, strings))
    torn = list(race_patterns.torn_reads(accesses, objects, stack))
    touches = _touches(trace, events, rows, _numbers(closed, disturbed, torn))
    found: dict[Any, _Found] = {}
    attribute_of = dict(zip(accesses.subject.tolist(), accesses.attribute.tolist(), strict=True))
    for group in closed:
        subject = group[0].subject
        for broken in windows.judge(group, touches):
            _note(trace, found, attribute_of[subject], broken, certain=subject not in uncertain)
    for iteration in disturbed:
        _note(trace, found, iteration.attribute, race_patterns.judge_iteration(iteration, touches))
    for pair in torn:
        _note(trace, found, pair.attribute, race_patterns.judge_torn(pair, touches))
    return _races(trace, events, _one_for_each_window(trace, found.values()))


# --- columns ---------------------------------------------------------------------------------------


def _shared(accesses: Any) -> NDArray[np.intp]:
    """The rows of attributes that more than one thread or task has used, and any has written."""
    if not len(accesses):
        return np.zeros(0, np.intp)
    strand = _strands(accesses)
    subject = _codes(accesses["object"], accesses["attribute"])
    count = int(np.max(strand)) + 1
    pairs = np.unique(subject * count + strand)
    strands = np.bincount(pairs // count, minlength=int(np.max(subject)) + 1)
    writes = np.isin(accesses["operation"], WRITES)
    written = np.bincount(subject[writes], minlength=len(strands)) > 0
    shared = ((strands > 1) & written)[subject]
    # of who iterates over what is shared all is of interest: it tells how long the loop goes on
    iterating = np.unique(strand[shared & (accesses["operation"] == Operation.ITERATE)])
    found: NDArray[np.intp] = np.flatnonzero(shared | np.isin(strand, iterating))
    return found


def _strands(accesses: Any) -> NDArray[np.int64]:
    thread = np.where(accesses["task"] != 0, -1, accesses["thread"])
    return _codes(accesses["process"], thread, accesses["task"])


def _codes(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Equal rows get equal small numbers."""
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, inverse = np.unique(column, return_inverse=True)
        codes = codes * len(values) + inverse
        codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    return codes


def _by_subject(events: Any, rows: NDArray[np.intp]) -> tuple[Accesses, set[int], dict[int, int]]:
    """The accesses by subject; the subjects that are an element whose key is not known; of each subject the object."""
    operation, key = events["operation"][rows], events["key"][rows]
    inside = np.isin(operation, _INSIDE)
    keyed = inside & (key != 0) & (operation != Operation.ITERATE)
    element = np.flatnonzero(keyed)
    whole = np.flatnonzero(inside & (~keyed | np.isin(operation, WRITES)))
    itself = np.flatnonzero(~inside)
    number = np.concatenate([itself, element, whole])
    part = np.repeat((_ITSELF, _ELEMENT, _WHOLE), (len(itself), len(element), len(whole)))
    part_key = np.where(part == _ELEMENT, key[number], 0)
    at = rows[number]
    subject = _codes(events["object"][at], events["attribute"][at], part, part_key)
    order = np.lexsort((number, subject))
    number, subject, at = number[order], subject[order], at[order]
    unknown = (part[order] == _ELEMENT) & (part_key[order] == _UNKNOWN_KEY)
    names = ("operation", "flags", "level", "task", "loop_step", "lines", "stack", "attribute")
    accesses = Accesses(
        number=number,
        subject=subject,
        strand=_strands(events)[at],
        whole=part[order] == _WHOLE,
        **{name: events[name][at] for name in names},
    )
    objects = dict(zip(subject.tolist(), events["object"][at].tolist(), strict=True))
    return accesses, set(subject[unknown].tolist()), objects


# --- one by one ------------------------------------------------------------------------------------


def _numbers(
    closed: Iterable[list[windows.Window]],
    disturbed: Iterable[race_patterns.Disturbed],
    torn: Iterable[race_patterns.Torn],
) -> NDArray[np.int64]:
    """The accesses that have to be looked at, in order of time."""
    chosen: set[int] = set()
    for window in chain.from_iterable(closed):
        chosen.update((window.read, window.write), window.inside, window.outside)
    for iteration in disturbed:
        chosen.update((iteration.begin, iteration.last), iteration.writes)
    for pair in torn:
        chosen.update(pair[1:])
    return np.array(sorted(chosen), np.int64)


def _touches(
    trace: Trace, events: Any, rows: NDArray[np.intp], numbers: NDArray[np.int64]
) -> dict[int, Touch]:
    if not len(numbers):
        return {}
    chosen = rows[numbers]
    names = ("process", "thread", "task", "operation", "flags", "level", "loop_step", "lines", "stack")
    columns = {name: events[name][chosen] for name in names}
    moments = replay(
        trace,
        events["time_ns"][chosen],
        strand_keys(columns),
        columns["thread"].tolist(),
        _tasks_by_context(trace),
    )
    strings = trace.strings
    fields = (columns[name].tolist() for name in names[2:])
    return {
        number: Touch(row, number, operation, flags, level, task, step, strings[lines], stack, moment)
        for number, row, task, operation, flags, level, step, lines, stack, moment in zip(
            numbers.tolist(), chosen.tolist(), *fields, moments, strict=True
        )
    }


def _tasks_by_context(trace: Trace) -> dict[int, int]:
    tasks: dict[int, int] = {}
    for event in (ACCESS, LOCK, SIGNAL):
        events = trace.probe_events(event)
        chosen = (events["task"] != 0) & (events["context"] != 0)
        contexts, first = np.unique(events["context"][chosen], return_index=True)
        tasks.update(zip(contexts.tolist(), events["task"][chosen][first].tolist(), strict=True))
    return tasks


# --- telling ---------------------------------------------------------------------------------------


def _place(trace: Trace, touch: Touch) -> Location:
    stack = trace.stack(touch.stack)
    return stack[0] if stack else Location("", 0, "")


def _note(
    trace: Trace, found: dict[Any, _Found], attribute: int, broken: Broken | None, certain: bool = True
) -> None:
    if broken is None:
        return
    touches = broken.read, broken.foreign, broken.write
    observed = broken.observed and certain
    key = broken.kind, attribute, tuple(_place(trace, touch) for touch in touches)
    known = found.get(key)
    if known is None:
        found[key] = _Found(broken.kind, attribute, touches, observed)
    elif observed and not known.observed:
        known.observed, known.touches, known.count = True, touches, 1
    elif observed == known.observed:
        known.count += 1


def _one_for_each_window(trace: Trace, found: Iterable[_Found]) -> list[_Found]:
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
