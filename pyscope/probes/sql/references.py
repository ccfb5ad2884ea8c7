"""References to connections, of which a record is kept by their `id` while they live."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["Reference", "references"]


class Reference(weakref.ref[Any]):
    """To a connection; `identity` is its `id`."""

    __slots__ = ("identity",)
    identity: int


def references(records: dict[int, Any]) -> Callable[[Any], Reference]:
    """What makes them; with a connection its record, whose reference is `of`, goes out of `records`.

    One callback serves all: a closure for each is five objects more.
    """

    def gone(of: Reference) -> None:
        found = records.get(of.identity)
        if found is not None and found.of is of:
            del records[of.identity]

    def reference(connection: Any) -> Reference:
        of = Reference(connection, gone)
        of.identity = id(connection)
        return of

    return reference
