"""Where probes write: events, interned strings and stacks go into the recording in progress, or nowhere.

Use the functions through the module (`emitter.emit(...)`): a recording's start and stop put others in their place. None
of them raises. While nothing is recorded they do nothing and return 0.
"""

from __future__ import annotations

import itertools
import os
from contextvars import ContextVar
from types import FrameType
from typing import Any, Protocol

from pyscope import backends

__all__ = ["Sink", "active", "connect", "disconnect", "emit", "intern", "next_id", "scope", "stack"]

scope: ContextVar[int] = ContextVar("pyscope_scope", default=0)
"""The number of the request, message or report that runs here; every event carries it. 0: none."""


class Sink(Protocol):
    """What a backend offers to probes."""

    def emit(self, kind: int, *values: object) -> None: ...
    def intern(self, text: str) -> int: ...
    def stack(self, limit: int = 32, outer: FrameType | None = None) -> int: ...


class _Nowhere:
    def emit(self, kind: int, *values: object) -> None:
        """Records an event: numbers (int, bool, float cut to whole, None as 0), then texts (str), in the order of the
        fields of its type."""

    def intern(self, text: str) -> int:
        """The number of a string, for a `:string` field; 0 when there is no room left."""
        return 0

    def stack(self, limit: int = 32, outer: FrameType | None = None) -> int:
        """The number of the calling stack, for a `:stack` field: its `limit` innermost frames of the user's own code.

        That is code outside of the standard library, site-packages and PyScope, and code of modules that a glob other
        than `*` names. A greenlet's stack goes on in its parent's. `outer`: a frame to begin at.
        """
        return 0


_nowhere = _Nowhere()
generation = 0
"""Grows with each recording: strings and stacks of another recording have other numbers."""

_connected = False
emit = _nowhere.emit
intern = _nowhere.intern
stack = _nowhere.stack


def connect(sink: Sink) -> None:
    """From now on events go to `sink`."""
    global emit, intern, stack, generation, _connected
    emit, intern, stack = sink.emit, sink.intern, sink.stack
    generation += 1
    _connected = True


def disconnect() -> None:
    """From now on events go nowhere."""
    global emit, intern, stack, _connected
    _connected = False
    emit, intern, stack = _nowhere.emit, _nowhere.intern, _nowhere.stack


def active() -> bool:
    """Whether events go anywhere."""
    return _connected


_compiled: Any = backends.native()


def next_id() -> int:
    """A number that no other call in any process of a recording returns: for scopes, attempts, objects."""
    raise NotImplementedError  # replaced at once


def _number_anew() -> None:
    """From the process's id on: at the import, and in a forked child."""
    global next_id
    first = (os.getpid() << 32) + 1
    if _compiled is None:
        next_id = itertools.count(first).__next__
    else:
        _compiled.begin_numbers(first)
        next_id = _compiled.next_id


_number_anew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_number_anew)
