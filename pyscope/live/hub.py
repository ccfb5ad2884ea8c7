"""Viewers and what waits to be sent to them. A slow browser gets fewer, merged messages, never a longer queue.

Messages come from the feed's thread; each viewer's own event loop takes them out. A message is made into JSON once for
all viewers; only what had to be merged for a slow one is made again.
"""

from __future__ import annotations

import _thread
import asyncio
import json
from collections.abc import Callable
from typing import Any

__all__ = ["Hub", "Message", "Viewer", "encoded", "merged"]

Message = dict[str, Any]

_LONGEST = 12  # messages that wait as they are; beyond that they are merged by type
# As many as a page keeps: a slow one has fewer messages, and the same lists.
_UPSERTS = {"traces": ("requests", 2000), "external": ("calls", 500)}
_APPENDS = {"metrics": ("samples", 600), "state": ("changes", 2000)}
MOST_VIEWERS = 64


def encoded(message: Message) -> str:
    """A message as JSON text."""
    return json.dumps(message, separators=(",", ":"))


class Viewer:
    """One browser, whose event loop is `loop`. `welcomed`: whether it has got the whole state."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.welcomed = False
        self.gone = False
        self._loop = loop
        self._ready = asyncio.Event()
        self._guard = _thread.allocate_lock()
        self._waiting: list[tuple[Message, str | None]] = []
        self._called = False

    def put(self, messages: list[tuple[Message, str]], *, whole: bool = False) -> None:
        """Adds messages with their JSON; called by any thread. `whole`: they are all of the state, and what waits is
        of before."""
        with self._guard:
            if whole:
                self._waiting.clear()
            self._waiting += messages
            if len(self._waiting) > _LONGEST:
                self._waiting = [(message, None) for message in merged(self._waiting)]
            if self._called:
                return  # the loop has been told, and has not come to it yet
            self._called = True
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:  # the loop is closed: its server has ended
            self.gone = True

    async def take(self) -> list[str]:
        """Waits for messages, and takes them out as JSON."""
        await self._ready.wait()
        self._ready.clear()
        with self._guard:
            waiting, self._waiting = self._waiting, []
            self._called = False
        return [encoded(message) if text is None else text for message, text in waiting]


def merged(waiting: list[tuple[Message, Any]]) -> list[Message]:
    """One message of each type, in the order in which the types came first; bounded."""
    found: dict[str, Message] = {}
    for message, _ in waiting:
        kind = message["type"]
        before = found.get(kind)
        if before is None:
            found[kind] = message
        elif kind in _UPSERTS:
            field, most = _UPSERTS[kind]
            rows = {row["id"]: row for row in before[field]}
            for row in message[field]:
                rows.pop(row["id"], None)  # to the end: the latest are kept
                rows[row["id"]] = row
            found[kind] = {**message, field: list(rows.values())[-most:]}
        elif kind in _APPENDS:
            field, most = _APPENDS[kind]
            found[kind] = {**message, field: [*before[field], *message[field]][-most:]}
        else:
            found[kind] = message
    return list(found.values())


class Hub:
    """All viewers of one dashboard. `changed` is called when one has come or gone."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._guard = _thread.allocate_lock()
        self._viewers: list[Viewer] = []
        self._changed = changed

    def join(self, viewer: Viewer) -> bool:
        """Adds a viewer; False where there are too many."""
        with self._guard:
            self._viewers = [one for one in self._viewers if not one.gone]
            if len(self._viewers) >= MOST_VIEWERS:
                return False
            self._viewers.append(viewer)
        self._changed()
        return True

    def leave(self, viewer: Viewer) -> None:
        """Takes a viewer out."""
        viewer.gone = True
        with self._guard:
            if viewer in self._viewers:
                self._viewers.remove(viewer)
        self._changed()

    @property
    def viewers(self) -> list[Viewer]:
        """Those that are there."""
        with self._guard:
            return [viewer for viewer in self._viewers if not viewer.gone]

    def welcome(self, state: Callable[[], list[Message]]) -> None:
        """Sends the whole state to those that have not got it."""
        new = [viewer for viewer in self.viewers if not viewer.welcomed]
        if not new:
            return
        messages = [(message, encoded(message)) for message in state()]
        for viewer in new:
            viewer.welcomed = True
            viewer.put(messages, whole=True)

    def publish(self, messages: list[Message]) -> None:
        """Sends messages to all that have the state that these change."""
        viewers = [viewer for viewer in self.viewers if viewer.welcomed]
        if not viewers or not messages:
            return
        pairs = [(message, encoded(message)) for message in messages]
        for viewer in viewers:
            viewer.put(pairs)

    def start_over(self) -> None:
        """What is shown is another recording now: all get the whole state again."""
        for viewer in self.viewers:
            viewer.welcomed = False
