"""Actors: one probe, an adapter for each actor library.

An adapter is a module here, and a row in `ActorsProbe.adapters`. It has three functions::

    def patch(patches: Patches, library: ModuleType) -> None
    def actor_of(target: object) -> object | None
    def mailbox_length(actor: object) -> int | None

`patch` is called once the library is imported. It replaces with `patches.replace(owner, name, make)` the
three places where

- a message is put into a mailbox: `letter = sent(identity, name_of_actor, name_of_message, length)`; the
  letter travels with the message (in its envelope, or in a table beside it), and tells sender and receiver
  apart from all others;
- an actor handles a message: `handling = received(actor, identity, name_of_actor, name_of_message, letter,
  length)` before, and afterwards `handling.ended(error)`, with None or the exception that goes on its way.
  The handling is a scope of its own;
- an actor begins and ends: `lives(identity, name_of_actor, "started" | "stopped" | "failed", error)`.

`identity` is any str that stays the actor's own. A sender that waits for its answer calls `answered(identity,
letter)` when it has it. None of these functions raises. `actor_of` gives the actor behind whatever users hold
of it (a reference, a proxy), None if `target` is nothing of this library; `mailbox_length` how many messages
wait for it, None if that cannot be told.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import Token
from typing import Any, ClassVar

from pyscope import emitter, probes
from pyscope.events import actors as events
from pyscope.events.scope import SCOPE_BEGIN, SCOPE_END
from pyscope.events.state import Seen
from pyscope.probes.classes import type_name
from pyscope.probes.clients import ClientProbe
from pyscope.probes.exceptions import described

__all__ = [
    "ActorsProbe",
    "Handling",
    "Letter",
    "actor_of",
    "answered",
    "at_message_boundaries",
    "forget_message_boundaries",
    "lives",
    "mailbox_length",
    "received",
    "sent",
]

Look = Callable[[object, str, Seen], None]

_ADAPTERS = {"pykka": "pyscope.probes.actors.pykka"}
MOST_ACTORS = 10_000

_BEGIN, _END = SCOPE_BEGIN.kind, SCOPE_END.kind
_SENT, _RECEIVED, _HANDLED = (
    events.MESSAGE_SENT.kind,
    events.MESSAGE_RECEIVED.kind,
    events.MESSAGE_HANDLED.kind,
)
_UNKNOWN = (0, 0, 0)
"""The letter of a message whose sending was not seen."""

_looks: tuple[Look, ...] = ()
_numbers: dict[str, int] = {}


class ActorsProbe(ClientProbe):
    """Watches the actors of the libraries that the program imports."""

    name = "actors"
    extra = "taskflow"
    adapters: ClassVar[Mapping[str, str]] = _ADAPTERS


Letter = tuple[int, int, int]
"""What travels with a message: its number, the scope that it was sent from, and when (perf_counter_ns)."""


def sent(identity: str, actor: str, message: str, length: int = -1) -> Letter | None:
    """A message is on its way. None while nothing is recorded."""
    if not emitter.active():
        return None
    try:
        letter = emitter.next_id(), emitter.scope.get(), time.perf_counter_ns()
        emitter.emit(
            _SENT,
            letter[0],
            number_of(identity),
            length,
            emitter.intern(message),
            emitter.intern(actor),
            emitter.stack(),
        )
        return letter
    except Exception:
        fault()
        return None


def answered(identity: str, letter: Letter | None) -> None:
    """The sender of a message has its answer."""
    try:
        if letter is not None and emitter.active():
            emitter.emit(events.MESSAGE_ANSWERED.kind, letter[0], number_of(identity))
    except Exception:
        fault()


def received(
    actor: object, identity: str, name: str, message: str, letter: Letter | None, length: int = -1
) -> Handling:
    """An actor begins with a message, in the calling thread or task."""
    handling = Handling(actor, message)
    if emitter.active():
        try:
            handling.begin(name, number_of(identity), letter, length)
        except Exception:
            fault()
    return handling


def lives(identity: str, name: str, what: str, error: BaseException | None = None) -> None:
    """An actor has "started", "stopped" or "failed"."""
    if emitter.active():
        try:
            emitter.emit(
                events.ACTOR.kind,
                number_of(identity),
                emitter.intern(name),
                emitter.intern(what),
                emitter.stack(),
                described(error),
            )
        except Exception:
            fault()


class Handling:
    """A message in hand: its scope, from the begin to the end."""

    __slots__ = ("_actor", "_cpu_ns", "_message", "_name", "_number", "_start_ns", "_token", "scope")

    def __init__(self, actor: object, name: str) -> None:
        self.scope = 0
        self._actor = actor
        self._name = name
        self._token: Token[int] | None = None

    def begin(self, actor: str, number: int, letter: Letter | None, length: int) -> None:
        """Called by `received`."""
        emit, intern = emitter.emit, emitter.intern
        self._start_ns = start = time.perf_counter_ns()
        self._number = number
        message, parent, sent_ns = letter if letter is not None else _UNKNOWN
        self._message = message
        self.scope = scope = emitter.next_id()
        emit(_BEGIN, scope, parent, intern("message"), intern(f"{actor}.{self._name}"))
        self._cpu_ns = time.thread_time_ns()  # after the begin: never more than the scope took
        self._token = emitter.scope.set(scope)
        waited = start - sent_ns if sent_ns else -1
        emit(_RECEIVED, message, number, waited, length, intern(self._name), intern(actor))
        for look in _looks:
            look(self._actor, self._name, Seen.BETWEEN)

    def ended(self, error: BaseException | None) -> None:
        """The message is done with; `error` is what the handler raised."""
        if self._token is None:
            return
        try:
            for look in _looks:
                look(self._actor, self._name, Seen.BOUNDARY)
            emit, intern = emitter.emit, emitter.intern
            cpu = time.thread_time_ns() - self._cpu_ns
            duration = time.perf_counter_ns() - self._start_ns
            if error is None:
                outcome, kind, words = intern("returned"), 0, ""
            else:
                outcome, kind, words = intern("raised"), intern(type_name(type(error))), described(error)
            emit(_HANDLED, self._message, self._number, duration, outcome, words)
            emit(_END, self.scope, duration, cpu, 0, 0, outcome, kind)
        except Exception:
            fault()
        finally:
            token, self._token = self._token, None
            try:
                emitter.scope.reset(token)
            except ValueError:  # ended in another context than it began in
                pass


def number_of(identity: str) -> int:
    """The number of an actor in events."""
    number = _numbers.get(identity)
    if number is None:
        if len(_numbers) >= MOST_ACTORS:
            _numbers.pop(next(iter(_numbers)), None)
        number = _numbers.setdefault(identity, emitter.next_id())
    return number


def actor_of(target: object) -> object | None:
    """The actor behind a reference or proxy, or the actor itself; None for anything else."""
    for adapter in _loaded():
        actor: object | None = adapter.actor_of(target)
        if actor is not None:
            return actor
    return None


def mailbox_length(target: object) -> int | None:
    """How many messages wait for an actor; None for anything else."""
    for adapter in _loaded():
        actor = adapter.actor_of(target)
        if actor is not None:
            length: int | None = adapter.mailbox_length(actor)
            return length
    return None


def _loaded() -> list[Any]:
    return [
        importlib.import_module(adapter) for library, adapter in _ADAPTERS.items() if library in sys.modules
    ]


def at_message_boundaries(look: Look) -> None:
    """Calls `look(actor, message, when)` before and after each message. It must not raise."""
    global _looks
    _looks = (*_looks, look)


def forget_message_boundaries(look: Look) -> None:
    """No longer."""
    global _looks
    _looks = tuple(other for other in _looks if other != look)


def fault() -> None:
    """Counts an error of the probe itself."""
    probe = probes.installed("actors")
    if probe is not None:
        probe.fault()
