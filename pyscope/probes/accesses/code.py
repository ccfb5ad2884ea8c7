"""The instructions of a code object, and what each takes from the stack and leaves on it.

CPython 3.11 to 3.14 differ in names and details: 3.14's are told by the names of 3.13. Whatever is not known here ends
an analysis, which then says less.
"""

from __future__ import annotations

import dis
import sys
from dataclasses import dataclass
from types import CodeType

__all__ = ["JUMPS_ALWAYS", "LEAVES", "Step", "steps_of"]

_POPS_TABLE = {  # how many values each takes; n: its argument
    "0": """COPY COPY_FREE_VARS DELETE_DEREF DELETE_FAST EXTENDED_ARG FOR_ITER GET_LEN JUMP_BACKWARD
        JUMP_BACKWARD_NO_INTERRUPT JUMP_FORWARD KW_NAMES LOAD_ASSERTION_ERROR LOAD_BUILD_CLASS
        LOAD_CLASSDEREF LOAD_CLOSURE LOAD_COMMON_CONSTANT LOAD_CONST LOAD_DEREF LOAD_FAST
        LOAD_FAST_AND_CLEAR LOAD_FAST_CHECK LOAD_FAST_LOAD_FAST LOAD_GLOBAL LOAD_LOCALS LOAD_NAME MAKE_CELL
        MATCH_KEYS MATCH_MAPPING MATCH_SEQUENCE NOP PRECALL PUSH_NULL RESUME RETURN_CONST SWAP""",
    "1": """BEFORE_ASYNC_WITH BEFORE_WITH CALL_INTRINSIC_1 CONVERT_VALUE DELETE_ATTR DICT_MERGE DICT_UPDATE
        FORMAT_SIMPLE GET_AITER GET_AWAITABLE GET_ITER GET_YIELD_FROM_ITER LIST_APPEND LIST_EXTEND LIST_TO_TUPLE
        LOAD_ATTR LOAD_METHOD LOAD_SPECIAL POP_TOP RERAISE RETURN_VALUE SET_ADD SET_UPDATE STORE_DEREF STORE_FAST
        STORE_FAST_LOAD_FAST STORE_GLOBAL STORE_NAME TO_BOOL UNARY_INVERT UNARY_NEGATIVE UNARY_NOT UNARY_POSITIVE
        UNPACK_SEQUENCE YIELD_VALUE""",
    "2": """BINARY_OP BINARY_SUBSCR CALL_INTRINSIC_2 COMPARE_OP CONTAINS_OP DELETE_SUBSCR END_SEND
        FORMAT_WITH_SPEC IS_OP MAP_ADD SET_FUNCTION_ATTRIBUTE STORE_ATTR STORE_FAST_STORE_FAST""",
    "3": "BINARY_SLICE LOAD_SUPER_ATTR STORE_SUBSCR",
    "4": "STORE_SLICE",
    "n": "BUILD_LIST BUILD_SET BUILD_SLICE BUILD_STRING BUILD_TUPLE RAISE_VARARGS",
    "n+1": "BUILD_CONST_KEY_MAP",
    "n+3": "CALL_KW",
    "2n": "BUILD_MAP",
}
_POPS = {name: pops for pops, names in _POPS_TABLE.items() for name in names.split()}

JUMPS_ALWAYS = frozenset({"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"})
LEAVES = frozenset({"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT"})


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction. `pops` is -1 where it is not known; `target`: index of the step it may jump to, or -1."""

    name: str
    argument: int
    value: object  # as dis explains the argument
    offset: int
    pops: int
    pushes: int
    target: int
    first_line: int
    last_line: int


_OLDER_NAMES = {
    "LOAD_FAST_BORROW": "LOAD_FAST",
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": "LOAD_FAST_LOAD_FAST",
    "LOAD_SMALL_INT": "LOAD_CONST",
}
_DOES_NOTHING = frozenset({"CACHE", "NOT_TAKEN"})


def _name(each: dis.Instruction) -> str:
    if each.opname == "BINARY_OP" and each.argrepr == "[]":
        return "BINARY_SUBSCR"
    return _OLDER_NAMES.get(each.opname, each.opname)


def steps_of(code: CodeType) -> list[Step]:
    """The instructions of a code object, in order, without those that do nothing."""
    found: list[dis.Instruction] = []
    index_at: dict[int, int] = {}
    for each in dis.get_instructions(code):
        index_at[each.offset] = len(found)
        if each.opname not in _DOES_NOTHING:
            found.append(each)
    # A jump's target may be an EXTENDED_ARG before the instruction: it is a step too.
    steps = []
    for each in found:
        argument = each.arg or 0
        target = -1
        if each.opcode in _JUMPS:
            target = index_at.get(each.argval, -1)
        name = _name(each)
        pops, pushes = _effect(name, each.opcode, each.arg)
        positions = each.positions
        first = (positions.lineno if positions else None) or 0
        last = (positions.end_lineno if positions else None) or first
        steps.append(Step(name, argument, each.argval, each.offset, pops, pushes, target, first, last))
    return steps


_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)


def _effect(name: str, opcode: int, argument: int | None) -> tuple[int, int]:
    number = argument or 0
    if name == "CALL":  # 3.11 splits its effect with PRECALL
        return number + 2, 1
    if name == "CALL_FUNCTION_EX":
        return (4 if sys.version_info >= (3, 14) else 3 + (number & 1)), 1
    if name.startswith("POP_JUMP"):
        return 1, 0
    if name == "FORMAT_VALUE":
        return 1 + (number & 4 == 4), 1
    if name == "PRECALL":
        return 0, 0
    pops = _POPS.get(name)
    if pops is None:
        return -1, 0
    if pops == "n":
        taken = number
    elif pops == "2n":
        taken = 2 * number
    elif "n+" in pops:
        taken = number + int(pops[2:])
    else:
        taken = int(pops)
    return taken, dis.stack_effect(opcode, argument, jump=False) + taken
