"""Descriptors of standard streams that are closed: the next file that is opened gets one of them."""

from __future__ import annotations

import os

__all__ = ["closed_streams"]


def closed_streams() -> list[int]:
    """Opens those of 0, 1 and 2 that are closed, and returns them: whoever asks closes them again.

    A recording that is opened meanwhile is none of them. The program, and libraries, would print into it.
    """
    held: list[int] = []
    try:
        while (fd := os.open(os.devnull, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))) <= 2:
            held.append(fd)
        os.close(fd)
    except OSError:
        pass
    return held
