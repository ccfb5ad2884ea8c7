"""The dashboard as an ASGI application: its pages, its WebSocket, and what pages ask for."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

import pyscope
from pyscope.errors import PyScopeError
from pyscope.live.controls import Controls
from pyscope.live.feed import Feed
from pyscope.live.hub import Message, Viewer
from pyscope.live.questions import Refused
from pyscope.live.relay import Relay
from pyscope.live.remote import RemoteFeed

__all__ = ["build"]

logger = logging.getLogger("pyscope.live")

PROTOCOL_VERSION = 1
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".map": "application/json",
    ".md": "text/plain; charset=utf-8",
}
_MOST_FUNCTIONS = 2000
_LONGEST_WORD = 4096
_GONE = (WebSocketDisconnect, RuntimeError)  # RuntimeError: the connection has been closed meanwhile


def build(feed: Feed | RemoteFeed, controls: Controls) -> FastAPI:
    """The application, still without its guard."""
    app = FastAPI(title="PyScope", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(Refused, _refused)
    _pages(app)
    _views(app, feed)
    _controls(app, feed, controls)
    _socket(app, feed)
    return app


def hello(described: dict[str, Any], controls: Controls, csrf: str) -> Message:
    """The first message."""
    return {
        "type": "hello",
        "version": PROTOCOL_VERSION,
        "pyscope": pyscope.__version__,
        "source": described,
        "controls": controls.offered(described),
        "csrf": csrf,
    }


async def _refused(_: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, Refused) else 500
    return JSONResponse({"error": str(error)}, status)


# --- pages ---------------------------------------------------------------------------------------


def _pages(app: FastAPI) -> None:
    folder = files("pyscope.live") / "static"

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _file(folder, "index.html")

    @app.get("/static/{name:path}", include_in_schema=False)
    async def static(name: str) -> Response:
        return _file(folder, name)


def _file(folder: Any, name: str) -> Response:
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        raise Refused(404, "there is no such page")
    found = folder.joinpath(*parts)
    suffix = "." + name.rpartition(".")[2]
    if suffix not in _TYPES or not found.is_file():
        raise Refused(404, "there is no such page")
    return FileResponse(str(found), media_type=_TYPES[suffix])


# --- views ---------------------------------------------------------------------------------------


def _views(app: FastAPI, feed: Feed | RemoteFeed) -> None:
    async def answered(what: str, *arguments: Any) -> Response:
        status, text = await asyncio.wrap_future(feed.ask(what, *arguments))
        return Response(text, status, media_type="application/json")

    @app.get("/api/requests/{identity}")
    async def request(identity: str) -> Response:
        if not identity.isdecimal() or len(identity) > 20:
            raise Refused(404, "there is no such request")
        return await answered("request", identity)

    @app.get("/api/flame")
    async def flame_graph(from_ms: str = "", to_ms: str = "") -> Response:
        return await answered("flame", _time(from_ms, "from_ms"), _time(to_ms, "to_ms"))

    @app.get("/api/functions")
    async def function_table(order: str = "self", filter: str = "", limit: str = "200") -> Response:
        if order not in ("self", "total", "calls"):
            raise Refused(400, "order is self, total or calls")
        if not limit.isdecimal() or len(limit) > 6:
            raise Refused(400, "limit is a number")
        most = min(int(limit), _MOST_FUNCTIONS)
        word = filter[:_LONGEST_WORD]
        return await answered("functions", order, word, most)

    @app.get("/api/queries")
    async def query_table() -> Response:
        return await answered("queries")


def _time(given: str, name: str) -> float | None:
    if not given:
        return None
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e15:
        raise Refused(400, f"{name} is a time in milliseconds of Unix time")
    return value


# --- controls ------------------------------------------------------------------------------------


def _controls(app: FastAPI, feed: Feed | RemoteFeed, controls: Controls) -> None:
    async def done(work: Callable[[], str]) -> Response:
        try:
            message = await asyncio.wrap_future(feed.submit(work))
        except PyScopeError as error:
            raise Refused(409, str(error)) from None
        feed.look_again()
        return JSONResponse({"ok": True, "message": message})

    @app.post("/api/start")
    async def start() -> Response:
        return await done(controls.start)

    @app.post("/api/stop")
    async def stop() -> Response:
        return await done(controls.stop)

    @app.post("/api/dump")
    async def dump() -> Response:
        return await done(controls.dump)

    @app.get("/api/download")
    async def download() -> Response:
        try:
            name, pieces = await asyncio.wrap_future(feed.submit(lambda: controls.download(feed.located())))
        except PyScopeError as error:
            raise Refused(409, str(error)) from None
        quoted = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
        headers = {"Content-Disposition": f'attachment; filename="{quoted}"'}
        return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


# --- the WebSocket -------------------------------------------------------------------------------


def _socket(app: FastAPI, feed: Feed | RemoteFeed) -> None:
    @app.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        with feed.viewer() as viewer:
            if viewer is None:
                await websocket.close(1013, "too many viewers")
            else:
                await _serve(websocket, viewer)


async def _serve(websocket: WebSocket, viewer: Viewer | Relay) -> None:
    tasks = [asyncio.create_task(_send(websocket, viewer)), asyncio.create_task(_receive(websocket))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                logger.warning("the live dashboard has lost a viewer", exc_info=outcome)


async def _send(websocket: WebSocket, viewer: Viewer | Relay) -> None:
    while not viewer.gone:
        texts = await viewer.take()
        try:
            for text in texts:
                await websocket.send_text(text)
        except _GONE:
            return


async def _receive(websocket: WebSocket) -> None:
    """Until the browser has gone: what it sends is ignored."""
    try:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
    except _GONE:
        pass
