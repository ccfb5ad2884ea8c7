"""The actor's message that a slow call waited for: how long it stood in the mailbox, and how long it was handled."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pyscope.events.actors import MESSAGE_HANDLED, MESSAGE_RECEIVED, MESSAGE_SENT

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["Asked", "waited_for"]

_MOST_OF_IT = 0.5  # of the call: so much of it lies between the message and its answer
_AT_ONCE = 0.1  # of the call: so close to the end of the handling it ends
_AT_ONCE_NS = 5_000_000
_DEEPEST = 8  # calls between the one that waits and the one that sends


class Asked(NamedTuple):
    """A message and what became of it, in nanoseconds. `waited_ns`: in the mailbox."""

    actor: str
    message: str
    waited_ns: int
    handled_ns: int


def waited_for(trace: Trace, row: int) -> Asked | None:
    """The message that a call sent, and with whose answer it ended; None where there is none.

    Who sends and goes on with something else does not end as the message has been handled.
    """
    calls = trace.calls
    start = int(calls["start_ns"][row])
    duration = int(calls["duration_ns"][row])
    sent, handled = trace.probe_events(MESSAGE_SENT), trace.probe_events(MESSAGE_HANDLED)
    if not len(sent) or not len(handled):
        return None
    end, times = start + duration, handled["time_ns"]
    # An actor that answers within its handler is done with it a little later than who waited.
    soon = (times > start) & (np.abs(end - times) <= max(_AT_ONCE_NS, duration * _AT_ONCE))
    candidates = np.flatnonzero(
        (sent["time_ns"] >= start) & np.isin(sent["message"], handled["message"][soon])
    )
    for at in candidates.tolist():
        message = int(sent["message"][at])
        answer = int(times[soon & (handled["message"] == message)][-1])
        if answer - int(sent["time_ns"][at]) >= _MOST_OF_IT * duration and _within(
            trace, int(sent["call"][at]), row
        ):
            return _asked(trace, at, message)
    return None


def _within(trace: Trace, inner: int, outer: int) -> bool:
    parent = trace.calls["parent"]
    for _ in range(_DEEPEST):
        if inner == outer:
            return True
        if inner < 0:
            return False
        inner = int(parent[inner])
    return False


def _asked(trace: Trace, at: int, message: int) -> Asked:
    sent, received = trace.probe_events(MESSAGE_SENT), trace.probe_events(MESSAGE_RECEIVED)
    handled = trace.probe_events(MESSAGE_HANDLED)
    waits = received["waited_ns"][received["message"] == message]
    strings = trace.strings
    return Asked(
        actor=strings[int(sent["actor_name"][at])],
        message=strings[int(sent["name"][at])],
        waited_ns=max(0, int(waits[-1])) if len(waits) else 0,
        handled_ns=int(handled["duration_ns"][handled["message"] == message][-1]),
    )
