"""Values ready for JSON: texts that are bounded and valid, times in milliseconds, places in the code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from pyscope.rows import Location

__all__ = ["NAME", "STATEMENT", "TEXT", "identity", "ms", "place", "places", "text"]

NAME = 300
TEXT = 1000
STATEMENT = 4000
"""How many characters of a name, of a text for people and of a statement are kept."""

_DEEPEST = 30


def text(value: object, most: int = TEXT) -> str:
    """A text without what JSON or a browser could not carry: lone surrogates and NUL become a mark, the rest is cut."""
    found = value if isinstance(value, str) else str(value)
    if len(found) > most:
        found = found[: most - 1] + "…"
    if found.isascii():
        return found.replace("\0", "\ufffd") if "\0" in found else found
    return found.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def ms(ns: int | float) -> float:
    """Nanoseconds as milliseconds, to the tenth of a microsecond: no more is known."""
    return round(float(ns) / 1e6, 4)


def place(location: Location | None) -> dict[str, Any] | None:
    """A place in the code; None where it is not known."""
    if location is None or not (location.line or location.file):
        return None
    return {
        "file": text(location.file, NAME),
        "line": int(location.line),
        "function": text(location.function, NAME),
    }


def places(stack: Iterable[Location]) -> list[dict[str, Any]]:
    """The innermost places of a stack."""
    found = []
    for location in stack:
        shown = place(location)
        if shown is not None:
            found.append(shown)
        if len(found) == _DEEPEST:
            break
    return found


def identity(*parts: object) -> str:
    """A short id, the same for the same parts whenever and wherever it is made."""
    data = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=8).hexdigest()
