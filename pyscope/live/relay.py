"""A viewer of a mounted dashboard: what the process that reads writes for it goes on to its browser as it is.

Merging for a slow browser is done where the messages are made (`pyscope.live.reader`): here are at most one piece of
what was read and the rest of a line; beyond that the socket fills up, which is how the other end knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from pyscope.live.lines import Lines

__all__ = ["Relay"]

_LONGEST = 16  # lines that wait; beyond that nothing more is read


class Relay(asyncio.Protocol):
    """One browser. `ask_for` is given the other end of a socket, on which the reader writes a message a line.

    `first`: what is told before the reader has come; `lost`: where it has ended, after which `ask_for` is given another
    socket; `seen` is given each line, and returns the message.
    """

    def __init__(
        self,
        ask_for: Callable[[socket.socket], None],
        first: Callable[[], list[str]],
        lost: Callable[[], str],
        seen: Callable[[bytes], str],
    ) -> None:
        self.gone = False
        self._ask_for = ask_for
        self._first = first
        self._lost = lost
        self._seen = seen
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._lines: list[bytes] = []
        self._arriving = Lines()
        self._ended = False
        self._waits: asyncio.Future[None] | None = None

    async def take(self) -> list[str]:
        """Waits for messages, and takes them out as JSON."""
        if self._transport is None:
            await self._connect()
            return self._first()
        if not self._lines and not self._ended:
            self._waits = self._loop.create_future()
            await self._waits
        lines, self._lines = self._lines, []
        if len(lines) > _LONGEST:
            self._transport.resume_reading()
        if not lines:  # it has ended
            self._transport = None
            return [self._lost()]
        return [self._seen(line) for line in lines]

    def close(self) -> None:
        """The browser has gone."""
        self.gone = True
        if self._transport is not None and self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # a child that was forked may hold it open
            self._transport.close()

    async def _connect(self) -> None:
        self._arriving, self._ended = Lines(), False
        own, other = socket.socketpair()
        try:
            own.setblocking(False)
            self._transport, _ = await self._loop.create_unix_connection(lambda: self, sock=own)
        except BaseException:
            own.close()
            other.close()
            raise
        self._socket = own
        self._ask_for(other)

    # of the socket

    def data_received(self, data: bytes) -> None:
        """More of what the reader writes."""
        lines = self._arriving.take(data)
        if lines:
            self._lines += lines
            if len(self._lines) > _LONGEST and self._transport is not None:
                self._transport.pause_reading()
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The reader has ended, or the browser has gone."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        waits, self._waits = self._waits, None
        if waits is not None and not waits.done():  # done: cancelled
            waits.set_result(None)
