"""urllib.request of the standard library: where a handler opens a connection and sends one request.

Such an attempt ends with the head of the answer: the body is read from the socket, with no place to watch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from pyscope.probes.attempts import SILENT, Attempt
from pyscope.probes.clients import fault
from pyscope.probes.http import sending
from pyscope.probes.patches import Patches

__all__ = ["patch"]


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches AbstractHTTPHandler.do_open."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def do_open(self: Any, http_class: Any, req: Any, **http_conn_args: Any) -> Any:
            attempt = _begin(req) if patches.on else SILENT
            try:
                response = original(self, http_class, req, **http_conn_args)
            except BaseException as error:
                attempt.failed(error)
                raise
            status = getattr(response, "status", 0)
            attempt.succeeded(status if type(status) is int else 0)
            return response

        return do_open

    patches.replace(library.AbstractHTTPHandler, "do_open", make)


def _begin(request: Any) -> Attempt:
    try:
        url = urlsplit(request.full_url)
        return sending(
            "urllib.request",
            request.get_method(),
            url.hostname or "",
            url.port,
            url.path,
            scheme=url.scheme,
            query=url.query,
            body=request.data,
            timeout=request.timeout,
        )
    except Exception:
        fault("http")
        return SILENT
