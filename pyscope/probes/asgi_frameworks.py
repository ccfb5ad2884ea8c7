"""ASGI frameworks that are not made of Starlette, and where each of them knows the route of a request."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pyscope.probes.asgi import ROUTE, watch
from pyscope.probes.asgi_elsewhere import in_a_task
from pyscope.probes.clients import fault
from pyscope.probes.patches import Patches
from pyscope.probes.wsgi import django_resolving, django_route

__all__ = ["Django", "Litestar", "Quart"]


class Django:
    """The adapter of Django, which resolves the route while it handles the request."""

    @staticmethod
    def patch(patches: Patches, library: ModuleType) -> None:
        """Watches ASGIHandler.__call__, what it resolves, and what its tasks run."""

        resolving = functools.partial(django_resolving, patches, _keep_django_route)
        patches.replace(library.ASGIHandler, "resolve_request", resolving)
        for name in ("run_get_response", "send_response"):  # before Django 6 in a task of its own
            patches.replace(library.ASGIHandler, name, in_a_task)
        watch(patches, library.ASGIHandler)


def _keep_django_route(request: Any, match: Any) -> None:
    try:
        request.scope[ROUTE] = django_route(match)
    except Exception:
        fault("asgi")


class Litestar:
    """The adapter of Litestar, which leaves the route's template in the scope."""

    @staticmethod
    def patch(patches: Patches, library: ModuleType) -> None:
        """Watches Litestar.__call__."""
        watch(patches, library.Litestar)


class Quart:
    """The adapter of Quart, whose requests and websockets know their rule, and are handled in a task of its own."""

    @staticmethod
    def patch(patches: Patches, library: ModuleType) -> None:
        """Watches Quart.__call__, what it matches, and what its tasks run."""

        def make(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
            @functools.wraps(original)
            def match_request(self: Any) -> Any:
                result = original(self)
                try:
                    of = (
                        self.request_websocket
                        if hasattr(self, "request_websocket")
                        else self._request_websocket
                    )
                    rule = getattr(of.url_rule, "rule", "")
                    of.scope[ROUTE] = rule if type(rule) is str else ""
                except Exception:
                    fault("asgi")
                return result

            return match_request

        if hasattr(library, "RequestContext"):
            contexts = [library.RequestContext, library.WebsocketContext]
        else:  # Quart 0.23 has one for both
            contexts = [library.AppContext]
        for context in contexts:
            patches.replace(context, "match_request", make)
        for connection, name in (
            (library.Quart.asgi_http_class, "handle_request"),
            (library.Quart.asgi_websocket_class, "handle_websocket"),
        ):
            patches.replace(connection, name, in_a_task)
        watch(patches, library.Quart)
