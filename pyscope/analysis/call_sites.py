"""Where in the program's own code something happened."""

from __future__ import annotations

from pyscope.rows import Location

__all__ = ["call_site"]

_NOWHERE = Location("", 0, "")


def call_site(stack: tuple[Location, ...]) -> Location:
    """The innermost place of a stack that stands in a file; line 0 if the stack is empty.

    Code that is made at run time, whose "file" is `<string>` or `<sqlalchemy generated …>`, counts only where there is
    no other: libraries make wrappers so. A program that was given with `python -c` has no other.
    """
    for prefix in ("<", "<sqlalchemy"):
        for place in stack:
            if not place.file.startswith(prefix):
                return place
    return _NOWHERE
