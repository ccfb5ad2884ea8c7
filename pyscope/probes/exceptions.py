"""Exceptions in words, without running their code."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from pyscope.probes.classes import type_name

__all__ = ["described", "is_cancellation"]

MOST_TEXT: Final = 300

_arguments_of = BaseException.__dict__["args"].__get__


def described(error: BaseException | None) -> str:
    """`ValueError: text`; the text only where it is a plain str or number, since `__str__` is the program's code."""
    if error is None:
        return ""
    name = type_name(type(error))
    arguments = _arguments_of(error)
    if type(arguments) is not tuple or len(arguments) == 0:
        return name
    words = [_short(argument) for argument in arguments if _is_plain(type(argument))]
    return f"{name}: {', '.join(words)}"[:MOST_TEXT] if len(words) == len(arguments) else name


def is_cancellation(kind: type[BaseException]) -> bool:
    """Whether what it ends has not failed, but is not wanted any more: asyncio's, trio's, and a closed generator's."""
    trio = sys.modules.get("trio")
    return issubclass(kind, (asyncio.CancelledError, GeneratorExit)) or (
        kind is getattr(trio, "Cancelled", None)
    )


def _is_plain(kind: type) -> bool:
    return kind is str or kind is int or kind is float


def _short(argument: str | int | float) -> str:
    if type(argument) is int and argument.bit_length() > 600:  # long ints may refuse to become decimal
        return hex(argument)[:MOST_TEXT]
    return str(argument)[:MOST_TEXT]
