"""What is known of connections, each by its `id` while it lives."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

__all__ = ["Records"]

_FEW = 64


class _Record(Protocol):
    of: Any  # a weak reference to the connection


_R = TypeVar("_R", bound=_Record)


class Records(dict[int, _R]):
    """The records of connections by their `id`. One whose `of` refers to another connection, or none, is of one that is
    gone, whose place was taken: callers look. Those go with the next that is added, once there are `most`; a callback
    of each reference would be called for each connection."""

    most = _FEW

    def add(self, connection: Any, record: _R) -> _R:
        """Keeps the record of a connection; returns it."""
        if len(self) >= self.most:
            for key in [key for key, other in list(self.items()) if other.of() is None]:
                gone = self.pop(key, None)
                if gone is not None and gone.of() is not None:
                    self[key] = gone  # another thread had just put it there
            self.most = max(_FEW, 2 * len(self))
        self[id(connection)] = record
        return record
