"""httpx and its successor httpx2: their transports, where each request (also of a redirect) is sent.

A transport of the user's own, or one that answers in the same process, is no call to another service.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

from pyscope.probes.attempts import SILENT, Attempt
from pyscope.probes.clients import fault
from pyscope.probes.http import sending
from pyscope.probes.http.httpcore import Sendings
from pyscope.probes.patches import Patches

__all__ = ["patch"]


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches HTTPTransport and AsyncHTTPTransport."""
    client = library.__name__
    body, async_body = _bodies(library)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def handle_request(self: Any, request: Any) -> Any:
            attempt = _begin(client, request, blocking=True) if patches.on else SILENT
            several = _several(self, attempt, client, request, blocking=True)
            try:
                response = original(self, request)
            except BaseException as error:
                (attempt if several is None else several.attempt).failed(error)
                raise
            finally:
                if several is not None:
                    several.end()
            _follow(attempt if several is None else several.attempt, response, body)
            return response

        return handle_request

    def make_async(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def handle_async_request(self: Any, request: Any) -> Any:
            attempt = _begin(client, request, blocking=False) if patches.on else SILENT
            several = _several(self, attempt, client, request, blocking=False)
            try:
                response = await original(self, request)
            except BaseException as error:
                (attempt if several is None else several.attempt).failed(error)
                raise
            finally:
                if several is not None:
                    several.end()
            _follow(attempt if several is None else several.attempt, response, async_body)
            return response

        return handle_async_request

    patches.replace(library.HTTPTransport, "handle_request", make)
    patches.replace(library.AsyncHTTPTransport, "handle_async_request", make_async)


def _several(
    transport: Any, attempt: Attempt, client: str, request: Any, *, blocking: bool
) -> Sendings | None:
    """The attempts of a transport that connects again by itself; None for any other."""
    try:
        if attempt is SILENT or not getattr(getattr(transport, "_pool", None), "_retries", 0):
            return None
        return Sendings(attempt, functools.partial(_begin, client, request, blocking=blocking))
    except Exception:
        fault("http")
        return None


def _begin(client: str, request: Any, *, blocking: bool, chain: int = 0) -> Attempt:
    try:
        url = request.url
        timeout = request.extensions.get("timeout") or {}
        return sending(
            client,
            request.method,
            url.host,
            url.port,
            url.path,
            scheme=url.scheme,
            query=url.query,
            body=getattr(request, "_content", None),  # where it is bytes; `content` would read a stream
            timeout=timeout.get("read") or timeout.get("connect"),
            blocking=blocking,
            chain=chain,
        )
    except Exception:
        fault("http")
        return SILENT


def _follow(attempt: Attempt, response: Any, body: Callable[[Any, Attempt], Any]) -> None:
    if attempt is SILENT:
        return
    try:
        attempt.answered(response.status_code)
        response.stream = body(response.stream, attempt)
    except Exception:
        fault("http")
        attempt.succeeded()


def _bodies(library: ModuleType) -> tuple[Callable[[Any, Attempt], Any], Callable[[Any, Attempt], Any]]:
    """Streams that tell when they end; they are what the library's own must be."""

    class Body(library.SyncByteStream):  # type: ignore[name-defined, misc]
        def __init__(self, stream: Any, attempt: Attempt) -> None:
            self._stream = stream
            self._attempt = attempt

        def __iter__(self) -> Iterator[bytes]:
            try:
                yield from self._stream
            except GeneratorExit:  # the reader has enough
                raise
            except BaseException as error:
                self._attempt.failed(error)
                raise

        def close(self) -> None:
            try:
                self._stream.close()
            finally:
                self._attempt.succeeded()

    class AsyncBody(library.AsyncByteStream):  # type: ignore[name-defined, misc]
        def __init__(self, stream: Any, attempt: Attempt) -> None:
            self._stream = stream
            self._attempt = attempt

        async def __aiter__(self) -> AsyncIterator[bytes]:
            chunks = self._stream.__aiter__()
            try:
                async for chunk in chunks:
                    yield chunk
            except GeneratorExit:
                raise
            except BaseException as error:
                self._attempt.failed(error)
                raise
            finally:
                if isinstance(chunks, AsyncGenerator):
                    await chunks.aclose()

        async def aclose(self) -> None:
            try:
                await self._stream.aclose()
            finally:
                self._attempt.succeeded()

    return Body, AsyncBody
