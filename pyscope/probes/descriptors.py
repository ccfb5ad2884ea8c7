"""Descriptors that probes keep open, in programs that may close whatever they find open, as daemons do.

The number is then another file's. That file is neither read nor written nor closed.
"""

from __future__ import annotations

import os
import stat

__all__ = ["Descriptor"]


class Descriptor:
    """A descriptor of PyScope's own. `number` is what the kernel calls it, as long as it is `held`."""

    __slots__ = ("_identity", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._identity = _identity(number)

    @property
    def held(self) -> bool:
        """Whether it is what it was."""
        try:
            return _identity(self.number) == self._identity
        except OSError:
            return False

    def close(self) -> None:
        """Closes it if it is held."""
        if self.held:
            os.close(self.number)


def _identity(number: int) -> tuple[int, int, int]:
    status = os.fstat(number)
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)
