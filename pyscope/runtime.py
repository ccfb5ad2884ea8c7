"""Monitoring for a program that watches itself: tests, admin pages, a service's lifespan.

Each kind of monitoring is started, read and stopped by itself; any combination can be in force at once, and threads may
call everything here at any time. What was gathered stays readable after a stop, until the next start of the same kind.
All times are nanoseconds of the Unix epoch, durations nanoseconds, memory bytes. Every `get_*` returns frozen
dataclasses of `pyscope.findings` in order of time.

    runtime.start_tracing(modules=["shop.*"])
    ...
    for call in runtime.get_traces(): ...
    runtime.stop_all()
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyscope import config, selection
from pyscope.config import ModuleSelector
from pyscope.errors import ConfigError
from pyscope.session import Session
from pyscope.trace import Call, Trace

__all__ = [
    "Controller",
    "get_traces",
    "start_tracing",
    "stop_all",
    "stop_tracing",
]

logger = logging.getLogger(__name__)

Level: TypeAlias = Literal["function_calls", "c_calls"]
Modules: TypeAlias = Sequence[ModuleSelector] | None
_LEVELS = {"function_calls": None, "c_calls": "c_calls"}


class _Kind:
    """One kind of monitoring in force, or ended: `read` makes its findings of a trace and the time it began."""

    def __init__(self, read: Callable[[Trace, int], Any], undo: Callable[[], None] = lambda: None) -> None:
        self.read = read
        self.undo = undo
        self.since = 0
        self.gathered: Any = None
        self.active = False


_lock = threading.RLock()
_session = Session()
_kinds: dict[str, _Kind] = {}


def _start(kind: str, made: _Kind, modules: Modules, probes: Iterable[str] = (), **options: Any) -> None:
    with _lock:
        _stop(kind)
        try:
            made.since = _session.add(kind, modules, probes, **options)
        except BaseException:
            made.undo()
            raise
        made.active = True
        _kinds[kind] = made


def _stop(kind: str) -> None:
    with _lock:
        found = _kinds.get(kind)
        if found is None or not found.active:
            return
        try:
            found.gathered = found.read(_session.trace(), found.since)
        finally:
            found.active = False
            try:
                found.undo()
            finally:
                _session.remove(kind)


def _get(kind: str, empty: Any) -> Any:
    with _lock:
        found = _kinds.get(kind)
        if found is None:
            return empty
        return found.read(_session.trace(), found.since) if found.active else found.gathered


def _in_forked_child() -> None:
    global _lock
    _lock = threading.RLock()
    _kinds.clear()
    _session.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)


# --- calls ---------------------------------------------------------------------------------------


def start_tracing(
    modules: Modules = None, level: Level = "function_calls", *, path: str | os.PathLike[str] | None = None
) -> None:
    """Records the calls of `modules` (dotted globs or module objects; None: the program's own code).

    `level`: "function_calls", or "c_calls" for calls of C functions too. `path`: the recording goes into that file,
    whole; without it the last 64 MiB are kept in memory. Raises ConfigError for bad arguments, RecorderError where
    recording cannot begin.
    """
    if level not in _LEVELS:
        raise ConfigError(f"level = {level!r}: must be one of {', '.join(map(repr, _LEVELS))}")

    def read(trace: Trace, since: int) -> list[Call]:
        columns = trace.calls
        chosen = columns["start_ns"] >= since
        if modules is not None:
            chosen &= _made_by(trace, modules)
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(columns["start_ns"][rows], kind="stable")]
        return [trace.call(int(row)) for row in rows]

    _start("tracing", _Kind(read), modules, path=path, detail=_LEVELS[level])


def get_traces() -> list[Call]:
    """The calls recorded since `start_tracing`, in order of start; those still running have outcome "open"."""
    found: list[Call] = _get("tracing", [])
    return found


def stop_tracing() -> None:
    """Ends what `start_tracing` began; does nothing if that is over."""
    _stop("tracing")


def _made_by(trace: Trace, modules: Sequence[ModuleSelector]) -> NDArray[np.bool_]:
    """For each call of a trace whether it is of these modules, or of a C function that they call."""
    globs = selection.expand(config.resolve(modules=modules).modules or ())
    functions = trace.functions
    meant = np.array([any(fnmatchcase(f.module, glob) for glob in globs) for f in functions], bool)
    in_c = np.array([f.kind == "c_function" for f in functions], bool)
    function, parent = trace.calls["function"], trace.calls["parent"]
    own: NDArray[np.bool_] = meant[function]
    own |= in_c[function] & (parent >= 0) & own[parent]
    return own


# --- all of it -----------------------------------------------------------------------------------


def stop_all() -> None:
    """Ends every kind of monitoring and undoes every patch and subscription. Can be called at any time, repeatedly."""
    with _lock:
        problems: list[Exception] = []
        for kind in list(_kinds):
            try:
                _stop(kind)
            except Exception as error:
                problems.append(error)
        for problem in problems:
            logger.warning("monitoring ended, but what it gathered could not be read: %s", problem)


class Controller:
    """Monitoring for as long as a service runs: a context manager, sync or async, for its lifespan.

    auto_start: whether entering starts it. default_tracing: arguments of `start_tracing`. Its own failure is a warning
    in the log of `pyscope.runtime`; the service runs on without it. `running` tells.
    """

    def __init__(self, auto_start: bool = True, default_tracing: dict[str, Any] | None = None) -> None:
        self.auto_start = auto_start
        self.default_tracing = dict(default_tracing or {})
        self.running = False

    def start(self) -> None:
        """Starts tracing, if it can be started."""
        try:
            start_tracing(**self.default_tracing)
            self.running = True
        except Exception:
            logger.warning("PyScope could not start; the service runs without it", exc_info=True)

    def stop(self) -> None:
        """Ends every kind of monitoring."""
        self.running = False
        try:
            stop_all()
        except Exception:
            logger.warning("PyScope could not stop cleanly", exc_info=True)

    def __enter__(self) -> Self:
        if self.auto_start:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
