"""A server that plays the live dashboard's part: the page's own files, and messages that a test chooses."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

import pyscope
from tests.browser.answers import Answers
from tests.browser.messages import Message, Service

STATIC = Path(pyscope.__file__).parent / "live" / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'"
)


class Stage:
    """One page's server. What it says to a new viewer, and what it answers, may be changed at any time.

    `refusing`: as if the page's token were no longer right. `busy`: it takes no viewers for the moment.
    """

    def __init__(self, service: Service | None = None) -> None:
        self.service = service or Service()
        self.answers = Answers(self.service)
        self.greeting: list[Message] = list(self.service.all())
        self.posted: list[tuple[str, str]] = []
        self.url = ""
        self.refusing = False
        self.busy = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._viewers: set[WebSocket] = set()

    def send(self, message: Message) -> None:
        """Say something to every viewer."""
        self._run(self._send_all(json.dumps(message)))

    def drop(self) -> None:
        """Close every viewer's connection, as a service that restarts does."""
        self._run(self._close_all())

    @property
    def viewers(self) -> int:
        """How many pages are connected."""
        return len(self._viewers)

    def _run(self, work: Any) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _send_all(self, text: str) -> None:
        for viewer in list(self._viewers):
            with suppress(RuntimeError, WebSocketDisconnect):
                await viewer.send_text(text)

    async def _close_all(self) -> None:
        for viewer in list(self._viewers):
            await viewer.close(1012)

    async def _socket(self, socket: WebSocket) -> None:
        if self.refusing or self.busy:
            await socket.close()
            return
        await socket.accept()
        for message in self.greeting:
            await socket.send_text(json.dumps(message))
        self._viewers.add(socket)
        try:
            while True:
                await socket.receive_text()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            self._viewers.discard(socket)

    async def _page(self, _: Request) -> Response:
        if self.refusing:
            return JSONResponse({"error": "there is no right token"}, 401)
        return FileResponse(STATIC / "index.html", headers={"Content-Security-Policy": POLICY})

    async def _api(self, request: Request) -> Response:
        name = request.path_params["name"]
        if request.method == "POST":
            self.posted.append((name, request.headers.get("x-pyscope-csrf", "")))
            if name == "dump":
                return JSONResponse({"error": "The disk is full."}, 409)
            return JSONResponse({"ok": True, "message": f"{name}: done"})
        if name.startswith("requests/"):
            number = name.removeprefix("requests/")
            if number == "gone":
                return JSONResponse({"error": "No request has this id."}, 404)
            return JSONResponse(self.answers.waterfall(number))
        return JSONResponse(
            {
                "flame": self.answers.flame,
                "functions": self.answers.functions,
                "queries": self.answers.queries,
            }[name]()
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        yield

    @contextmanager
    def open(self, port: int = 0) -> Iterator[Stage]:
        """Serve on a loopback port while the block runs."""
        app = Starlette(
            routes=[
                Route("/scope/", self._page),
                Mount("/scope/static", StaticFiles(directory=STATIC)),
                WebSocketRoute("/scope/ws", self._socket),
                Route("/scope/api/{name:path}", self._api, methods=["GET", "POST"]),
            ],
            lifespan=self._lifespan,
        )
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            self.port = listener.getsockname()[1]
            self.url = f"http://127.0.0.1:{self.port}/scope/"
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
            thread = threading.Thread(target=server.run, args=([listener],), name="stage")
            thread.start()
            try:
                deadline = time.monotonic() + 60
                while not server.started:
                    assert thread.is_alive()
                    assert time.monotonic() < deadline
                    time.sleep(0.005)
                yield self
            finally:
                server.should_exit = True
                thread.join()
