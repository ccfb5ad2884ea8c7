"""What a page asks for: each question by its name, answered from what is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pyscope.live.finished import Finished
from pyscope.live.following import Following
from pyscope.views import flame, functions, queries, waterfall

if TYPE_CHECKING:
    from pyscope.live.feed import Feed
    from pyscope.trace import Trace

__all__ = ["QUESTIONS", "Refused"]

# The recorder's clock is known ever more precisely: times of before are a little off.
_AROUND_NS = 100_000_000

Shown = Following | Finished | None


class Refused(Exception):
    """Answered as `{"error": text}` with a status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _trace(feed: Feed, from_ms: float | None = None, to_ms: float | None = None) -> Trace:
    """The whole trace of a finished recording, or what is kept of a living one between two times."""
    start = 0 if from_ms is None else int(from_ms * 1e6)
    end = 1 << 62 if to_ms is None else int(to_ms * 1e6)

    def read(shown: Shown) -> Callable[[], Trace]:
        if shown is None:
            raise Refused(409, "nothing is being recorded")
        if isinstance(shown, Finished):
            return lambda: shown.trace
        return shown.snapshot(start, end).trace

    return feed.read(read)()


def _request(feed: Feed, identity: str) -> Any:
    def read(shown: Shown) -> Callable[[], Trace] | None:
        if isinstance(shown, Following):
            row = shown.request(int(identity), time.time_ns())
            if row is None:
                return None
            return shown.snapshot(row[1] - _AROUND_NS, row[2] + _AROUND_NS).trace
        return None if shown is None else lambda: shown.trace

    trace = feed.read(read)
    found = None if trace is None else waterfall.of_request(trace(), identity)
    if found is None:
        raise Refused(404, "there is no such request, or it is not kept any more")
    return found


def _flame(feed: Feed, from_ms: float | None, to_ms: float | None) -> Any:
    return flame.tree(_trace(feed, from_ms, to_ms), from_ms, to_ms)


def _functions(feed: Feed, order: str, word: str, most: int) -> Any:
    return functions.table(_trace(feed), order, word, most)


def _queries(feed: Feed) -> Any:
    return queries.table(_trace(feed))


QUESTIONS: Mapping[str, Callable[..., Any]] = {
    "request": _request,
    "flame": _flame,
    "functions": _functions,
    "queries": _queries,
}
"""Each takes the feed and its own arguments, and returns values ready for JSON. They raise Refused, or PyScopeError."""
