"""Whether the standard library itself calls, or PyScope: what those do with their own locks and queues is not told."""

from __future__ import annotations

import os
import sys
import sysconfig
from types import FrameType

from pyscope.probes.clients import fault

__all__ = ["caller", "in_standard_library", "is_standard"]

_paths = sysconfig.get_paths()
_folders = tuple(
    {
        os.path.join(spelling, "")
        for name in ("stdlib", "platstdlib")
        for spelling in (_paths[name], os.path.realpath(_paths[name]), os.path.dirname(os.__file__))
    }
)
_own = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "")
_packages = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_known: dict[str, bool] = {}


def in_standard_library(frame: FrameType) -> bool:
    """Whether a frame's code belongs to the standard library, or is PyScope's."""
    file = frame.f_code.co_filename
    found = _known.get(file)
    if found is None:
        try:
            found = is_standard(file) or file.startswith(_own)
            if len(_known) < 10_000:
                _known[file] = found
        except Exception:
            fault("sync")
            return True
    return found


def is_standard(file: str) -> bool:
    """Whether a file belongs to the standard library."""
    return file.startswith("<frozen") or (
        file.startswith(_folders) and not any(part in file for part in _packages)
    )


def caller(depth: int) -> FrameType:
    """The frame `depth` levels above the caller."""
    return sys._getframe(depth + 1)
