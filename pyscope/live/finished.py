"""A recording that nothing is added to any more: loaded once, shown whole."""

from __future__ import annotations

import os
from typing import Any

from pyscope.analysis import external as external_calls
from pyscope.errors import PyScopeError
from pyscope.live.hub import Message
from pyscope.live.source import Located, Source
from pyscope.trace import Trace, load
from pyscope.views import external, findings, losses, metrics, requests, source, states, supervision

__all__ = ["Finished"]

_REQUESTS = 2000


class Finished:
    """The whole trace of a recording. Raises RecordingError where it cannot be read."""

    def __init__(self, found: Source, located: Located) -> None:
        self.path = located.path
        self._file = _identity(located.path)
        self.trace: Trace = load(located.path)
        self.described: dict[str, Any] = source.source(self.trace, kind=found.kind, name=found.name)
        self._state: list[Message] | None = None

    def replaced(self, found: Source) -> bool:
        """Whether the source has another recording by now."""
        try:
            located = found.locate()
        except PyScopeError:
            return False  # there is none: what was loaded stays
        return located is not None and _identity(located.path) not in (self._file, None)

    def state(self) -> list[Message]:
        """Everything that is shown; made once, which may take seconds for a large recording."""
        if self._state is None:
            trace = self.trace
            calls = external_calls.find(trace)
            found = findings.find(trace, calls)
            by_scope, shown = findings.by_scope(found), findings.message(trace, found=found)
            wanted = requests.notable(trace, _REQUESTS, by_scope, findings.linked(shown))
            self._state = [
                requests.message(trace, _REQUESTS, findings=by_scope, rows=wanted),
                metrics.message(trace),
                losses.message(trace),
                shown,
                states.message(trace) | {"total": states.count(trace)},
                external.message(trace, limit=500, found=calls) | {"total": len(calls)},
                supervision.message(trace),
            ]
        return self._state


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
