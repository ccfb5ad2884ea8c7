"""The ASGI layer around the dashboard that lets in who may come in; the rules are those of `pyscope.live.security`."""

from __future__ import annotations

import html
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import quote

from pyscope.live.security import HEADERS, Access, token_of_query

__all__ = ["ASGIApp", "Closed", "Guard"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

LEFT_OUT = "pyscope.scope"  # by which the ASGI probe knows what it need not make a scope of
_SAFE = ("GET", "HEAD")


class Guard:
    """Judges each request and each WebSocket before the application sees it."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or one WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        answer = self._judge(scope, headers)
        if answer is not None:
            await _answer(scope, receive, send, *answer)
        else:
            scope.setdefault(LEFT_OUT, 0)
            await self._app(scope, receive, send if scope["type"] == "websocket" else _with_headers(send))

    def _judge(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, dict[str, str]] | None:
        """How a request is refused or redirected; None where it may pass."""
        access = self._access
        if not access.host_allowed(headers.get("host", "")):
            return 403, "this host name is not allowed: name it in allowed_hosts", {}
        socket = scope["type"] == "websocket"
        method = "GET" if socket else scope["method"]
        token, rest = token_of_query(scope.get("query_string", b"").decode("latin-1"))
        if token is not None:
            scope["query_string"] = rest.encode(
                "latin-1"
            )  # what the server writes into its log is read from there
        if token is not None and not socket and method in _SAFE:
            if not access.right_token(token):
                return 401, "the token is wrong", {}
            mount = scope.get("root_path", "") or "/"
            path = scope["path"]
            root = mount.rstrip("/")
            if not f"{path}/".startswith(f"{root}/"):  # from Starlette before 0.33: below its mount
                path = root + path
            here = _local(path) + (f"?{rest}" if rest else "")
            cookie = access.cookie_header(mount, secure=scope.get("scheme") == "https")
            return 303, "", {"Location": here, "Set-Cookie": cookie}
        bearer = access.bearer(headers)
        if not bearer and not access.has_cookie(headers):
            return 401, "open the address with ?token=… that was printed at the start", {}
        if not socket and method in _SAFE:
            return None
        if ("origin" in headers or not bearer) and not access.same_origin(headers):
            return 403, "this comes from another origin", {}
        if socket:
            return None
        if access.read_only:
            return 403, "this dashboard is read-only", {}
        if not access.right_csrf(headers):
            return 403, "the X-PyScope-CSRF header is missing or wrong", {}
        return None


class Closed:
    """Stands where a dashboard has no token: nothing is there."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 404."""
        if scope["type"] in ("http", "websocket"):
            await _answer(scope, receive, send, 404, "not found", {})


def _local(path: str) -> str:
    """A path as it may stand in a header, and that cannot be taken for another host's address."""
    return "/" + quote(path.lstrip("/\\"), safe="/:@!$&'()*+,;=~")


def _headers(scope: Scope) -> dict[str, str]:
    """The headers by name; of one that is repeated both values, which no rule accepts."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        joiner = "; " if key == "cookie" else ", "
        found[key] = f"{found[key]}{joiner}{text}" if key in found else text
    return found


def _with_headers(send: Send) -> Send:
    extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _ in extra}
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]
            message = {**message, "headers": [*kept, *extra]}
        await send(message)

    return sent


async def _answer(
    scope: Scope, receive: Receive, send: Send, status: int, error: str, headers: dict[str, str]
) -> None:
    if scope["type"] == "websocket":
        await receive()  # the connect; closed before it is accepted, it is answered with 403
        if "websocket.http.response" in scope.get("extensions", {}):
            await send({"type": "websocket.http.response.start", "status": status, "headers": []})
            await send({"type": "websocket.http.response.body", "body": error.encode()})
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": error[:100]})
        return
    kind, body = "application/json", json.dumps({"error": error}).encode()
    if b"text/html" in dict(scope["headers"]).get(b"accept", b""):
        kind = "text/html; charset=utf-8"
        body = f"<!doctype html><title>PyScope</title><h1>{status}</h1><p>{html.escape(error)}</p>".encode()
    lines = {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body)), **headers}
    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in lines.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
