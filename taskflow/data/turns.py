"""Whose turn it is to write: one holder at a time, first come first served, threads and coroutines alike."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from threading import Lock


class Turns:
    """A fair lock that a thread takes with `with turns.in_thread()` and a coroutine with `async with turns.awaited()`.

    It is not reentrant, and may be released by another thread than the one that took it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken = False
        self._waiting: deque[Future[None]] = deque()

    @contextmanager
    def in_thread(self) -> Iterator[None]:
        """Hold the turn while the block runs; the thread waits for it."""
        if (place := self._take_or_queue()) is not None:
            try:
                place.result()
            except BaseException:
                self._abandon(place)
                raise
        try:
            yield
        finally:
            self._hand_over()

    @asynccontextmanager
    async def awaited(self) -> AsyncIterator[None]:
        """Hold the turn while the block runs; the coroutine waits for it, the event loop does not."""
        if (place := self._take_or_queue()) is not None:
            try:
                await asyncio.wrap_future(place)
            except BaseException:
                self._abandon(place)
                raise
        try:
            yield
        finally:
            self._hand_over()

    def _take_or_queue(self) -> Future[None] | None:
        """None when the turn was free and is now the caller's, else the caller's place in the line."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return None
            place: Future[None] = Future()
            self._waiting.append(place)
            return place

    def _abandon(self, place: Future[None]) -> None:
        """Leave the line; whoever was handed the turn in the meantime passes it on."""
        if not place.cancel() and not place.cancelled():
            self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            while self._waiting:
                place = self._waiting.popleft()
                # From here on its owner cannot cancel it any more, and must hand over what it got.
                if place.set_running_or_notify_cancel():
                    break
            else:
                self._taken = False
                return
        place.set_result(None)
