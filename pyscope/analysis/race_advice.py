"""What is said of a race: what happened, and what to change where."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pyscope.findings import Access
from pyscope.rows import Location

__all__ = ["Actor", "explain", "in_words", "suggest"]


@dataclass(frozen=True, slots=True)
class Actor:
    """The three accesses of a race: the window's two ends, and the foreign write. `on_tasks`: of asyncio tasks."""

    on_tasks: bool
    read: Access
    foreign: Access
    write: Access

    @property
    def own(self) -> str:
        """Who has the window."""
        return _name(self.read, self.on_tasks)

    @property
    def other(self) -> str:
        """Who writes meanwhile."""
        return _name(self.foreign, self.on_tasks)


def explain(kind: str, subject: str, actor: Actor, observed: bool) -> str:
    """What happened, or could, in one or two sentences."""
    read, foreign, write = (in_words(access.location) for access in (actor.read, actor.foreign, actor.write))
    could = "wrote" if observed else "may write"
    if kind == "check_then_act":
        return (
            f"{actor.own} checked {subject} at {read} and acted on the answer at {write}; in between {actor.other} "
            f"{could} it at {foreign}, so that the check no longer held."
        )
    if kind == "lost_update":
        return (
            f"{actor.own} read {subject} at {read} and wrote a new value at {write}; what {actor.other} {could} at "
            f"{foreign} in between {'was' if observed else 'would be'} overwritten."
        )
    if actor.read.operation == "iterate":
        return (
            f"{actor.own} iterated over {subject} from {read} on; {actor.other} {could} to it at {foreign} before the "
            "loop had ended, which skips elements or raises RuntimeError."
        )
    return (
        f"{actor.own} read two values that are written together, at {read} and {write}; {actor.other} {could} one of "
        f"them ({subject}) at {foreign} in between, so that one was old and the other new."
    )


def suggest(kind: str, subject: str, actor: Actor) -> str:
    """What to change, and where."""
    read, write = actor.read.location, actor.write.location
    foreign = in_words(actor.foreign.location)
    if actor.read.operation == "iterate":
        return (
            f"Iterate over a copy at {in_words(read)}: list(...)."
            if actor.on_tasks
            else (
                f"Iterate over a copy, list(...), made under the lock that the write at {foreign} holds as well."
            )
        )
    lock = "an asyncio.Lock" if actor.on_tasks else "a threading.Lock"
    with_word = "async with" if actor.on_tasks else "with"
    stretch = _stretch(read, write)
    if kind == "data_race":
        return (
            f"Read both under the lock that the write at {foreign} holds ({with_word} …: around {stretch})."
        )
    cure = f"Hold {lock} ({with_word} …:) around {stretch}, and hold the same one at {foreign}"
    if actor.on_tasks:
        again = "check again" if kind == "check_then_act" else "read again"
        return f"{cure}; or {again} after the last await before {in_words(write)}."
    if kind == "check_then_act":
        return f"{cure}; or check again under the lock right before {in_words(write)}."
    return f"{cure}."


def _name(access: Access, on_tasks: bool) -> str:
    if on_tasks and access.context:
        return f"task {access.context}"
    return f"task {access.context}" if access.context else f"thread {access.thread}"


def in_words(location: Location) -> str:
    """A place as it stands in a sentence."""
    if not location.file:
        return "a place that is not known"
    return f"{os.path.basename(location.file)}:{location.line} ({location.function})"


def _stretch(first: Location, last: Location) -> str:
    if first.file != last.file or first.function != last.function:
        return f"the stretch from {in_words(first)} to {in_words(last)}"
    if first.line == last.line:
        return f"line {first.line} of {os.path.basename(first.file)} ({first.function})"
    begin, end = sorted((first.line, last.line))
    return f"lines {begin}–{end} of {os.path.basename(first.file)} ({first.function})"
