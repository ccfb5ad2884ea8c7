"""The circuit breaker: a part of PyScope that keeps failing takes itself out, and says so.

A few faults are counted and the recording goes on. Repeated ones mean that a part does not work here: it is off from
then on, the program is not affected, and the log, a warning and a row of `Trace.losses` say when and why.
"""

from __future__ import annotations

import logging
import signal
import sys
import types
from time import monotonic

from pyscope import emitter
from pyscope.errors import PyScopeWarning
from pyscope.events.faults import PART_OFF
from pyscope.warning import warn

__all__ = ["MOST_FAULTS", "SPAN", "Breaker", "out", "raise_if_of_the_program"]

logger = logging.getLogger(__name__)

MOST_FAULTS = 100
"""So many faults of the recorder within `SPAN` seconds are one too many."""
SPAN = 60.0


class Breaker:
    """Counts faults; `count` is true once, when there have been `most` of them within `SPAN` seconds."""

    def __init__(self, most: int = MOST_FAULTS) -> None:
        self._most = most
        self._since = 0.0
        self._lately = 0

    def count(self) -> bool:
        """One more fault. Whether the part is to be taken out now."""
        now = monotonic()
        if now - self._since > SPAN:
            self._since, self._lately = now, 0
        self._lately += 1
        return self._lately == self._most


def out(part: str, faults: int, detail: str) -> None:
    """Says that a part has been taken out. Never raises."""
    try:
        emitter.emit(PART_OFF.kind, faults, emitter.intern(part), detail)
        message = f"{part} failed {faults} times and has removed itself"
        logger.error("%s (%s); the program is not affected", message, detail)
        try:
            warn(f"{message}; the program is not affected")
        except PyScopeWarning:  # under -W error; nothing of ours is raised into the program
            sys.stderr.write(f"pyscope: {message}\n")
    except Exception:
        return


def recorder_out(faults: int, notes: list[str]) -> None:
    """The native recorder calls this before it takes its hook out."""
    out("the recorder", faults, ", ".join(notes))


def raise_if_of_the_program() -> None:
    """Called while an exception is handled: raises it again if a signal handler of the program raised it in our code.

    Those who time out by a signal must get their exception, wherever it strikes.
    """
    error = sys.exc_info()[1]
    traceback = error.__traceback__ if error is not None else None
    if error is None or traceback is None or traceback.tb_next is None:
        return
    try:
        handlers = _handlers()
    except Exception:
        return
    while traceback is not None:
        if traceback.tb_frame.f_code in handlers:
            raise error
        traceback = traceback.tb_next


def _handlers() -> set[types.CodeType]:
    found = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        code = getattr(getattr(handler, "__func__", handler), "__code__", None)
        if type(code) is types.CodeType:
            found.add(code)
    return found
