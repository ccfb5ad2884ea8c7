"""Which lines of a function a condition decides about: control dependence on its bytecode, and the variables it sets.

Ferrante, Ottenstein and Warren, "The program dependence graph and its use in optimization" (1987): an
instruction depends on a branch if one way out of the branch always leads to it and another may not. Exceptions
are no ways out here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pyscope.probes.accesses.code import JUMPS_ALWAYS, LEAVES, Step

__all__ = ["ControlFlow"]

MOST_STEPS = 3000
MOST_VALUES = 200  # of variables, that are followed

_COLLECTS = {"LIST_APPEND", "SET_ADD", "MAP_ADD"}
_BEGINS = {"BUILD_LIST", "BUILD_SET", "BUILD_MAP"}
_ENDS = {"STORE_FAST", "STORE_ATTR", "STORE_SUBSCR", "STORE_GLOBAL", "STORE_DEREF", "POP_TOP", *LEAVES}
"""What a statement ends with, roughly."""


def _stored(step: Step) -> tuple[str, ...]:
    """The variables that a step gives a value."""
    if step.name in ("STORE_FAST", "STORE_DEREF"):
        return (str(step.value),)
    if step.name == "STORE_FAST_STORE_FAST" and isinstance(step.value, tuple):
        return step.value
    if step.name == "STORE_FAST_LOAD_FAST" and isinstance(step.value, tuple):
        return step.value[:1]
    return ()


def _loaded(step: Step) -> tuple[str, ...]:
    """The variables that a step loads."""
    if step.name in ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF"):
        return (str(step.value),)
    if step.name == "LOAD_FAST_LOAD_FAST" and isinstance(step.value, tuple):
        return step.value
    if step.name == "STORE_FAST_LOAD_FAST" and isinstance(step.value, tuple):
        return step.value[1:]
    return ()


class _Lines(NamedTuple):
    """The lines of a block: its lowest, its highest, and that of the instruction that it ends with."""

    first: int
    last: int
    end: int


class ControlFlow:
    """The basic blocks of a function and what each branch decides about."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._lines: dict[int, str] = {}
        self._deciders: list[set[int]] | None = None  # for each block the branching blocks it depends on
        self._starts: list[int] = []
        self._block_of: list[int] = []
        self._jumps = {index for index, step in enumerate(steps) if step.target >= 0}

    def decided_lines(self, branches: Iterable[int]) -> str | None:
        """The lines that branch instructions (by index) decide about, as "12-14,20"; None where that is not known."""
        lines = self._decided(branches)
        return None if lines is None else _ranges(lines - {0})

    def using_lines(self, stores: Iterable[int]) -> str | None:
        """The lines that make anything of the variables that some steps set, as above: those that use one, and those
        that are decided about by it."""
        if len(self._steps) > MOST_STEPS:
            return None
        lines: set[int] = set()
        branches: set[int] = set()
        news = [(at, name) for at in stores for name in _stored(self._steps[at])]
        known = set(news)
        while news:
            if len(known) > MOST_VALUES:
                return None
            at, name = news.pop()
            for load in self._loads(at, name):
                statement = self._statement(load)
                if statement is None:
                    return None
                lines.update(self._steps[step].first_line for step in statement)
                end = statement[-1]
                if end in self._jumps:
                    branches.add(end)
                further = {(end, other) for other in _stored(self._steps[end])} - known
                known |= further
                news += further
        decided = self._decided(branches)
        return None if decided is None else _ranges((lines | decided) - {0})

    def _statement(self, load: int) -> list[int] | None:
        """The steps of a statement from one on, to what it stores, drops or decides; None if it goes several ways."""
        found = [load]
        while self._steps[found[-1]].name not in _ENDS:
            at = found[-1]
            step = self._steps[at]
            follow = at + 1
            if step.name == "SEND" or (step.name == "JUMP_FORWARD" and step.target > at):
                follow = step.target
            elif step.name == "FOR_ITER":
                return found
            elif step.name.startswith("POP_JUMP"):
                # What it jumps over is more than a part of the same statement: `x or 1`, `1 if x else 2`.
                arm = {each.name for each in self._steps[at + 1 : step.target]}
                whole = step.target <= at or not arm.isdisjoint(_ENDS | {"JUMP_BACKWARD"})
                kept = any(
                    each.name == "COPY" for each in self._steps[max(0, at - 2) : at]
                )  # 3.13: TO_BOOL after it
                return found if whole and not kept else None
            elif at in self._jumps or step.name.startswith("UNPACK"):
                return None
            if follow < 0 or follow >= len(self._steps):
                return None
            found.append(follow)
        return found

    def _decided(self, branches: Iterable[int]) -> set[int] | None:
        lines: set[int] = set()
        for branch in branches:
            if self._deciders is None:
                if len(self._steps) > MOST_STEPS:
                    return None
                self._analyse()
            assert self._deciders is not None
            block = self._block_of[branch]
            decided: set[int] = set()
            for other, deciders in enumerate(self._deciders):
                if block in deciders:
                    begin = self._starts[other]
                    end = self._starts[other + 1] if other + 1 < len(self._starts) else len(self._steps)
                    decided.update(range(begin, end))
            if any(self._collects(at, branch) for at in decided):
                return None  # of what is collected it is not known where it goes
            lines.update(self._steps[at].first_line for at in decided)
            lines |= self._lines_with_values_of(decided)
        return lines

    def _collects(self, at: int, branch: int) -> bool:
        """Whether a step adds to what a comprehension around the branch makes, where that has no code of its own."""
        if self._steps[at].name not in _COLLECTS:
            return False
        while at >= 0 and self._steps[at].name not in _BEGINS:
            at -= 1
        return at < branch

    def _lines_with_values_of(self, decided: set[int]) -> set[int]:
        """The lines of other statements that use a variable which was set by some steps, or what they made of it."""
        lines: set[int] = set()
        news = [(at, name) for at in decided for name in _stored(self._steps[at])]
        known = set(news)
        while news and len(known) <= MOST_VALUES:
            at, name = news.pop()
            for load in self._loads(at, name):
                if load in decided:
                    continue
                end = load
                while (
                    end + 1 < len(self._steps)
                    and self._steps[end].name not in _ENDS
                    and end not in self._jumps
                ):
                    end += 1
                lines.update(step.first_line for step in self._steps[load : end + 1])
                further = {(end, other) for other in _stored(self._steps[end])} - known
                known |= further
                news += further
        return lines

    def _loads(self, at: int, name: str) -> list[int]:
        """Where the value that step `at` gives a variable is loaded before the variable gets another."""
        found = []
        waiting, seen = self._next(at), {at}
        while waiting:
            at = waiting.pop()
            if at in seen or at >= len(self._steps):
                continue
            seen.add(at)
            step = self._steps[at]
            if name in _loaded(step):
                found.append(at)
            if name not in _stored(step):
                waiting += self._next(at)
        return found

    def _next(self, at: int) -> list[int]:
        step = self._steps[at]
        follow = [step.target] if step.target >= 0 else []
        if step.name not in JUMPS_ALWAYS and step.name not in LEAVES:
            follow.append(at + 1)
        return follow

    def _analyse(self) -> None:
        steps = self._steps
        starts = {0}
        for index, step in enumerate(steps):
            if step.target >= 0:
                starts.add(step.target)
            if step.target >= 0 or step.name in LEAVES:
                starts.add(index + 1)
        self._starts = sorted(start for start in starts if start < len(steps))
        self._block_of = [0] * len(steps)
        ends = [*self._starts[1:], len(steps)]
        for block, (begin, end) in enumerate(zip(self._starts, ends, strict=True)):
            for index in range(begin, end):
                self._block_of[index] = block
        count = len(self._starts)
        exit_block = count
        followers: list[list[int]] = []
        for end in ends:
            last = steps[end - 1]
            follow: set[int] = set()
            if last.name == "SEND" and last.target >= 0:  # an await goes on behind it
                follow.add(self._block_of[last.target])
            else:
                if last.target >= 0:
                    follow.add(self._block_of[last.target])
                if last.name not in JUMPS_ALWAYS and last.name not in LEAVES and end < len(steps):
                    follow.add(self._block_of[end])
            followers.append(sorted(follow) or [exit_block])
        _give_endless_loops_a_way_out(followers, exit_block)
        after = _postdominators(followers, exit_block)
        depends: list[set[int]] = [set() for _ in range(count)]
        for block, ways in enumerate(followers):
            if len(ways) < 2:
                continue
            for way in ways:
                if way == exit_block:
                    continue
                for other in range(count):
                    if after[way] >> other & 1 and not (other != block and after[block] >> other & 1):
                        depends[other].add(block)
        lines = [
            _Lines(
                min((step.first_line for step in steps[begin:end] if step.first_line), default=0),
                max(step.first_line for step in steps[begin:end]),
                steps[end - 1].first_line,
            )
            for begin, end in zip(self._starts, ends, strict=True)
        ]
        for branch, done in _done_on_leaving(followers, lines):
            depends[done].add(branch)
        changed = True  # what depends on a branch that depends on another depends on both
        while changed:
            changed = False
            for deciders in depends:
                wider = deciders.union(*(depends[each] for each in deciders)) if deciders else deciders
                if len(wider) != len(deciders):
                    deciders |= wider
                    changed = True
        self._deciders = depends


def _done_on_leaving(followers: list[list[int]], lines: list[_Lines]) -> Iterator[tuple[int, int]]:
    """What a `while True` does in its body when a condition is met, and then returns: the branch, what it leads to.

    All ways lead there, as the loop goes on until then; still it depends on the condition. A loop with a condition of
    its own tests that on its first line, and what comes behind a loop is none of its body. lines: of each block.
    """
    reached = _reached(followers, [0])
    before: list[list[int]] = [[] for _ in followers]
    jumps: dict[int, list[int]] = {}  # by where they jump back to
    for block in sorted(reached):
        for follower in followers[block]:
            if follower < len(followers):
                before[follower].append(block)
                if follower <= block:
                    jumps.setdefault(follower, []).append(block)
    for head, ends in jumps.items():
        loop = _reached(before, ends, {head})
        # The line of the `while`: up to 3.13 the jump back has it, from 3.14 on what it jumps to.
        first, last = min(lines[block].first for block in loop), max(lines[block].last for block in loop)
        leaving = [block for block in loop if not loop.issuperset(followers[block])]
        if any(lines[block].end <= first for block in leaving):
            continue
        outside = {block for block in range(len(lines)) if not first < lines[block].end <= last}
        for branch in leaving:
            for done in _reached(followers, followers[branch], loop | outside) - loop - outside:
                yield branch, done


def _reached(followers: list[list[int]], begin: list[int], bounds: Iterable[int] = ()) -> set[int]:
    """The blocks that ways lead to which stop at some bounds, these included."""
    found = set(bounds)
    waiting = list(begin)
    while waiting:
        block = waiting.pop()
        if block not in found and block < len(followers):
            found.add(block)
            waiting += followers[block]
    return found


def _give_endless_loops_a_way_out(followers: list[list[int]], exit_block: int) -> None:
    leaving = {exit_block}
    while True:
        found = {
            block
            for block, ways in enumerate(followers)
            if block not in leaving and not leaving.isdisjoint(ways)
        }
        if not found:
            stuck = [block for block in range(len(followers)) if block not in leaving]
            if not stuck:
                return
            followers[stuck[-1]].append(exit_block)  # the jump back
            found = {stuck[-1]}
        leaving |= found


def _postdominators(followers: list[list[int]], exit_block: int) -> list[int]:
    """For each block the blocks that every way from it to the end passes, itself included, as a bit set."""
    everything = (1 << (exit_block + 1)) - 1
    after = [everything] * exit_block + [1 << exit_block]
    changed = True
    while changed:
        changed = False
        for block in range(exit_block - 1, -1, -1):
            common = everything
            for follower in followers[block]:
                common &= after[follower]
            common |= 1 << block
            if common != after[block]:
                after[block] = common
                changed = True
    return after


def _ranges(lines: set[int]) -> str:
    parts: list[str] = []
    ordered = sorted(lines)
    at = 0
    while at < len(ordered):
        end = at
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        parts.append(str(ordered[at]) if end == at else f"{ordered[at]}-{ordered[end]}")
        at = end + 1
    return ",".join(parts)
