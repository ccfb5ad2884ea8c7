"""Where in the program's own code something happened."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyscope.rows import Location
from pyscope.selection import expand

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["call_site", "calling_stack", "made_at_run_time", "of_the_program"]

_NOWHERE = Location("", 0, "")
_GIVEN = Location("<string>", 1, "<module>")
_MOST_FRAMES = 32
_LIBRARY = re.compile(r"<frozen |.*/(?:lib(?:64)?/python3[^/]*|site-packages|dist-packages)/")


def call_site(stack: tuple[Location, ...]) -> Location:
    """The innermost place of a stack that stands in a file; line 0 if the stack is empty.

    Code that is made at run time counts only where there is no other: libraries make wrappers so. A program that was
    given with `python -c` has no other; that its whole runs says nothing, and in a process of multiprocessing it is
    not the user's.
    """
    for place in stack:
        if not made_at_run_time(place.file):
            return place
    for place in stack:
        if place.file.startswith("<") and not place.file.startswith("<sqlalchemy") and place != _GIVEN:
            return place
    return _NOWHERE


def made_at_run_time(file: str) -> bool:
    """Whether code of this "file" was compiled by the program itself: `<string>`, `<sqlalchemy generated …>`, or any
    other word that is no file's name, as Sanic's `handle_request`."""
    return file.startswith("<") or ("/" not in file and not file.endswith(".py"))


def calling_stack(trace: Trace, row: int) -> tuple[Location, ...]:
    """A recorded call and its callers, innermost first, each by where its function begins."""
    stack: list[Location] = []
    parent, function = trace.calls["parent"], trace.calls["function"]
    while row >= 0 and len(stack) < _MOST_FRAMES:
        found = trace.functions[int(function[row])]
        stack.append(Location(found.file, found.line, found.qualname))
        row = int(parent[row])
    return tuple(stack)


def of_the_program(trace: Trace) -> NDArray[np.bool_]:
    """By function whether it is the user's own: no library's, or of a module that a glob other than `*` names."""
    globs = {glob for process in trace.processes for glob in process.modules or ()}
    named = expand(sorted(globs - {"*"}))
    return np.array(
        [
            not _LIBRARY.match(function.file) or any(fnmatchcase(function.module, glob) for glob in named)
            for function in trace.functions
        ],
        bool,
    )
