"""Dramatiq: each message that a worker processes is a scope of kind "job" with the actor's name.

It lasts from where the middleware has let the message pass to where the middleware is told of its end, so what stores
the result or sends the message again belongs to it. One that is skipped is none; `Retry` and rate limits are no
errors.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from types import ModuleType
from typing import Any, ClassVar

from pyscope import emitter
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches
from pyscope.probes.scope import Scope

__all__ = ["DramatiqProbe", "patch"]

_ENDS = ("process_message", "skip_message")  # an actor may skip its message itself


class DramatiqProbe(ClientProbe):
    """Watches the messages that this process's workers process."""

    name = "dramatiq"
    adapters: ClassVar = {"dramatiq.broker": "pyscope.probes.dramatiq"}


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches what brokers tell their middleware."""
    errors = importlib.import_module("dramatiq.errors")
    no_errors = (errors.Retry, errors.RateLimitExceeded)
    running: dict[int, Scope] = {}  # by the address of the message

    def before(original: Any) -> Any:
        @functools.wraps(original)
        def emit_before(self: Any, signal: str, *args: Any, **kwargs: Any) -> None:
            original(self, signal, *args, **kwargs)
            if signal == "process_message" and patches.on and emitter.active():
                run = _begun(self, args[0]) if args else None
                if run is not None:
                    running[id(args[0])] = run

        return emit_before

    def after(original: Any) -> Any:
        @functools.wraps(original)
        def emit_after(self: Any, signal: str, *args: Any, **kwargs: Any) -> None:
            run = running.pop(id(args[0]), None) if signal in _ENDS and args else None
            if run is None:
                original(self, signal, *args, **kwargs)
                return
            try:
                original(self, signal, *args, **kwargs)
            finally:
                error = kwargs.get("exception")
                run.leave(None if isinstance(error, no_errors) else error)

        return emit_after

    patches.replace(library.Broker, "emit_before", before)
    patches.replace(library.Broker, "emit_after", after)


def _begun(broker: Any, message: Any) -> Scope | None:
    """The scope of a message that is processed now; None for one that a middleware has failed already."""
    try:
        if message.failed:
            return None
        actor: Any = broker.actors.get(message.actor_name)
        elsewhere = inspect.iscoroutinefunction(inspect.unwrap(actor.fn))
        run = Scope("job", str(message.actor_name)).enter()
        if elsewhere:  # runs in another thread
            run.forget_cpu()
        return run
    except Exception:
        fault("dramatiq")
        return None
