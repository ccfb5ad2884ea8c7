"""What the code around an access does with the value: read off the bytecode, once for each instruction.

From the instruction that reads an attribute on, a model of the interpreter's stack follows the value, and what
is computed from it, until it is gone: into a comparison or branch, a variable, out of the function, or nowhere.
Where the attribute holds a container, the same walk tells what is done to that: `self.counts[k] += 1` reads the
attribute, and reads and writes one of the container's elements. Along the way out of a function the caller goes
on.

Limits: a container that was put into a variable first is not followed; nor is what a function does to its arguments.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, TypeAlias

from pyscope.events.sync import Operation
from pyscope.probes.accesses.branches import ControlFlow
from pyscope.probes.accesses.code import JUMPS_ALWAYS, LEAVES, Step, steps_of

__all__ = ["Content", "KeySource", "ReadSite", "Sites", "Use"]

MOST_STEPS = 400

KeySource: TypeAlias = tuple[Any, ...]
"""("constant", value), ("variable", name) or ("attribute", KeySource, name): where an element's key comes from."""

Label: TypeAlias = tuple[Any, ...] | None
"""What a slot of the modelled stack holds: ("value", use), ("value", use, "derived"), ("method", name),
("function", name), a KeySource, or None."""


@dataclass(slots=True)
class Use:
    """What becomes of a value. `branches`: indexes of the branches that it decides; `stores`: of the steps that keep it
    in a local variable; `escaped`: it is kept elsewhere too."""

    check: bool = False
    kept: bool = False
    escaped: bool = False
    stores: set[int] = field(default_factory=set)
    returned: bool = False
    branches: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Content:
    """What is done to the container that an attribute holds. `key` is None for all of it, or where it is not known."""

    operation: Operation
    key: KeySource | None
    keyed: bool  # one element is meant, though which one may not be known
    lazy: bool = False  # what it gave still looks into the container: .items(), enumerate()


@dataclass(frozen=True, slots=True)
class ReadSite:
    """`uses[0]`: of the attribute's value, and of all that comes of it; `uses[i + 1]`: of what `contents[i]` gave."""

    uses: tuple[Use, ...]
    contents: tuple[Content, ...]


_LONGEST_GUARD = 24  # steps, from the look whether any() is still the built-in one to the loop in its place

_COMPREHENSIONS = {"<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>"}
"""What is decided or kept in one of these is decided for, or handed to, whoever runs it."""

_PLAIN = ReadSite((Use(kept=True, escaped=True),), ())

_WHOLE = {
    "len",
    "bool",
    "list",
    "tuple",
    "set",
    "frozenset",
    "dict",
    "sorted",
    "sum",
    "any",
    "all",
    "min",
    "max",
    "iter",
}
_WHOLE |= {"enumerate", "reversed", "map", "filter", "zip", "str", "repr", "next"}
_LAZY = {"iter", "enumerate", "reversed", "map", "filter", "zip", "items", "keys", "values"}
_R, _W, _C = Operation.CONTENT_READ, Operation.CONTENT_WRITE, Operation.CONTENT_CLAIM
_METHODS: dict[
    str, tuple[Operation, bool]
] = {  # name: what it does, whether to one element that its argument names
    **dict.fromkeys(("get", "__getitem__", "__contains__"), (_R, True)),
    **dict.fromkeys(
        ("keys", "values", "items", "copy", "index", "count", "most_common", "union"), (_R, False)
    ),
    **dict.fromkeys(("issubset", "issuperset", "isdisjoint", "difference", "intersection"), (_R, False)),
    **dict.fromkeys(("add", "remove", "__setitem__", "__delitem__", "move_to_end"), (_W, True)),
    **dict.fromkeys(
        ("append", "appendleft", "extend", "extendleft", "insert", "clear", "update"), (_W, False)
    ),
    **dict.fromkeys(("sort", "reverse", "rotate", "popitem", "popleft", "subtract"), (_W, False)),
    **dict.fromkeys(("difference_update", "intersection_update"), (_W, False)),
    "pop": (_W, True),
    "setdefault": (_C, True),
    "discard": (_C, True),
}


class Sites:
    """The sites of one code object."""

    def __init__(self, code: CodeType) -> None:
        self.is_comprehension = code.co_name in _COMPREHENSIONS
        self._steps = steps_of(code)
        self._offsets = [step.offset for step in self._steps]
        self._flow = ControlFlow(self._steps)
        self._reads: dict[int, ReadSite] = {}
        self._resumed: dict[int, ReadSite] = {}
        self._constants: dict[int, bool] = {}

    def read(self, offset: int) -> ReadSite:
        """What becomes of the attribute that the instruction at `offset` reads."""
        site = self._reads.get(offset)
        if site is None:
            site = self._reads[offset] = self._walked(offset, inside=False)
        return site

    def resumed(self, offset: int) -> ReadSite:
        """What becomes of the result of the call, or the property, or the await at `offset`."""
        site = self._resumed.get(offset)
        if site is None:
            site = self._resumed[offset] = self._walked(offset, inside=True)
        return site

    def writes_constant(self, offset: int) -> bool:
        """Whether the instruction at `offset` stores a constant."""
        known = self._constants.get(offset)
        if known is None:
            index = self._at(offset)
            known = False
            if index > 0 and self._steps[index].name == "STORE_ATTR":
                before = self._before_object(index)
                known = before >= 0 and self._steps[before].name == "LOAD_CONST"
            self._constants[offset] = known
        return known

    def decided_lines(self, use: Use) -> str | None:
        """The lines that run or not as the value decides; None where that is not known."""
        return self._flow.decided_lines(use.branches) if use.branches else None

    def using_lines(self, use: Use) -> str | None:
        """The lines that make anything of the variables that keep the value; None where that is not known."""
        return self._flow.using_lines(use.stores) if use.stores and not use.escaped else None

    # walking

    def _at(self, offset: int) -> int:
        """The index of an instruction. While it runs a Python function, 3.12 stands in the cache behind it."""
        return bisect_right(self._offsets, offset) - 1

    def _walked(self, offset: int, inside: bool) -> ReadSite:
        index = self._at(offset)
        if index < 0:
            return _PLAIN
        step = self._steps[index]
        value: Label = ("value", 0, "derived") if inside else ("value", 0)
        at = index + 1
        stack: list[Label]
        if step.name == "LOAD_METHOD" or (step.name == "LOAD_ATTR" and step.pushes == 2):
            stack = [value, None]
        elif step.name == "LOAD_ATTR":
            stack = [self._below(index), value]
        elif step.name in ("CALL", "CALL_KW", "CALL_FUNCTION_EX", "BINARY_SUBSCR", "LOAD_SUPER_ATTR"):
            stack = [value]
        elif step.name == "SEND" and inside and step.target >= 0:
            at = step.target
            stack = [value] if sys.version_info < (3, 12) else [value, value]
        elif step.name == "FOR_ITER" and inside and (end := self._end_of_call(index)) >= 0:
            at, stack = end, [value]
        else:
            return _PLAIN
        walk = _Walk(self._steps)
        walk.go(at, stack)
        whole = walk.uses[0]  # what came out of the container came out of the attribute
        for use in walk.uses[1:]:
            whole.check |= use.check
            whole.kept |= use.kept
            whole.escaped |= use.escaped
            whole.stores |= use.stores
            whole.returned |= use.returned
            whole.branches |= use.branches
        return ReadSite(tuple(walk.uses), tuple(walk.contents))

    def _end_of_call(self, index: int) -> int:
        """Where the result is, if a loop stands for a call: 3.14 makes one of any(), all() and tuple() of a generator
        expression. -1 if it does not."""
        before = self._steps[max(0, index - _LONGEST_GUARD) : index]
        if self._steps[index].target < 0 or all(step.name != "LOAD_COMMON_CONSTANT" for step in before):
            return -1
        for at in range(self._steps[index].target, len(self._steps)):
            step = self._steps[at]
            if step.name == "JUMP_FORWARD":
                return step.target
            if step.name == "RETURN_VALUE":
                return at
            if step.name not in ("END_FOR", "POP_ITER", "LOAD_CONST", "CALL_INTRINSIC_1"):
                break
        return -1

    def _before_object(self, index: int) -> int:
        """The index of the step before those that put the object of an attribute access on the stack; -1 unknown."""
        at = index - 1
        while at >= 0 and self._steps[at].name in ("LOAD_ATTR", "EXTENDED_ARG"):
            if self._steps[at].pushes == 2:
                return -1
            at -= 1
        if at < 0 or self._steps[at].name not in _LOADS:
            return -1
        return at - 1

    def _below(self, index: int) -> Label:
        """What lies below the object of an attribute access: of `k in self.cache` the key."""
        at = index - 1
        while at >= 0 and self._steps[at].name in ("LOAD_ATTR", "EXTENDED_ARG"):
            at -= 1
        if at < 0:
            return None
        step = self._steps[at]
        if step.name == "LOAD_FAST_LOAD_FAST" and isinstance(step.value, tuple):
            return ("variable", step.value[0])
        if step.name not in _LOADS:
            return None
        return self._source(at - 1)

    def _source(self, at: int) -> Label:
        if at < 0:
            return None
        step = self._steps[at]
        if step.name == "LOAD_ATTR" and step.pushes == 1:
            base = self._source(at - 1)
            return ("attribute", base, step.value) if _is_key(base) else None
        return _loaded(step)


_LOADS = {"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_CLASSDEREF"}
_STORES = {
    "STORE_FAST",
    "STORE_NAME",
    "STORE_DEREF",
    "STORE_GLOBAL",
    "YIELD_VALUE",
    "LIST_APPEND",
    "SET_ADD",
    "MAP_ADD",
}
_STORES |= {"STORE_ATTR", "STORE_SUBSCR", "STORE_SLICE", "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST"}
_VARIABLES = {"STORE_FAST", "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST"}
_COMPARISONS = {"COMPARE_OP", "IS_OP", "CONTAINS_OP", "GET_LEN", "MATCH_MAPPING", "MATCH_SEQUENCE"}


def _is_key(label: Label) -> bool:
    return label is not None and label[0] in ("constant", "variable", "attribute")


def _is_slice(label: Label) -> bool:
    """Whether it is a slice of constants: 3.14 makes one a constant itself."""
    return label is not None and label[0] == "constant" and isinstance(label[1], slice)


def _loaded(step: Step) -> Label:
    if step.name in ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_DEREF"):
        return ("variable", step.value)
    if step.name == "LOAD_CONST":
        return ("constant", step.value)
    if step.name in ("LOAD_GLOBAL", "LOAD_NAME"):
        return ("function", step.value)
    return None


class _Walk:
    """Follows a value along every way out of its expression."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self.uses = [Use()]
        self.contents: list[Content] = []
        self._made: dict[tuple[int, Operation], int] = {}  # step and operation: use
        self._left = MOST_STEPS

    def go(self, at: int, stack: list[Label]) -> None:
        """Walks from step `at` on, with `stack` as the top of the interpreter's."""
        while any(label is not None and label[0] in ("value", "method") for label in stack):
            self._left -= 1
            if at >= len(self._steps) or self._left < 0:
                self._give_up(stack)
                return
            step = self._steps[at]
            if step.name == "SEND" and step.target >= 0:
                below = stack[-2] if len(stack) > 1 else None
                del stack[-2:]
                stack += [below] if sys.version_info < (3, 12) else [below, below]
                at = step.target
                continue
            if step.target >= 0 and step.name not in JUMPS_ALWAYS:
                if not self._branch(at, step, stack):
                    return
                at += 1
                continue
            if step.pops < 0:
                self._give_up(stack)
                return
            if step.name == "COPY":
                stack.append(stack[-step.argument] if step.argument <= len(stack) else None)
            elif step.name == "SWAP":
                missing = step.argument - len(stack)
                stack[:0] = [None] * max(0, missing)
                stack[-1], stack[-step.argument] = stack[-step.argument], stack[-1]
            else:
                self._do(at, step, stack)
            if step.name in LEAVES:
                return
            at = step.target if step.name in JUMPS_ALWAYS and step.target >= 0 else at + 1

    def _branch(self, at: int, step: Step, stack: list[Label]) -> bool:
        """A conditional jump. Whether to go on behind it."""
        if step.name == "FOR_ITER" or not step.name.startswith(("POP_JUMP", "JUMP_IF")):
            self._give_up(stack)
            return False
        top = stack.pop() if stack else None
        use = self._use(top)
        if use is not None:
            use.check = True
            use.branches.add(at)
            if top == ("value", 0):
                self._content(at, _R, None, False, check=at)
        jumped = list(stack)
        if step.name.startswith("JUMP_IF"):  # 3.11: the value stays if it jumps
            jumped.append(top)
        if step.target > at:  # not into a loop once more
            self.go(step.target, jumped)
        return True

    def _do(self, at: int, step: Step, stack: list[Label]) -> None:
        pops = step.pops
        taken = stack[len(stack) - pops :] if pops <= len(stack) else [*[None] * (pops - len(stack)), *stack]
        taken = list(taken) if pops else []
        del stack[max(0, len(stack) - pops) :]
        result = self._result(at, step, taken)
        if step.name == "LOAD_FAST_LOAD_FAST" and isinstance(step.value, tuple):
            stack += [("variable", name) for name in step.value]
        else:
            stack += [result] * step.pushes

    def _result(self, at: int, step: Step, taken: list[Label]) -> Label:
        name = step.name
        if not taken:
            return _loaded(step)
        if name in ("LOAD_ATTR", "LOAD_METHOD"):
            below = taken[-1]
            if below == ("value", 0):
                return ("method", step.value)
            if _is_key(below):
                return ("attribute", below, step.value)
            return below if self._use(below) is not None else None
        if name.startswith("CALL") and not name.startswith("CALL_INTRINSIC"):
            called = self._called(at, step, taken)
            if called is not None:
                return called
        elif name == "BINARY_SUBSCR" and taken[0] == ("value", 0):
            return self._content(at, _R, taken[1], True)
        elif name in ("STORE_SUBSCR", "DELETE_SUBSCR") and taken[-2] == ("value", 0):
            if name == "STORE_SUBSCR":
                self._keep(taken[:1])
            self._content(at, _W, taken[-1], True)
            return None
        elif name == "CONTAINS_OP" and taken[1] == ("value", 0):
            label = self._content(at, _R, taken[0], True)
            self.uses[label[1]].check = True
            return label
        elif name == "BINARY_SLICE" and taken[0] == ("value", 0):
            return self._content(at, _R, None, False)
        elif name == "STORE_SLICE" and taken[1] == ("value", 0):
            self._content(at, _W, None, False)
            return None
        elif name == "GET_ITER":
            if taken[0] == ("value", 0):
                made = self._content(at, Operation.ITERATE, None, False)
                self._loop(at, self.uses[made[1]])
                return None
            use = self._use(taken[0])
            if use is not None and taken[0] is not None and taken[0][1] > 0:
                content = self.contents[taken[0][1] - 1]
                if content.lazy:
                    self.contents[taken[0][1] - 1] = Content(Operation.ITERATE, None, False)
                    self._loop(at, use)
                    return None
        tainted = [label for label in taken if self._use(label) is not None]
        if not tainted:
            return None
        if name in _COMPARISONS:
            for each in tainted:
                self._checked(each)
        if name in _STORES or name.startswith("UNPACK"):
            self._keep(tainted, at if name in _VARIABLES else -1)
            return None
        if name == "RETURN_VALUE":
            for each in tainted:
                use = self._use(each)
                if use is not None:
                    use.returned = True
            return None
        first = tainted[0]
        if name in ("TO_BOOL", "UNARY_NOT", "GET_AWAITABLE", "END_SEND") or first is None:
            return first
        return (*first[:2], "derived")

    def _called(self, at: int, step: Step, taken: list[Label]) -> Label:
        """A call that does something to the container."""
        count = step.argument if step.name in ("CALL", "CALL_KW") else 0
        callable_slots = [label for label in taken[:2] if label is not None]
        arguments = taken[2 : 2 + count] if step.name in ("CALL", "CALL_KW") else []
        for label in callable_slots:
            if label[0] == "method":
                operation, keyed = _METHODS.get(label[1], (None, False))
                if operation is None:
                    return ("value", 0, "derived")
                if label[1] == "pop":
                    keyed = bool(arguments)
                    operation = _C if len(arguments) > 1 else _W
                key = arguments[0] if keyed and arguments else None
                self._keep(arguments[1:] if keyed else arguments)
                return self._content(at, operation, key, keyed, lazy=label[1] in _LAZY)
            if label[0] == "function" and label[1] in _WHOLE and ("value", 0) in arguments:
                return self._content(at, _R, None, False, lazy=label[1] in _LAZY)
        return None

    def _loop(self, at: int, use: Use) -> None:
        """The body of the loop that iterates."""
        if at + 1 < len(self._steps) and self._steps[at + 1].name == "FOR_ITER":
            use.branches.add(at + 1)

    # marking

    def _use(self, label: Label) -> Use | None:
        if label is None or label[0] != "value":
            return None
        return self.uses[label[1]]

    def _content(
        self,
        at: int,
        operation: Operation,
        key: Label,
        keyed: bool,
        check: int | None = None,
        lazy: bool = False,
    ) -> tuple[Any, ...]:
        if _is_slice(key):
            key, keyed = None, False
        made = self._made.get((at, operation))
        if made is None:
            made = self._made[at, operation] = len(self.uses)
            self.uses.append(Use())
            self.contents.append(Content(operation, key if _is_key(key) else None, keyed, lazy))
        if check is not None:
            self.uses[made].check = True
            self.uses[made].branches.add(check)
        return ("value", made)

    def _checked(self, label: Label) -> None:
        use = self._use(label)
        if use is not None:
            use.check = True

    def _keep(self, labels: list[Label], store: int = -1) -> None:
        for label in labels:
            use = self._use(label)
            if use is not None:
                use.kept = True
                if store >= 0:
                    use.stores.add(store)
                else:
                    use.escaped = True

    def _give_up(self, stack: list[Label]) -> None:
        self._keep(stack)
