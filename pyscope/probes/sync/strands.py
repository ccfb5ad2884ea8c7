"""Which asyncio task runs here, by a number of its own, and in which pass of its event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from threading import get_ident, local
from typing import Any

from pyscope import emitter

__all__ = [
    "current_task",
    "forget",
    "loop_step",
    "next_step",
    "number_of",
    "reserved",
    "reset",
    "task_in_hand",
]

running_loop: Callable[[], Any] = asyncio._get_running_loop
_numbers: dict[int, int] = {}  # address of a living task: its number
_steps: dict[int, tuple[int, int]] = {}  # thread: passes of its event loop, and the loop's address
_NO_STEP = (0, 0)
_reserved = local()

if sys.version_info >= (3, 12):
    _current: Callable[[Any], Any] = asyncio.current_task
else:
    _current = asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]


def task_in_hand() -> int:
    """The number of the task that runs on this thread, 0 for none."""
    loop = running_loop()
    if loop is None:
        return 0
    task = _current(loop)
    if task is None:
        return 0
    return _numbers.get(id(task)) or number_of(task)


def number_of(task: Any) -> int:
    """A task's number."""
    number = _numbers.get(id(task))
    if number is None:
        number = getattr(_reserved, "number", 0) or emitter.next_id()
        _reserved.number = 0
        _numbers[id(task)] = number
    return number


class reserved:
    """While the block runs, the first new task of this thread gets `number`: it may run before it is known."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        self._before = getattr(_reserved, "number", 0)
        _reserved.number = self._number

    def __exit__(self, *_: object) -> None:
        _reserved.number = self._before


def forget(task: Any) -> None:
    """The task has ended; its address may be used again."""
    _numbers.pop(id(task), None)


def current_task() -> Any:
    """The task that runs on this thread, or None."""
    loop = running_loop()
    return None if loop is None else _current(loop)


def next_step(loop: object) -> bool:
    """The event loop of this thread begins another pass. Whether it is its first."""
    thread = get_ident()
    before, address = _steps.get(thread, _NO_STEP)
    _steps[thread] = before + 1, id(loop)
    return address != id(loop)


def loop_step() -> int:
    """Differs before and after a suspension of the task in hand."""
    return _steps.get(get_ident(), _NO_STEP)[0]


def reset() -> None:
    """Forgets all numbers: nobody watches any more."""
    _numbers.clear()
    _steps.clear()
