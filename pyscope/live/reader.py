"""The process that reads for a mounted dashboard, so that the service only passes messages on.

It is told over a socket, line by line, what to read and who has come; it answers with messages. It ends when the
service does, or closes the socket. See `pyscope.live.remote` for the other end.
"""

from __future__ import annotations

import _thread
import json
import os
import socket
import sys
import threading
import time
from typing import Any

from pyscope.live.feed import Feed
from pyscope.live.hub import Message
from pyscope.live.source import Kind, Located

__all__ = ["main"]

TICK = 0.04  # seconds: each look that finds something wakes the service
SHARE = 0.15  # of one core


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


class Line:
    """The socket's sending side; a full one makes the reader wait, and so look less often."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._guard = _thread.allocate_lock()

    def write(self, *lines: tuple[str, str]) -> None:
        """Lines, each a head and a body, for which the service wakes once. One that has gone ends the process."""
        with self._guard:
            try:
                self._connection.sendall("".join(f"{head} {body}\n" for head, body in lines).encode())
            except OSError:
                os._exit(0)


class Outlet:
    """A viewer of the feed that writes what it gets to the line: `head` says for whom."""

    def __init__(self, line: Line, head: str, *, welcomed: bool) -> None:
        self.welcomed = welcomed
        self.gone = False
        self._line = line
        self._head = head

    def put(self, messages: list[tuple[Message, str]]) -> None:
        """Writes messages."""
        lines = [(self._head, text) for _, text in messages]
        if self._head != "all":
            lines.append(("welcomed", self._head))
            self.gone = True
        self._line.write(*lines)


def main() -> None:
    """Reads for the service at the other end of the socket whose descriptor is the standard input's."""
    sys.setswitchinterval(0.001)  # what looks must not wait for what analyses
    connection = socket.socket(fileno=os.dup(0))
    line = Line(connection)
    source = ToldSource(f"process {os.getppid()}")
    feed = Feed(source, lambda described: {"type": "described", "source": described}, tick=TICK, share=SHARE)
    everyone: Outlet | None = None
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with connection.makefile("rb") as lines:
        for text in lines:
            told: dict[str, Any] = json.loads(text)
            if "located" in told:
                place = told["located"]
                source.located = None if place is None else Located(place["path"], place["ring"])
                feed.look_again()
            elif "welcome" in told:
                feed.hub.join(Outlet(line, str(told["welcome"]), welcomed=False))
                feed.start()
            elif "viewers" in told:
                if told["viewers"] and everyone is None:
                    everyone = Outlet(line, "all", welcomed=True)
                    feed.hub.join(everyone)
                    feed.start()
                elif not told["viewers"] and everyone is not None:
                    feed.hub.leave(everyone)
                    everyone = None
            elif "ask" in told:
                number = told["ask"]
                feed.start()

                def answered(done: Any, number: int = number) -> None:
                    status, answer = done.result()
                    line.write((f"answer {number} {status}", answer))

                feed.ask(told["what"], *told["arguments"]).add_done_callback(answered)
    os._exit(0)


def _end_with(service: int) -> None:
    """Ends when the service has: a child that it forked may hold the other end of the socket open."""
    while os.getppid() == service:
        time.sleep(2)
    os._exit(0)


if __name__ == "__main__":
    main()
