"""Values of the program that may be recorded because the setting `values` names them; without it there are none.

`sql_parameters`: of the statements of SQLAlchemy and of Django's ORM. `request_header:NAME`, `request_body`: of the
requests that the probes `asgi` and `wsgi` watch. Each text is bounded, and no code of the program runs to make it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from pyscope import emitter
from pyscope.events.scope import VALUE
from pyscope.probes import installed, on_import
from pyscope.probes.clients import fault
from pyscope.probes.patches import Patches

__all__ = ["MOST_BODY", "allow", "forbid", "of_asgi", "of_wsgi"]

MOST_BODY = 1000  # bytes of a request's body
_HEADER = "request_header:"
_BODY = "request_body"
_PARAMETERS = "sql_parameters"

of_requests = False
"""Whether anything of requests may be recorded: asked at each."""

_headers: tuple[str, ...] = ()
_body = False
_patches: Patches | None = None


def allow(wanted: Iterable[str]) -> None:
    """From now on these values are recorded, and no others."""
    global of_requests, _headers, _body, _patches
    forbid()
    names = [name.lower() for name in wanted]
    _headers = tuple(name.removeprefix(_HEADER) for name in names if name.startswith(_HEADER))
    _body = _BODY in names
    of_requests = _body or bool(_headers)
    if _PARAMETERS in names:
        _patches = Patches()
        on_import.call("sqlalchemy.engine", functools.partial(_watch_sqlalchemy, _patches), _patches)
        on_import.call("django.db.backends.utils", functools.partial(_watch_django, _patches), _patches)


def forbid() -> None:
    """From now on none."""
    global of_requests, _headers, _body, _patches
    of_requests, _headers, _body = False, (), False
    patches, _patches = _patches, None
    if patches is not None:
        on_import.cancel(patches)
        patches.undo()


def _emit(identity: int, what: str, text: str) -> None:
    emitter.emit(VALUE.kind, identity, emitter.intern(what), text)


# --- SQL: told right before the statement, by the thread and task that sends it ------------------


def _watch_sqlalchemy(patches: Patches) -> None:
    from sqlalchemy.engine import Connection

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def executing(self: Any, dialect: Any, context: Any, *arguments: Any, **named: Any) -> Any:
            if patches.on and emitter.active() and installed("sqlalchemy") is not None:
                _tell_parameters("sqlalchemy", context.parameters if context.executemany else None, context)
            return original(self, dialect, context, *arguments, **named)

        return executing

    for name in ("_exec_single_context", "_exec_insertmany_context"):
        patches.replace(Connection, name, make)


def _watch_django(patches: Patches) -> None:
    from django.db.backends.utils import CursorWrapper

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def executing(self: Any, sql: Any, parameters: Any, *ignored: Any) -> Any:
            if patches.on and emitter.active() and installed("django") is not None:
                _tell_parameters("django", parameters, None)
            return original(self, sql, parameters, *ignored)

        return executing

    for name in ("_execute", "_executemany"):
        patches.replace(CursorWrapper, name, make)


def _tell_parameters(probe: str, parameters: Any, context: Any) -> None:
    try:
        if parameters is None and context is not None:
            parameters = context.parameters[0]
        if parameters:
            # With it comes asyncio: only for those who allow this.
            from pyscope.probes.state.values import freeze, tell

            _emit(0, _PARAMETERS, tell(freeze(_printed(parameters)))[1])
    except Exception:
        fault(probe)


def _printed(parameters: Any) -> Any:
    """With the text of dates and such, which are no scalars."""
    if type(parameters) is dict:
        return {name: _text_of(value) for name, value in parameters.items()}
    if type(parameters) in (list, tuple):
        return type(parameters)(_text_of(value) for value in parameters)
    return parameters


def _text_of(value: Any) -> Any:
    return str(value) if type(value) in _printed_types() else value


@functools.cache
def _printed_types() -> frozenset[type]:
    import datetime as time
    import decimal
    import uuid

    return frozenset((time.datetime, time.date, time.time, time.timedelta, decimal.Decimal, uuid.UUID))


# --- requests ------------------------------------------------------------------------------------


def of_asgi(identity: int, scope: Any, receive: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """Tells the headers of a request, and its body as it is received. Returns what the application is to receive by."""
    try:
        for name in _headers:
            found = [value for key, value in scope["headers"] if key.lower() == name.encode("latin-1")]
            if found:
                _tell_header(identity, name, b", ".join(found).decode("latin-1"))
        if _body and scope["type"] == "http":
            return _noting(_Body(identity), receive)
    except Exception:
        fault("asgi")
    return receive


def _noting(body: _Body, receive: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    async def noted() -> Any:
        message = await receive()
        try:
            if type(message) is dict and message.get("type") == "http.request":
                body.add(message.get("body", b""), not message.get("more_body", False))
        except Exception:
            fault("asgi")
        return message

    return noted


def of_wsgi(identity: int, environ: dict[str, Any]) -> None:
    """The same of a WSGI request, whose `wsgi.input` notes what is read of it."""
    try:
        for name in _headers:
            key = name.upper().replace("-", "_")
            value = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}")
            if type(value) is str and value:
                _tell_header(identity, name, value)
        if _body and "wsgi.input" in environ:
            environ["wsgi.input"] = _Input(environ["wsgi.input"], _Body(identity), _length(environ))
    except Exception:
        fault("wsgi")


def _length(environ: dict[str, Any]) -> int:
    text = environ.get("CONTENT_LENGTH") or ""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else -1


def _tell_header(identity: int, name: str, value: str) -> None:
    from pyscope.probes.state.values import cut

    _emit(identity, _HEADER + name, cut(value))


class _Body:
    """The beginning of a request's body, told once when it is whole, or as much as is kept."""

    def __init__(self, identity: int) -> None:
        self._identity = identity
        self._kept = b""
        self._told = False

    def add(self, part: bytes, is_last: bool) -> None:
        if self._told:
            return
        self._kept += part[: MOST_BODY + 1 - len(self._kept)]
        cut = len(self._kept) > MOST_BODY
        if is_last or cut:
            self._told = True
            text = self._kept[:MOST_BODY].decode("utf-8", "replace")
            if text:
                _emit(self._identity, _BODY, text + "…" if cut else text)


class _Input:
    """A WSGI request's input: as the server's own, and notes what is read of it."""

    def __init__(self, original: Any, body: _Body, length: int) -> None:
        self._original = original
        self._body = body
        self._left = length  # of the body, where it is known

    def _noted(self, part: Any, *, at_end: bool) -> Any:
        try:
            self._left -= len(part)
            self._body.add(bytes(part), at_end or self._left == 0)
        except Exception:
            fault("wsgi")
        return part

    def read(self, *size: Any) -> Any:
        part = self._original.read(*size)
        return self._noted(part, at_end=not part or not size)

    def readline(self, *size: Any) -> Any:
        part = self._original.readline(*size)
        return self._noted(part, at_end=not part)

    def readlines(self, *hint: Any) -> Any:
        lines = self._original.readlines(*hint)
        self._noted(b"".join(lines), at_end=not hint)
        return lines

    def __iter__(self) -> Any:
        for line in self._original:
            yield self._noted(line, at_end=False)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._original, name)
        return functools.partial(self._readinto, found) if name == "readinto" else found

    def _readinto(self, original: Callable[[Any], Any], buffer: Any) -> Any:
        size = original(buffer)
        if type(size) is int:
            self._noted(bytes(memoryview(buffer)[:size]), at_end=not size)
        return size
