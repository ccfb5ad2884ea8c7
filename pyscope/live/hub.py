"""Viewers and what waits to be sent to them. A slow browser gets fewer, merged messages, never a longer queue.

Messages come from the feed's thread; each viewer's own event loop takes them out. A message is made into JSON once for
all viewers; only what had to be merged for a slow one is made again.
"""

from __future__ import annotations

import _thread
import asyncio
import json
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Hub", "Message", "Unread", "Viewer", "Watcher", "encoded", "merged"]

Message = dict[str, Any]

_LONGEST = 12  # messages that wait as they are; beyond that they are merged by type
_UPSERTS = {"traces": ("requests", 300), "external": ("calls", 200)}
_APPENDS = {"metrics": ("samples", 120), "state": ("changes", 300)}
MOST_VIEWERS = 64


class Unread(dict[str, Any]):
    """A message of which only the JSON is known; it is parsed where it has to be merged with others."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def read(self) -> Message:
        """The message."""
        found: Message = json.loads(self._text)
        return found


def encoded(message: Message) -> str:
    """A message as JSON text."""
    return json.dumps(message, separators=(",", ":"))


class Viewer:
    """One browser. `view`: the name of what it shows, as it said; `welcomed`: whether it has got the whole state."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.view = ""
        self.welcomed = False
        self.gone = False
        self._loop = loop
        self._ready = asyncio.Event()
        self._guard = _thread.allocate_lock()
        self._waiting: list[tuple[Message, str | None]] = []
        self._called = False

    def put(self, messages: list[tuple[Message, str]]) -> None:
        """Adds messages with their JSON; called by any thread."""
        with self._guard:
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
    for waits, _ in waiting:
        message = waits.read() if isinstance(waits, Unread) else waits
        kind = message["type"]
        if kind == "hello":
            found.clear()  # all of the state follows it
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


class Watcher(Protocol):
    """Who gets messages: a viewer, or what stands for one."""

    welcomed: bool
    gone: bool

    def put(self, messages: list[tuple[Message, str]]) -> None:
        """Takes messages with their JSON."""


class Hub:
    """All viewers of one dashboard. `changed` is called when one has come or gone."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._guard = _thread.allocate_lock()
        self._viewers: list[Watcher] = []
        self._changed = changed

    def join(self, viewer: Watcher) -> bool:
        """Adds a viewer; False where there are too many."""
        with self._guard:
            self._viewers = [one for one in self._viewers if not one.gone]
            if len(self._viewers) >= MOST_VIEWERS:
                return False
            self._viewers.append(viewer)
        self._changed()
        return True

    def leave(self, viewer: Watcher) -> None:
        """Takes a viewer out."""
        viewer.gone = True
        with self._guard:
            if viewer in self._viewers:
                self._viewers.remove(viewer)
        self._changed()

    @property
    def viewers(self) -> list[Watcher]:
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
            viewer.put(messages)

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
