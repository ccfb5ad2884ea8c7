"""Scopes: from the begin of a request, message, report or task to its end, what happens belongs to it.

::

    scope = Scope("report", "annual").enter()
    try:
        ...
    except BaseException as error:
        scope.leave(error)
        raise
    scope.leave()

or `with Scope("report", "annual"): ...`. Nothing here raises.
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter_ns, thread_time_ns
from types import TracebackType
from typing import Any, Self

from pyscope import backends, emitter
from pyscope.events.scope import SCOPE_BEGIN, SCOPE_END
from pyscope.probes.clients import fault
from pyscope.probes.exceptions import is_cancellation

__all__ = ["Scope", "exception_name"]

_BEGIN, _END = SCOPE_BEGIN.kind, SCOPE_END.kind
_compiled: Any = backends.native()
_name_of = type.__dict__["__qualname__"].__get__


def exception_name(error: BaseException) -> str:
    """The name of an exception's type, without asking the type."""
    name = _name_of(type(error))
    return name if type(name) is str else ""


def _shares_its_thread() -> bool:
    """Whether what runs here may be suspended while other tasks or greenlets run in the thread."""
    if asyncio._get_running_loop() is not None:
        return True
    try:
        return sys.modules["greenlet"].getcurrent().parent is not None
    except Exception:  # there are none
        return False


class Scope:
    """One scope. `kind`: "request", "message", "report", "task", "job" or a word of the probe's own; `name`: what of
    them.

    `status`, `route` and `cpu_ns` are told at its end. CPU time is the thread's between enter and leave,
    unless `cpu_ns` is set before. In a task or a greenlet, beside which others run in the thread, it is not known (-1):
    who wants it has to measure for itself.
    """

    __slots__ = ("_around", "_cpu", "_started", "cpu_ns", "id", "kind", "name", "route", "status")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self.id = 0
        self.status = 0
        self.route = ""
        self.cpu_ns = -1
        self._around: int | None = None  # the scope in which this one runs. (A Token is an object more.)

    def enter(self) -> Self:
        """Begins, within the scope that runs here."""
        self._started = perf_counter_ns()
        try:
            begun = None if _compiled is None else _compiled.begin_scope(_BEGIN, self.kind, self.name)
            if begun is not None:
                self.id, self._around = begun
            elif emitter.active():
                self.id = emitter.next_id()
                around = emitter.scope.get()
                emitter.scope.set(self.id)
                self._around = around
                emitter.emit(_BEGIN, self.id, around, emitter.intern(self.kind), emitter.intern(self.name))
        except Exception:
            fault("asgi")
        # After the begin, and read before the end: what is told of it is never more than the scope took.
        self._cpu = -1 if self.cpu_ns >= 0 or _shares_its_thread() else thread_time_ns()
        return self

    def forget_cpu(self) -> None:
        """Its work is done in another thread than the one that has entered it: CPU time is not known."""
        self._cpu = -1

    def leave(self, error: BaseException | None = None) -> None:
        """Ends, with the exception that ended it if there was one."""
        around, self._around = self._around, None
        if around is None:
            return
        try:
            if self.cpu_ns < 0 <= self._cpu:
                self.cpu_ns = thread_time_ns() - self._cpu
            duration = perf_counter_ns() - self._started
            if error is None:
                outcome = "returned"
            else:
                outcome = "cancelled" if is_cancellation(type(error)) else "raised"
            name = "" if error is None else exception_name(error)
            status, route, cpu = self.status, self.route, self.cpu_ns
            if _compiled is None or not _compiled.end_scope(
                _END, self.id, around, duration, cpu, status, route, outcome, name
            ):
                self._end_in_python(around, duration, outcome, name)
        except Exception:
            fault("asgi")

    def _end_in_python(self, around: int, duration: int, outcome: str, error: str) -> None:
        intern = emitter.intern
        emitter.emit(
            _END,
            self.id,
            duration,
            self.cpu_ns,
            self.status,
            intern(self.route) if self.route else 0,
            intern(outcome),
            intern(error) if error else 0,
        )
        # Else this is another context than it was entered in: a collected generator's.
        if emitter.scope.get() == self.id:
            emitter.scope.set(around)

    def __enter__(self) -> Self:
        return self.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave(error)
