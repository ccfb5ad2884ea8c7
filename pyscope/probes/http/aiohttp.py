"""aiohttp: a session's requests, each with the redirects that the session follows by itself.

The body belongs to the attempt as far as the response is asked for all of it (`read`, `text`, `json`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from pyscope.probes.attempts import SILENT, Attempt
from pyscope.probes.clients import fault
from pyscope.probes.http import sending
from pyscope.probes.patches import Patches

__all__ = ["patch"]


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches ClientSession._request and ClientResponse.read."""
    unread: WeakKeyDictionary[Any, Attempt] = WeakKeyDictionary()

    def make_request(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def _request(self: Any, method: str, str_or_url: Any, **options: Any) -> Any:
            attempt = _begin(self, method, str_or_url, options) if patches.on else SILENT
            try:
                response = await original(self, method, str_or_url, **options)
            except BaseException as error:
                attempt.failed(error)
                raise
            if attempt is not SILENT:
                _answered(attempt, response, unread)
            return response

        return _request

    def make_read(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def read(self: Any) -> Any:
            try:
                body = await original(self)
            except BaseException as error:
                unread.pop(self, SILENT).failed(error)
                raise
            unread.pop(self, SILENT).succeeded()
            return body

        return read

    patches.replace(library.ClientSession, "_request", make_request)
    patches.replace(library.ClientResponse, "read", make_read)


def _begin(session: Any, method: str, target: Any, options: dict[str, Any]) -> Attempt:
    try:
        url = session._build_url(target)
        timeout = options.get("timeout", session.timeout)
        if not isinstance(timeout, int | float | None):
            timeout = getattr(timeout, "total", None) or getattr(timeout, "sock_read", None)
        body = options.get("data")
        return sending(
            "aiohttp",
            method.upper(),
            url.host or "",
            url.port,
            url.raw_path,
            scheme=url.scheme,
            query=url.raw_query_string,
            body=body if type(body) in (bytes, str) else None,
            timeout=timeout,
            blocking=False,
        )
    except Exception:
        fault("http")
        return SILENT


def _answered(attempt: Attempt, response: Any, unread: WeakKeyDictionary[Any, Attempt]) -> None:
    try:
        attempt.answered(response.status)
        unread[response] = attempt
    except Exception:
        fault("http")
        attempt.succeeded()
