"""A dashboard on a real server, and a browser's part in it: what is asked over HTTP, and what the WebSocket tells."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import uvicorn
from websockets.sync.client import ClientConnection, connect

TOKEN = "a token that is long enough to be one"
DEADLINE = 60.0


@contextlib.contextmanager
def served(app: Any, **options: Any) -> Iterator[int]:
    """Serves an ASGI application on a loopback port while the block runs. `options` are of `uvicorn.Config`."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    settings = {"log_level": "warning", "access_log": False, "timeout_graceful_shutdown": 1, **options}
    server = uvicorn.Server(uvicorn.Config(app, **settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def wait_until(condition: Callable[[], Any]) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "this did not come about"
        time.sleep(0.01)


class Page:
    """What a page has been told: the last message of each type, and what it gathers of them."""

    def __init__(self, port: int, mount: str = "", token: str = TOKEN) -> None:
        self.address = f"http://127.0.0.1:{port}{mount}"
        self.http = httpx.Client(
            base_url=self.address, headers={"Authorization": f"Bearer {token}"}, timeout=60
        )
        self._open = contextlib.ExitStack()
        self._open.enter_context(self.http)
        self.socket: ClientConnection = self._open.enter_context(
            connect(
                f"ws://127.0.0.1:{port}{mount}/ws",
                additional_headers={"Authorization": f"Bearer {token}"},
                max_size=None,
            )
        )
        self.last: dict[str, Any] = {}
        self.requests: dict[str, Any] = {}
        self.calls: dict[str, Any] = {}
        self.changes: list[Any] = []
        self.samples: list[Any] = []

    def hear(self, condition: Callable[[], Any]) -> None:
        """Takes messages until something is true."""
        end = time.monotonic() + DEADLINE
        while not condition():
            with contextlib.suppress(TimeoutError):
                self._take(json.loads(self.socket.recv(timeout=0.2)))
            assert time.monotonic() < end, f"not heard; last: {list(self.last)}, {self.last.get('status')}"

    @property
    def state(self) -> str:
        """That of the last status; empty before the first."""
        return str(self.last["status"]["state"]) if "status" in self.last else ""

    def hear_type(self, kind: str) -> Any:
        """Waits for a message of a type, unless there was one; returns the last."""
        self.hear(lambda: kind in self.last)
        return self.last[kind]

    def _take(self, message: dict[str, Any]) -> None:
        self.last[message["type"]] = message
        self.requests |= {row["id"]: row for row in message.get("requests", ())}
        self.calls |= {row["id"]: row for row in message.get("calls", ())}
        self.changes += message.get("changes", ())
        self.samples += message.get("samples", ())

    def control(self, name: str, csrf: str | None = None) -> httpx.Response:
        """Presses a button."""
        secret = self.hear_type("hello")["csrf"] if csrf is None else csrf
        return self.http.post(f"/api/{name}", headers={"X-PyScope-CSRF": secret})

    def close(self) -> None:
        """Leaves."""
        self._open.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
