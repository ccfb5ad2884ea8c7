"""Where warnings are given: at the program's own line."""

from __future__ import annotations

import os
import sys
import warnings
from types import FrameType

from pyscope.errors import PyScopeWarning

__all__ = ["warn"]

_OURS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")


def warn(message: str) -> None:
    """Gives a PyScopeWarning at the line of the program that has called PyScope; at none where none has."""
    level = 2
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
        level += 1
    warnings.warn(message, PyScopeWarning, stacklevel=level)
