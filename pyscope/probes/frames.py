"""The frames in which threads stand: compiled with the native recorder, in Python where none is built."""

from __future__ import annotations

import gc
import sys
from types import FrameType
from typing import Any

from pyscope import backends

__all__ = ["current_frames"]


def _in_python() -> dict[int, FrameType]:
    collects = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if collects:
            gc.enable()


_compiled: Any = backends.native()


def current_frames() -> dict[int, FrameType]:
    """`sys._current_frames()`, in which nothing is collected meanwhile.

    Before 3.11.9 a collection there can stop the program for good: what it runs may wait for a lock that is held
    (python/cpython#106883).
    """
    found: dict[int, FrameType] = _in_python() if _compiled is None else _compiled.current_frames()
    return found
