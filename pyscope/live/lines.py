"""Whole lines of what arrives in pieces."""

from __future__ import annotations

__all__ = ["Lines"]


class Lines:
    """Cuts one stream into lines. What belongs to a line that has not ended is put together only once: an answer
    of several megabytes comes in dozens of pieces."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []

    def take(self, data: bytes) -> list[bytes]:
        """The lines that end in `data`, without their ends."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._begun, lines[0]])
            self._begun.clear()
        if rest:
            self._begun.append(rest)
        return lines
