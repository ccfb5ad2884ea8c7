"""Pykka's actors: messages by `ActorRef.tell` and `ask`, handled by `Actor._handle_receive`.

Pykka's queue holds envelopes. While the probe is installed, references make envelopes of a class derived from
Pykka's own, which carry the letter; the receiver finds it because reading `envelope.message` notes the
envelope for the thread.
"""

from __future__ import annotations

import functools
import queue
import threading
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pykka  # imported already: this module is for programs that use it
from pykka import _ref
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr

from pyscope.probes import actors
from pyscope.probes.classes import is_a, type_name
from pyscope.probes.patches import Patches

__all__ = ["actor_of", "mailbox_length", "patch"]

_here = threading.local()
"""`to`: the reference that this thread is sending to; `posted`: the letter of what it sent; `read`: the
envelope it read last."""


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches sending, handling, and the begin and end of actors."""
    patches.replace(_ref, "Envelope", _envelope_class)
    patches.replace(library.ActorRef, "tell", functools.partial(_tell, patches))
    patches.replace(library.ActorRef, "ask", functools.partial(_ask, patches))
    patches.replace(library.Actor, "_handle_receive", functools.partial(_handle_receive, patches))
    patches.replace(library.Actor, "_handle_failure", functools.partial(_handle_failure, patches))
    patches.replace(library.ActorRegistry, "register", functools.partial(_registry, patches, "started"))
    patches.replace(library.ActorRegistry, "unregister", functools.partial(_registry, patches, "stopped"))


def actor_of(target: object) -> object | None:
    """The actor of a reference or a proxy, or the actor itself."""
    if is_a(target, pykka.Actor):
        return target
    if is_a(target, pykka.ActorRef):
        held = vars(target)
        return (
            held["_actor_weakref"]() if "_actor_weakref" in held else held.get("_actor")
        )  # before pykka 4.5
    if is_a(target, pykka.ActorProxy):
        return actor_of(object.__getattribute__(target, "actor_ref"))
    return None


def mailbox_length(actor: object) -> int | None:
    """How many envelopes wait; None where the inbox has no `qsize`."""
    length = _length(actor)
    return None if length < 0 else length


def _envelope_class(base: Any) -> Any:
    """A class of envelopes that carry a letter."""
    message_of, answer_of = base.__dict__["message"], base.__dict__["reply_to"]

    class Envelope(base):  # type: ignore[misc]
        __slots__ = ("__weakref__", "letter")

        def __init__(self, message: Any, reply_to: Any = None) -> None:
            reference = getattr(_here, "to", None)
            self.letter = None if reference is None else _posted(reference, message)
            message_of.__set__(self, message)
            answer_of.__set__(self, reply_to)

        @property
        def message(self) -> Any:
            _here.read = weakref.ref(self)
            return message_of.__get__(self)

        @message.setter
        def message(self, value: Any) -> None:
            message_of.__set__(self, value)

        def carries(self, message: Any) -> bool:
            return message_of.__get__(self) is message

    Envelope.__qualname__ = base.__qualname__
    Envelope.__module__ = base.__module__
    return Envelope


def _posted(reference: Any, message: Any) -> actors.Letter | None:
    _here.to = None
    try:
        name = type_name(reference.actor_class)
        letter = actors.sent(reference.actor_urn, name, _name(message), _length(reference))
    except Exception:
        actors.fault()
        return None
    _here.posted = letter
    return letter


def _tell(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def tell(self: Any, message: Any) -> Any:
        _here.to = self if patches.on else None
        try:
            return original(self, message)
        finally:
            _here.to = None

    return tell


def _ask(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def ask(self: Any, message: Any, block: bool = True, timeout: float | None = None) -> Any:
        if not patches.on:
            return original(self, message, block=block, timeout=timeout)
        _here.to, _here.posted = self, None
        try:
            answer = original(self, message, block=False)
        finally:
            _here.to = None
        letter = _here.posted
        if not block:
            return answer
        try:
            value = answer.get(timeout=timeout)
        except Exception as error:
            if not isinstance(error, pykka.Timeout):
                actors.answered(self.actor_urn, letter)
            raise
        actors.answered(self.actor_urn, letter)
        return value

    return ask


def _handle_receive(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _handle_receive(self: Any, message: Any) -> Any:
        if not patches.on:
            return original(self, message)
        handling = _begun(self, message)
        try:
            answer = original(self, message)
        except BaseException as error:
            if handling is not None:
                handling.ended(error)
            raise
        if handling is not None:
            handling.ended(None)
        return answer

    return _handle_receive


def _begun(actor: Any, message: Any) -> actors.Handling | None:
    try:
        note = getattr(_here, "read", None)
        envelope = note() if note is not None else None
        _here.read = None
        letter = envelope.letter if envelope is not None and envelope.carries(message) else None
        return actors.received(
            actor, actor.actor_urn, type_name(type(actor)), _name(message), letter, _length(actor)
        )
    except Exception:
        actors.fault()
        return None


def _handle_failure(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _handle_failure(self: Any, exception_type: Any, exception_value: Any, traceback: Any) -> Any:
        if patches.on:
            try:
                actors.lives(self.actor_urn, type_name(type(self)), "failed", exception_value)
            except Exception:
                actors.fault()
        return original(self, exception_type, exception_value, traceback)

    return _handle_failure


def _registry(patches: Patches, what: str, original: Callable[..., Any]) -> Any:
    @functools.wraps(original)
    def change(actor_ref: Any) -> Any:
        if patches.on:
            try:
                actors.lives(actor_ref.actor_urn, type_name(actor_ref.actor_class), what)
            except Exception:
                actors.fault()
        return original(actor_ref)

    return staticmethod(change)


def _name(message: object) -> str:
    """A proxy's call by its path; any other message by its type."""
    kind = type(message)
    if kind is ProxyCall or kind is ProxyGetAttr or kind is ProxySetAttr:
        return ".".join(message.attr_path)  # type: ignore[attr-defined]
    name = type_name(kind)
    return name.lstrip("_") if name[0] == "_" else name


def _length(holder: Any) -> int:
    try:
        inbox = holder.actor_inbox
        if type(inbox) is queue.Queue:
            return len(inbox.queue)  # as qsize, which would take the lock
        return int(inbox.qsize())
    except Exception:  # an inbox of another kind
        return -1
