"""Methods that take a step of a transaction, replaced by ones that tell of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["before", "before_commit", "compiled"]


def before(
    tell: Callable[..., None], fault: Callable[[], None], original: Callable[..., Any]
) -> Callable[..., Any]:
    """A method of a connection, told of before it does its work. What goes wrong in `tell` calls `fault`."""

    @functools.wraps(original)
    def method(connection: Any, *arguments: Any) -> Any:
        try:
            tell(connection, *arguments)
        except Exception:
            fault()
        return original(connection, *arguments)

    return method


def before_commit(
    tell: Callable[..., None],
    refused: Callable[[Any], None],
    fault: Callable[[], None],
    original: Callable[..., Any],
) -> Callable[..., Any]:
    """The same for one that may be refused."""

    @functools.wraps(original)
    def commit(connection: Any, *arguments: Any) -> Any:
        try:
            return original(connection, *arguments)
        except BaseException:
            try:
                refused(connection)
            except Exception:
                fault()
            raise

    return before(tell, fault, commit)


def compiled(
    watch: Callable[..., Any], in_python: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[..., Any]:
    """What makes of a method one that compiled code watches; where it cannot, it calls what `in_python` makes."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(original)(watch(original, in_python(original)))

    return make
