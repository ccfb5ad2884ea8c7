"""aiohttp: a session's requests, each with the redirects that the session follows by itself.

The body belongs to the attempt: that ends when all of it has come, or the response is released, closed or forgotten.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any

from pyscope.probes.attempts import SILENT, Attempt
from pyscope.probes.clients import fault
from pyscope.probes.http import sending
from pyscope.probes.patches import Patches

__all__ = ["patch"]


_MARK = "_pyscope_attempt"  # on a response whose body has not come
_STREAMS = "aiohttp.streams"


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches ClientSession._request, and the ends of ClientResponse's body."""

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
                _answered(attempt, response)
            return response

        return _request

    def make_end(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def end(self: Any, *args: Any, **kwargs: Any) -> Any:
            attempt = self.__dict__.pop(_MARK, None)
            if attempt is not None:
                _end(attempt, self)
            return original(self, *args, **kwargs)

        return end

    def make_eof(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def _response_eof(self: Any) -> Any:
            original(self)
            if self._closed:  # else it is a connection of another protocol from now on
                self.__dict__.pop(_MARK, SILENT).succeeded()

        return _response_eof

    patches.replace(library.ClientSession, "_request", make_request)
    response = library.ClientResponse
    patches.replace(response, "_response_eof", make_eof)
    for name in ("release", "close", "__del__"):
        patches.replace(response, name, make_end)


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


def _answered(attempt: Attempt, response: Any) -> None:
    try:
        if response.closed or response.status == 101:  # what comes next is a WebSocket's
            attempt.succeeded(response.status)
            return
        attempt.answered(response.status)
        response.__dict__[_MARK] = attempt
    except Exception:
        fault("http")
        attempt.succeeded()


def _end(attempt: Attempt, response: Any) -> None:
    """The response is being given back before all of its body has come."""
    try:
        content = response.content
        error = content.exception() if content is not None else None
        handled = sys.exc_info()[1]
        if error is None and handled is not None and _went_through(content, handled.__traceback__):
            error = handled
        if error is not None:
            attempt.failed(error)
    except Exception:
        fault("http")
    attempt.succeeded()


def _went_through(content: Any, traceback: TracebackType | None) -> bool:
    """Whether an exception, such as a timeout, ended a wait for this body."""
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__") == _STREAMS and frame.f_locals.get("self") is content:
            return True
        traceback = traceback.tb_next
    return False
