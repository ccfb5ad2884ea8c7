"""ASGI: each HTTP request and WebSocket is a scope, with method, route, status and CPU time.

The probe watches Starlette, and with it FastAPI, Django, Litestar and Quart, applications that are running already
included; and any application that uvicorn begins to serve. Another server's is wrapped by hand:
`app = pyscope.probes.asgi.Middleware(app)`; wrapped twice, a request still counts once.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, MutableMapping
from types import CoroutineType, ModuleType
from typing import Any, ClassVar

from pyscope import emitter
from pyscope.probes import values
from pyscope.probes.addresses import operation, template
from pyscope.probes.asgi_elsewhere import Work, as_coroutine_function, working
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches
from pyscope.probes.steps import Entered, entered

__all__ = ["ROUTE", "ASGIProbe", "Middleware", "patch", "watch"]

ASGIScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[ASGIScope, Receive, Send], Awaitable[None]]

_MARK = "pyscope.scope"  # in the ASGI scope of a request that is being watched
ROUTE = "pyscope.route"
"""In the ASGI scope: the route, where the framework itself does not leave it there."""


class ASGIProbe(ClientProbe):
    """Watches the web frameworks and servers that the program imports."""

    name = "asgi"
    extra = "taskflow"
    adapters: ClassVar = {
        "starlette.applications": "pyscope.probes.asgi",
        "starlette.responses": "pyscope.probes.asgi_elsewhere",
        "starlette.routing": "pyscope.probes.asgi_elsewhere",
        "anyio.to_thread": "pyscope.probes.asgi_elsewhere",
        "concurrent.futures.thread": "pyscope.probes.asgi_elsewhere",
        "uvicorn.config": "pyscope.probes.asgi_servers",
        "django.core.handlers.asgi": "pyscope.probes.asgi_frameworks:Django",
        "litestar.app": "pyscope.probes.asgi_frameworks:Litestar",
        "quart.app": "pyscope.probes.asgi_frameworks:Quart",
    }


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches Starlette.__call__, which FastAPI's calls."""
    watch(patches, library.Starlette)


def watch(patches: Patches, application: type) -> None:
    """Watches what a framework's applications are called with."""

    def make(original: App) -> App:
        def watched(self: Any, scope: ASGIScope, receive: Receive, send: Send) -> Awaitable[None]:
            request = None
            if patches.on and emitter.active():
                request = _watched(functools.partial(original, self), scope, receive, send)
            if request is None:
                return original(self, scope, receive, send)  # type: ignore[call-arg, arg-type]
            return request

        async def awaiting(self: Any, scope: ASGIScope, receive: Receive, send: Send) -> None:
            await watched(self, scope, receive, send)

        return as_coroutine_function(original, watched, awaiting)

    patches.replace(application, "__call__", make)


class Middleware:
    """ASGI middleware that makes each request a scope. The application's exceptions pass through untouched."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Handles one request, WebSocket or lifespan."""
        request = _watched(self.app, scope, receive, send) if emitter.active() else None
        await (self.app(scope, receive, send) if request is None else request)


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


def _watched(app: App, scope: ASGIScope, receive: Receive, send: Send) -> _Request | None:
    """The request as one that is watched, to be awaited; None if it is not to be."""
    try:
        if scope["type"] not in ("http", "websocket") or _MARK in scope:
            return None
        if _left_out and _is_left_out(scope):
            scope[_MARK] = 0  # nor what is mounted there
            return None
        return _Request(app, scope, receive, send)
    except Exception:
        fault("asgi")
        return None


async def _awaiting(awaitable: Any) -> None:
    await awaitable


@entered
class _Request(Entered):  # type: ignore[misc]
    """One request that is watched, from its first step to its last."""

    __slots__ = ("_app", "_around", "_receive", "_root", "_scope", "_send", "_work")

    def __init__(self, app: App, scope: ASGIScope, receive: Receive, send: Send) -> None:
        self._app: App | None = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._work: Work | None = None

    def enter(self) -> Any:
        """Begins, and calls the application. Returns the coroutine, or one that awaits what is none."""
        scope, receive, send = self._scope, self._receive, self._send
        try:
            self._root = scope.get("root_path", "")
            work = Work(_name(scope))
            work.enter()
            self._work = work
            self._around = working.get()  # of a request that asks another application of the process
            working.set(work)
            scope[_MARK] = work.id
            if values.of_requests:
                receive = values.of_asgi(work.id, scope, receive)
            send = self.answer
        except Exception:
            fault("asgi")
        app: Any = self._app
        self._app = None  # an object less while it runs
        awaitable: Any = app(scope, receive, send)
        return awaitable if type(awaitable) is CoroutineType else _awaiting(awaitable)

    def answer(self, message: Any) -> Awaitable[None]:
        """The server's `send`, which notes the status. (The method of that name is the coroutine's.)"""
        work = self._work
        if type(message) is dict and work is not None:
            what = message.get("type")
            if what == "http.response.start" or what == "websocket.http.response.start":
                status = message.get("status")
                work.status = int(status) if isinstance(status, int) else 0
                work.answers()
            elif what == "websocket.accept":
                work.status = 101
                work.answers()
        return self._send(message)

    def leave(self, error: BaseException | None = None) -> None:
        """It has ended, with the exception that ended it if there was one."""
        work, scope = self._work, self._scope
        if work is None:
            return
        try:
            work.add_up(self.cpu_ns)
            if working.get() is work:
                working.set(self._around)
            work.route = _route(scope, self._root)
            if isinstance(error, Exception) and not work.status and scope["type"] == "http":
                work.status = 500  # what the server will answer
        except Exception:
            fault("asgi")
        work.leave(error)


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
        inner = scope.get(ROUTE) or scope.get("path_template", "")
        route = None if inner else scope.get("route")
        path = inner or getattr(route, "path", "")
        if type(path) is not str or not path:
            return ""
        mounted = scope.get("root_path", "")
        if type(mounted) is str and type(root) is str and mounted != root and mounted.startswith(root):
            prefix = template(mounted[len(root) :]).rstrip("/")
            # What is mounted may know no routes, as files do: then its own is that of the mount.
            return prefix if hasattr(type(route), "routes") else prefix + path
        return path
    except Exception:
        fault("asgi")
        return ""
