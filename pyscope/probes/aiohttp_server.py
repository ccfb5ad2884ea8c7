"""aiohttp.web: each HTTP request and WebSocket is a scope, with method, route, status and CPU time, from the call of
its handler until its answer is sent. (The client is the probe `http`'s.)
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, ClassVar

from pyscope import emitter
from pyscope.probes.addresses import operation, template
from pyscope.probes.asgi_elsewhere import Work, working
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches
from pyscope.probes.steps import Steps

__all__ = ["AiohttpServerProbe", "patch"]


class AiohttpServerProbe(ClientProbe):
    """Watches what aiohttp's servers handle."""

    name = "aiohttp_server"
    adapters: ClassVar = {
        "aiohttp.web_protocol": "pyscope.probes.aiohttp_server",
        "concurrent.futures.thread": "pyscope.probes.asgi_elsewhere",
    }


class _Request(Work):
    """`error`: what its handler raised, which aiohttp answers with a status of 500."""

    __slots__ = ("error",)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.error: BaseException | None = None


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches RequestHandler._handle_request, which runs in a task of the request's own, and its `handle_error`."""

    def make(original: Any) -> Any:
        @functools.wraps(original)
        async def _handle_request(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            work = _begun(request) if patches.on and emitter.active() else None
            if work is None:
                return await original(self, request, *args, **kwargs)
            steps = Steps(original(self, request, *args, **kwargs))
            try:
                result = await steps
            except BaseException as error:
                _leave(work, steps, request, None, error)
                raise
            _leave(work, steps, request, result, None)
            return result

        return _handle_request

    def make_handle_error(original: Any) -> Any:
        @functools.wraps(original)
        def handle_error(
            self: Any, request: Any, status: Any = 500, exc: Any = None, *args: Any, **kwargs: Any
        ) -> Any:
            work = working.get()
            if type(work) is _Request and status == 500 and isinstance(exc, BaseException):
                work.error = exc
            return original(self, request, status, exc, *args, **kwargs)

        return handle_error

    patches.replace(library.RequestHandler, "_handle_request", make)
    patches.replace(library.RequestHandler, "handle_error", make_handle_error)


def _begun(request: Any) -> _Request | None:
    try:
        work = _Request(_name(request))
        work.enter()
        working.set(work)
        return work
    except Exception:
        fault("aiohttp_server")
        return None


def _leave(work: _Request, steps: Any, request: Any, result: Any, error: BaseException | None) -> None:
    raised, work.error = work.error, None
    try:
        working.set(None)
        work.add_up(steps.cpu_ns)
        work.route = _route(request)
        if result is not None:
            status = result[0].status
            work.status = int(status) if isinstance(status, int) else 0
    except Exception:
        fault("aiohttp_server")
    work.leave(raised if error is None else error)


def _name(request: Any) -> str:
    try:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return f"WEBSOCKET {template(request.path)}"
        return operation(request.method, request.path)
    except Exception:
        fault("aiohttp_server")
        return "request"


def _route(request: Any) -> str:
    """The path's template; empty for one without a route, and for servers without routes."""
    try:
        found = getattr(request, "match_info", None)
        canonical = getattr(getattr(getattr(found, "route", None), "resource", None), "canonical", "")
        return canonical if type(canonical) is str else ""
    except Exception:
        fault("aiohttp_server")
        return ""
