"""What a page asks for: each question by its name, answered from what is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pyscope.live.finished import Finished
from pyscope.live.following import Following
from pyscope.views import flame, functions, queries, waterfall
from pyscope.views.values import ms

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


def _trace(
    feed: Feed, from_ms: float | None = None, to_ms: float | None = None
) -> tuple[Trace, float | None]:
    """The whole trace of a finished recording, or what is kept of a living one between two times; and since when it
    holds all there was, None if from the begin."""
    start = 0 if from_ms is None else int(from_ms * 1e6)
    end = 1 << 62 if to_ms is None else int(to_ms * 1e6)

    def read(shown: Shown) -> Callable[[], tuple[Trace, float | None]]:
        if shown is None:
            raise Refused(409, "nothing is being recorded")
        if isinstance(shown, Finished):
            return lambda: (shown.trace, None)
        kept = shown.snapshot(start, end)
        return lambda: (kept.trace(), ms(kept.since_ns) if kept.since_ns else None)

    return feed.read(read)()


def _request(feed: Feed, identity: str) -> Any:
    since_ns = 0

    def read(shown: Shown) -> Callable[[], Trace] | None:
        nonlocal since_ns
        if isinstance(shown, Following):
            row = shown.request(int(identity), time.time_ns())
            if row is None:
                return None
            kept = shown.snapshot(row[1] - _AROUND_NS, row[2] + _AROUND_NS)
            since_ns = kept.since_ns if kept.since_ns > row[1] else 0
            return kept.trace
        return None if shown is None else lambda: shown.trace

    trace = feed.read(read)
    found = None if trace is None else waterfall.of_request(trace(), identity)
    if found is None:
        raise Refused(404, "there is no such request, or it is not kept any more")
    return found | {"since_ms": ms(since_ns)} if since_ns else found


def _flame(feed: Feed, from_ms: float | None, to_ms: float | None) -> Any:
    trace, since_ms = _trace(feed, from_ms, to_ms)
    found = flame.tree(trace, from_ms, to_ms)
    if since_ms is not None:
        window = found["window"]
        window["from_ms"] = max(window["from_ms"], min(since_ms, window["to_ms"]))
    return found


def _functions(feed: Feed, order: str, word: str, most: int) -> Any:
    trace, since_ms = _trace(feed)
    return functions.table(trace, order, word, most) | {"since_ms": since_ms}


def _queries(feed: Feed) -> Any:
    trace, since_ms = _trace(feed)
    return queries.table(trace) | {"since_ms": since_ms}


QUESTIONS: Mapping[str, Callable[..., Any]] = {
    "request": _request,
    "flame": _flame,
    "functions": _functions,
    "queries": _queries,
}
"""Each takes the feed and its own arguments, and returns values ready for JSON. They raise Refused, or PyScopeError."""
