"""The process that reads for a mounted dashboard, so that the service only passes messages on.

It is told over a socket, line by line, what to read and what is asked; with the line for a viewer comes a socket, on
which it writes what that viewer is to see. It ends when the service does, or closes the first socket. See
`pyscope.live.remote` for the other end.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
import time
from typing import Any

from pyscope.live.feed import Feed
from pyscope.live.hub import Viewer
from pyscope.live.lines import Lines
from pyscope.live.source import Kind, Located

__all__ = ["main"]

TICK = 0.04  # seconds: each look that finds something wakes the service
SHARE = 0.15  # of one core
_PIECE = 1 << 16
_MOST_ENDS = 64  # at once


class ToldSource:
    """What the service said to read."""

    kind: Kind = "self"

    def __init__(self, name: str) -> None:
        self.name = name
        self.located: Located | None = None

    def locate(self) -> Located | None:
        """The recording in progress, or None."""
        return self.located

    def waiting(self) -> str:
        """Why there is nothing yet."""
        return "nothing is being recorded in this process"


class Reader:
    """Serves one service: `connection` is what it tells over."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._source = ToldSource(f"process {os.getppid()}")
        self._feed = Feed(
            self._source, lambda described: {"type": "described", "source": described}, tick=TICK, share=SHARE
        )
        self._viewers: set[asyncio.Task[None]] = set()
        self._arriving = Lines()
        self._ends: list[int] = []

    async def serve(self) -> None:
        """Until the service closes the socket."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._loop.add_reader(self._connection, self._hear)
        await self._ended

    def _hear(self) -> None:
        try:
            data, ends, _, _ = socket.recv_fds(self._connection, _PIECE, _MOST_ENDS)
        except OSError:  # it has gone without reading an answer
            data, ends = b"", []
        if not data:
            self._loop.remove_reader(self._connection)
            self._ended.set_result(None)
            return
        self._ends += ends
        for line in self._arriving.take(data):
            self._told(json.loads(line))

    def _told(self, what: dict[str, Any]) -> None:
        if "located" in what:
            place = what["located"]
            self._source.located = None if place is None else Located(place["path"], place["ring"])
            self._feed.look_again()
            return
        if "viewer" in what:
            task = self._loop.create_task(self._show(socket.socket(fileno=self._ends.pop(0))))
            self._viewers.add(task)
            task.add_done_callback(self._viewers.discard)
            self._feed.start()
        elif "ask" in what:
            number = what["ask"]

            def answered(done: Any) -> None:
                status, answer = done.result()
                self._answer(f"{number} {status} {answer}\n".encode())

            self._feed.ask(what["what"], *what["arguments"]).add_done_callback(answered)

    def _answer(self, line: bytes) -> None:
        """Called by the desk's thread, which answers one question at a time."""
        try:
            self._connection.sendall(line)
        except OSError:  # the service has gone
            os._exit(0)

    async def _show(self, end: socket.socket) -> None:
        """Writes what a viewer is to see, until the service closes its socket."""
        stream, writer = await asyncio.open_unix_connection(sock=end)
        viewer = Viewer(self._loop)
        if not self._feed.hub.join(
            viewer
        ):  # those who left a moment ago are still there: the service asks again
            writer.close()
            return
        writing = self._loop.create_task(_write(viewer, writer))
        try:
            while await stream.read(1 << 10):
                pass
        except OSError:
            pass
        finally:
            self._feed.hub.leave(viewer)
            writing.cancel()
            writer.close()


async def _write(viewer: Viewer, writer: asyncio.StreamWriter) -> None:
    """A look's messages in one piece. Where the service does not read, they wait in the viewer, and are merged."""
    while True:
        writer.write("".join(f"{text}\n" for text in await viewer.take()).encode())
        try:
            await writer.drain()
        except OSError:
            return


def main() -> None:
    """Reads for the service at the other end of the socket whose descriptor is the standard input's."""
    sys.setswitchinterval(0.001)  # what looks must not wait for what analyses
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    asyncio.run(Reader(socket.socket(fileno=os.dup(0))).serve())
    os._exit(0)


def _end_with(service: int) -> None:
    """Ends when the service has: a child that it forked may hold the other end of the socket open."""
    while os.getppid() == service:
        time.sleep(2)
    os._exit(0)
