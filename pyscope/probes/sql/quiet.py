"""Changes SQLAlchemy's lists of listeners while no thread goes through one of them.

A list of listeners is a deque, and a thread that is going through it when it changes gets a RuntimeError, in the middle
of the program's own statement.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType

from pyscope.probes.frames import current_frames

__all__ = ["change", "inside", "let_pass"]

_MOST_WAIT_S = 2.0
_PAUSE_S = 0.002
_MODULES = (
    "sqlalchemy.event.attr",
    "sqlalchemy.engine.base",
    "sqlalchemy.orm.loading",
    "sqlalchemy.orm.state",
)


_let_pass: set[CodeType] = set()


def let_pass(code: CodeType) -> None:
    """What has this code is called by SQLAlchemy in place of a method of its own, and is no listener."""
    _let_pass.add(code)


def change(action: Callable[[], None]) -> bool:
    """Runs `action` once no other thread is between two listeners. False if there was no such moment in 2 seconds.

    From the look to the change it keeps the interpreter's lock: it begins right after it has got that anew, and
    stretches the interval at which threads take it from each other.
    """
    end = time.monotonic() + _MOST_WAIT_S
    while True:
        time.sleep(0)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(_MOST_WAIT_S)
        try:
            if not _dispatching():
                action()
                return True
        finally:
            sys.setswitchinterval(interval)
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE_S)


def inside() -> bool:
    """Whether the calling thread itself has been called by a listener."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_library(frame):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") in _MODULES


def _dispatching() -> bool:
    own = threading.get_ident()
    return any(_is_dispatching(frame) for ident, frame in current_frames().items() if ident != own)


def _is_dispatching(frame: FrameType | None) -> bool:
    """Whether a frame of SQLAlchemy that calls listeners is innermost, or has called something outside SQLAlchemy."""
    inner = None
    while frame is not None:
        if frame.f_globals.get("__name__") in _MODULES and (
            inner is None or not (_is_library(inner) or inner.f_code in _let_pass)
        ):
            return True
        inner = frame
        frame = frame.f_back
    return False


def _is_library(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.partition(".")[0] == "sqlalchemy"
