"""ASGI: each HTTP request and WebSocket is a scope, with method, route, status and CPU time.

The probe watches Starlette, and with it FastAPI, applications that are running already included. Any other ASGI
application is wrapped by hand: `app = pyscope.probes.asgi.Middleware(app)`; wrapped twice, a request still
counts once.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from time import thread_time_ns
from types import ModuleType
from typing import Any, ClassVar, Self

from pyscope import emitter
from pyscope.probes.addresses import operation, template
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches
from pyscope.probes.scope import Scope

__all__ = ["ASGIProbe", "Middleware", "patch"]

ASGIScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[ASGIScope, Receive, Send], Awaitable[None]]

_MARK = "pyscope.scope"  # in the ASGI scope of a request that is being watched


class ASGIProbe(ClientProbe):
    """Watches the web frameworks that the program imports."""

    name = "asgi"
    extra = "taskflow"
    adapters: ClassVar = {"starlette.applications": "pyscope.probes.asgi"}


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches Starlette.__call__, which FastAPI's calls."""

    def make(original: App) -> App:
        @functools.wraps(original)
        async def __call__(self: Any, scope: ASGIScope, receive: Receive, send: Send) -> None:
            if patches.on and emitter.active():
                await _handle(functools.partial(original, self), scope, receive, send)
            else:
                await original(self, scope, receive, send)  # type: ignore[call-arg, arg-type]

        return __call__  # type: ignore[return-value]

    patches.replace(library.Starlette, "__call__", make)


class Middleware:
    """ASGI middleware that makes each request a scope. The application's exceptions pass through untouched."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Handles one request, WebSocket or lifespan."""
        if emitter.active():
            await _handle(self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)


_left_out: set[str] = set()


def leave_out(path: str) -> None:
    """From now on requests for `path`, and what is below it, are no scopes: PyScope's own pages."""
    _left_out.add(path)


def _is_left_out(scope: ASGIScope) -> bool:
    try:
        path, root = scope.get("path", ""), scope.get("root_path", "")
        if type(path) is not str or type(root) is not str:
            return False
        rest = path.removeprefix(root)
        return any(rest == left or rest.startswith(f"{left}/") for left in _left_out)
    except Exception:
        fault("asgi")
        return False


async def _handle(app: App, scope: ASGIScope, receive: Receive, send: Send) -> None:
    kind = scope["type"]
    if kind not in ("http", "websocket") or _MARK in scope:
        await app(scope, receive, send)
        return
    if _left_out and _is_left_out(scope):
        scope[_MARK] = 0  # nor what is mounted there
        await app(scope, receive, send)
        return
    request = Scope("request", _name(scope)).enter()
    root = scope.get("root_path", "")
    scope[_MARK] = request.id
    steps = None
    try:
        steps = _Steps(app(scope, receive, _watched(request, send)))
        await steps
    except BaseException as error:
        _leave(request, scope, root, steps, error)
        raise
    _leave(request, scope, root, steps, None)


def _leave(
    request: Scope, scope: ASGIScope, root: object, steps: _Steps | None, error: BaseException | None
) -> None:
    request.cpu_ns = 0 if steps is None else steps.cpu_ns
    try:
        request.route = _route(scope, root)
        if isinstance(error, Exception) and not request.status and scope["type"] == "http":
            request.status = 500  # what the server will answer
    except Exception:
        fault("asgi")
    request.leave(error)


def _name(scope: ASGIScope) -> str:
    try:
        if scope["type"] == "websocket":
            return f"WEBSOCKET {template(scope['path'])}"
        return operation(scope["method"], scope["path"])
    except Exception:
        fault("asgi")
        return "request"


def _route(scope: ASGIScope, root: object) -> str:
    """The route's template, with the prefix that it is mounted under; empty for a path without a route."""
    try:
        path = getattr(scope.get("route"), "path", "")
        if type(path) is not str or not path:
            return ""
        mounted = scope.get("root_path", "")
        if type(mounted) is str and type(root) is str and mounted.startswith(root):
            return template(mounted[len(root) :]).rstrip("/") + path
        return path
    except Exception:
        fault("asgi")
        return ""


def _watched(request: Scope, send: Send) -> Send:
    def watched(message: Any) -> Awaitable[None]:
        if type(message) is dict:
            what = message.get("type")
            if what == "http.response.start" or what == "websocket.http.response.start":
                status = message.get("status")
                request.status = int(status) if isinstance(status, int) else 0
            elif what == "websocket.accept":
                request.status = 101
        return send(message)

    return watched


class _Steps:
    """Awaits an application, and adds up the CPU time of the thread while it really runs."""

    __slots__ = ("_coroutine", "_send", "cpu_ns")

    def __init__(self, awaitable: Any) -> None:
        self._coroutine: Any = awaitable if isinstance(awaitable, Coroutine) else awaitable.__await__()
        self._send = self._coroutine.send
        self.cpu_ns = 0

    def __await__(self) -> Generator[Any, Any, None]:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """Runs until the next suspension, whose awaited object is returned."""
        began = thread_time_ns()
        try:
            return self._send(None)
        finally:
            self.cpu_ns += thread_time_ns() - began

    def send(self, value: Any) -> Any:
        """As `__next__`, with a value."""
        began = thread_time_ns()
        try:
            return self._send(value)
        finally:
            self.cpu_ns += thread_time_ns() - began

    def throw(self, *error: Any) -> Any:
        """As `send`, with an exception such as a cancellation."""
        began = thread_time_ns()
        try:
            return self._coroutine.throw(*error)
        finally:
            self.cpu_ns += thread_time_ns() - began

    def close(self) -> None:
        """Closes the application where it is suspended."""
        self._coroutine.close()
