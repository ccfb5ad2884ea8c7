"""The unit that the live reader hands on: one page of one thread, encoded, and what tells it from others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Chunk", "PageKey"]


class PageKey(NamedTuple):
    """Which page of a process: the thread's number and the page's in that thread."""

    thread: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A page's events from its first to the last that is known.

    `events`: how many they are. `complete`: whether nothing can be added to them any more.
    """

    key: PageKey
    os_tid: int
    name: str
    base_ticks: int
    context: int
    time_shift: int
    data: bytes
    events: int
    complete: bool
