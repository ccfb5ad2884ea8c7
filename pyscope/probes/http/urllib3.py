"""urllib3, and with it requests: connection pools, where each request is sent, and the client's own retries.

`urlopen` calls itself to send again, after `Retry.increment` has judged how the sending before ended.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType, TracebackType
from typing import Any

from pyscope.probes.attempts import SILENT, Attempt
from pyscope.probes.clients import fault
from pyscope.probes.http import sending
from pyscope.probes.patches import Patches

__all__ = ["patch"]

_MARK = "_pyscope_attempt"  # on a response whose body has not been read


class _Call:
    """A request with all its sendings."""

    __slots__ = ("again", "attempt", "chain", "pool")

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.attempt: Attempt = SILENT
        self.chain = 0
        self.again = False  # the next urlopen of this pool repeats


_current: ContextVar[_Call | None] = ContextVar("pyscope_urllib3_call", default=None)


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches HTTPConnectionPool.urlopen, Retry.increment, and the ends of HTTPResponse's body."""
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.response import HTTPResponse
    from urllib3.util.retry import Retry

    def make_urlopen(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def urlopen(self: Any, method: Any, url: Any, body: Any = None, *args: Any, **kwargs: Any) -> Any:
            call = _begin(self, method, url, body, kwargs) if patches.on else _Call(self)
            token = _current.set(call)
            try:
                response = original(self, method, url, body, *args, **kwargs)
            except BaseException as error:
                call.attempt.failed(error)
                raise
            finally:
                _current.reset(token)
            _answered(call.attempt, response)
            return response

        return urlopen

    def make_increment(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def increment(self: Any, *args: Any, **kwargs: Any) -> Any:
            call = _current.get()
            if call is not None:
                _judged(call, kwargs.get("error"), kwargs.get("response"))
            return original(self, *args, **kwargs)

        return increment

    def make_end(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def end(self: Any) -> Any:
            try:
                return original(self)
            finally:
                attempt = self.__dict__.pop(_MARK, None)
                if attempt is not None:
                    attempt.succeeded()

        return end

    def make_catcher(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def _error_catcher(self: Any) -> Any:
            catcher = original(self)
            attempt = self.__dict__.get(_MARK)
            return catcher if attempt is None else _Catcher(catcher, attempt)

        return _error_catcher

    patches.replace(HTTPConnectionPool, "urlopen", make_urlopen)
    patches.replace(Retry, "increment", make_increment)
    patches.replace(HTTPResponse, "release_conn", make_end)
    patches.replace(HTTPResponse, "close", make_end)
    patches.replace(HTTPResponse, "_error_catcher", make_catcher)


def _begin(pool: Any, method: Any, url: Any, body: Any, kwargs: dict[str, Any]) -> _Call:
    try:
        call = _current.get()
        if call is None or call.pool is not pool or not call.again:
            call = _Call(pool)
        call.again = False
        path, _, query = str.partition(url, "?")
        if "://" in path:  # to a proxy
            path = "/" + path.partition("://")[2].partition("/")[2]
        call.attempt = sending(
            "urllib3",
            method,
            pool.host,
            pool.port,
            path,
            scheme=pool.scheme,
            query=query,
            body=body,
            timeout=_timeout(pool, kwargs.get("timeout")),
            chain=call.chain,
        )
        call.chain = call.chain or call.attempt.id
    except Exception:
        fault("http")
        return _Call(pool)
    return call


def _timeout(pool: Any, timeout: Any) -> float | None:
    if type(timeout) in (int, float):
        return timeout  # type: ignore[no-any-return]
    found = getattr(timeout, "_read", None) if timeout is not None else getattr(pool.timeout, "_read", None)
    return found if type(found) in (int, float) else None


def _judged(call: _Call, error: Any, response: Any) -> None:
    """A sending has failed, been refused or led elsewhere; the next urlopen within is the next sending."""
    try:
        call.again = True
        if isinstance(error, BaseException):
            call.attempt.failed(error)
        elif response is not None:
            call.attempt.succeeded(response.status)
            if response.get_redirect_location():
                call.chain = 0  # elsewhere is another request
    except Exception:
        fault("http")
        call.attempt.succeeded()


def _answered(attempt: Attempt, response: Any) -> None:
    if attempt.ended:
        return
    try:
        if response.closed:
            attempt.succeeded(response.status)
        else:
            attempt.answered(response.status)
            response.__dict__[_MARK] = attempt
    except Exception:
        fault("http")
        attempt.succeeded()


class _Catcher:
    """A response's own context around each read, which turns low-level errors into urllib3's."""

    __slots__ = ("_attempt", "_catcher")

    def __init__(self, catcher: Any, attempt: Attempt) -> None:
        self._catcher = catcher
        self._attempt = attempt

    def __enter__(self) -> Any:
        return self._catcher.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        if error is not None:
            self._attempt.failed(error)
        return self._catcher.__exit__(kind, error, traceback)
