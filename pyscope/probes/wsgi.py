"""WSGI: each HTTP request is a scope, with method, route, status and CPU time, from the call of the application until
its answer is closed.

The probe watches Flask and Django, applications that are running already included. Any other WSGI application
is wrapped by hand: `app = pyscope.probes.wsgi.Middleware(app)`; wrapped twice, a request still counts once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, ClassVar, TypeAlias

from pyscope import emitter
from pyscope.probes import values
from pyscope.probes.addresses import operation, plain_route
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches
from pyscope.probes.scope import Scope

__all__ = ["Django", "Flask", "Middleware", "WSGIProbe"]

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_MARK = "pyscope.scope"  # in the environ of a request that is being watched
_ROUTE = "pyscope.route"


class WSGIProbe(ClientProbe):
    """Watches the web frameworks that the program imports."""

    name = "wsgi"
    adapters: ClassVar = {
        "flask.app": "pyscope.probes.wsgi:Flask",
        "django.core.handlers.wsgi": "pyscope.probes.wsgi:Django",
    }


class Flask:
    """The adapter of Flask, whose request knows its rule."""

    @staticmethod
    def patch(patches: Patches, library: ModuleType) -> None:
        """Watches Flask.__call__."""
        patches.replace(library.Flask, "__call__", functools.partial(_watching, patches, _rule))


class Django:
    """The adapter of Django, which resolves the route while it handles the request."""

    @staticmethod
    def patch(patches: Patches, library: ModuleType) -> None:
        """Watches WSGIHandler.__call__ and what it resolves."""

        resolving = functools.partial(django_resolving, patches, _keep_route)
        patches.replace(library.WSGIHandler, "resolve_request", resolving)
        patches.replace(library.WSGIHandler, "__call__", functools.partial(_watching, patches, _kept_route))


def django_resolving(patches: Patches, keep: Callable[[Any, Any], None], original: Any) -> Any:
    """A handler's `resolve_request`, whose request and match are given to `keep`, which raises nothing."""

    @functools.wraps(original)
    def resolve_request(self: Any, request: Any) -> Any:
        match = original(self, request)
        if patches.on and emitter.active():
            keep(request, match)
        return match

    return resolve_request


def _watching(patches: Patches, route: Callable[[Environ], str], original: Any) -> Any:
    @functools.wraps(original)
    def __call__(self: Any, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if patches.on and emitter.active():
            return _handle(functools.partial(original, self), environ, start_response, route)
        answer: Iterable[bytes] = original(self, environ, start_response)
        return answer

    return __call__


class Middleware:
    """WSGI middleware that makes each request a scope. The application's exceptions pass through untouched."""

    def __init__(self, app: App) -> None:
        self.app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handles one request."""
        if emitter.active():
            return _handle(self.app, environ, start_response, lambda environ: "")
        return self.app(environ, start_response)


def _handle(
    app: App, environ: Environ, start_response: StartResponse, route: Callable[[Environ], str]
) -> Iterable[bytes]:
    if _MARK in environ:
        return app(environ, start_response)
    request = Scope("request", _name(environ)).enter()
    environ[_MARK] = request.id
    if values.of_requests:
        values.of_wsgi(request.id, environ)

    def leave(error: BaseException | None = None) -> None:
        if isinstance(error, Exception) and not request.status:
            request.status = 500  # what the server will answer
        request.leave(error)

    def watched(status: Any, *arguments: Any, **named: Any) -> Any:
        try:
            request.route = route(environ)  # Flask forgets its request before it returns
        except Exception:
            fault("wsgi")
        try:
            request.status = int(status[:3])
        except Exception:  # the server says what is wrong with it
            pass
        return start_response(status, *arguments, **named)

    try:
        answer = app(environ, watched)
    except BaseException as error:
        leave(error)
        raise
    wrapper = environ.get("wsgi.file_wrapper")
    # What is made already, or sent by the server in its own way, is left as it is: servers look at its type.
    if type(answer) in (list, tuple) or (isinstance(wrapper, type) and isinstance(answer, wrapper)):
        leave()
        return answer
    return _Answer(answer, leave)


class _Answer:
    """An application's answer, that tells when it is closed or fails."""

    def __init__(self, answer: Iterable[bytes], leave: Callable[..., None]) -> None:
        self._answer = answer
        self._leave = leave
        self._parts: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._parts is None:
                self._parts = iter(self._answer)
            return next(self._parts)
        except StopIteration:
            raise
        except BaseException as error:
            self._leave(error)
            raise

    def close(self) -> None:
        """What the server calls at the end, whatever happened."""
        close = getattr(self._answer, "close", None)
        try:
            if close is not None:
                close()
        except BaseException as error:
            self._leave(error)
            raise
        self._leave()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)


def _name(environ: Environ) -> str:
    try:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        return operation(environ["REQUEST_METHOD"], path or "/")
    except Exception:
        fault("wsgi")
        return "request"


def _rule(environ: Environ) -> str:
    """The rule of the URL that Flask found; empty for a path without one."""
    rule = getattr(getattr(environ.get("werkzeug.request"), "url_rule", None), "rule", "")
    return _below(environ, rule) if type(rule) is str and rule else ""


def _kept_route(environ: Environ) -> str:
    """The route that Django found; empty for a path without one."""
    route = environ.get(_ROUTE, "")
    return _below(environ, route) if route else ""


def _keep_route(request: Any, match: Any) -> None:
    try:
        request.META[_ROUTE] = django_route(match)
    except Exception:
        fault("wsgi")


def django_route(match: Any) -> str:
    """The route of what Django resolved."""
    route = match.route
    return f"/{plain_route(route).removeprefix('/')}" if type(route) is str else ""


def _below(environ: Environ, route: str) -> str:
    """With the prefix that the application is mounted under."""
    prefix = environ.get("SCRIPT_NAME", "")
    return (prefix.rstrip("/") if type(prefix) is str else "") + route
