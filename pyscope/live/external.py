"""Calls to other services as they happen, each with its attempts.

What belongs together is told as `pyscope.analysis.external` tells it from a whole trace, but for the calls around an
attempt, which are not known yet: a loop written by hand is known by its request, its place and its scope.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pyscope.analysis.sends import FIRST_REFUSAL, OUTCOMES
from pyscope.events.external import (
    EXTERNAL_ANSWER,
    EXTERNAL_BEGIN,
    EXTERNAL_END,
    RETRY_BEGIN,
    RETRY_END,
    RETRY_WAIT,
    AttemptOutcome,
)
from pyscope.findings import Attempt, ExternalCall
from pyscope.live.slices import Slice
from pyscope.rows import Location
from pyscope.views import external

__all__ = ["ExternalTable"]

MOST = 500
_MOST_RETRIES = 5000
_MOST_ATTEMPTS = 100
_FAR_NS = 120_000_000_000  # between the attempts of one call, at most
_CHAINED = ("httpx", "httpx2", "urllib3", "redis", "valkey")
_NO_PLACE = Location("", 0, "")
_DEEPEST = 32


@dataclass(slots=True)
class _Attempt:
    id: int
    start_ns: int
    timeout_ns: int
    retry: tuple[int, int]
    connecting: bool = False  # of a mail server: the mail that follows is the same attempt
    duration_ns: int = 0
    outcome: str = "open"
    status: int = 0
    error: str = ""
    backoff_ns: int = 0

    @property
    def failed(self) -> bool:
        return self.outcome not in ("succeeded", "open")


@dataclass(slots=True)
class _Call:
    id: int
    service: str
    operation: str
    peer: str
    client: str
    stack: tuple[Location, ...]
    scope: int
    where: tuple[Any, ...]  # what the next attempt of a loop has in common with this
    fingerprint: int
    flow: tuple[Any, ...]  # thread and context of the last attempt
    repeated_by: str = ""
    attempts: list[_Attempt] = field(default_factory=list)

    def row(self, now_ns: int) -> dict[str, Any]:
        """As in a message of type "external"."""
        first, last = self.attempts[0], self.attempts[-1]
        attempts = tuple(
            Attempt(
                one.start_ns,
                one.duration_ns if one.outcome != "open" else max(0, now_ns - one.start_ns),
                one.outcome,
                one.error,
                one.backoff_ns,
                one.status,
                one.timeout_ns,
            )
            for one in self.attempts
        )
        found = ExternalCall(
            self.service,
            self.operation,
            self.peer,
            attempts,
            any(one.outcome == "timed_out" for one in self.attempts),
            len(attempts) - 1,
            last.outcome,
            first.start_ns,
            max(0, last.start_ns + attempts[-1].duration_ns - first.start_ns),
            self.client,
            self.repeated_by if len(attempts) > 1 else "",
            self.stack[0] if self.stack else _NO_PLACE,
            self.stack,
            self.scope,
        )
        # Not the view's id: that rests on the clock, which a living recording reads ever more precisely.
        return {**external.row(found), "id": str(self.id)}


class ExternalTable:
    """The last calls. Ids of calls that changed are gathered until `changes` is called."""

    def __init__(self) -> None:
        self._calls: OrderedDict[int, _Call] = OrderedDict()
        self._by_attempt: dict[int, int] = {}  # the call of an attempt, or of the chain that it heads
        self._by_retry: OrderedDict[tuple[Any, ...], int] = OrderedDict()
        self._last_failed: OrderedDict[tuple[Any, ...], int] = OrderedDict()
        self._outer: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._library: dict[int, str] = {}
        self._waits: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._changed: dict[int, None] = {}

    def take(self, news: Slice) -> None:
        """Takes the events of a slice."""
        for event in news.probe_events(RETRY_BEGIN).records():
            self._outer[event.group] = event.outer, event.outer_number
            self._library[event.group] = event.library
        for event in news.probe_events(RETRY_WAIT).records():
            self._waits[event.group, event.number] = event.backoff_ns
        for event in _in_order(news):
            if hasattr(event, "peer"):
                self._begin(news, event)
            elif hasattr(event, "outcome"):
                self._end(event)
            else:
                self._answer(event)
        for event in news.probe_events(RETRY_END).records():
            if event.outcome == AttemptOutcome.TIMED_OUT:
                self._timed_out((event.group, event.number))
        self._forget()

    def changes(self, now_ns: int) -> list[dict[str, Any]]:
        """The rows that changed since the last call."""
        changed, self._changed = self._changed, {}
        return [self._calls[identity].row(now_ns) for identity in changed if identity in self._calls]

    def all(self, now_ns: int) -> list[dict[str, Any]]:
        """All rows."""
        return [call.row(now_ns) for call in self._calls.values()]

    # attempts

    def _begin(self, news: Slice, event: Any) -> None:
        thread = news.threads[event.thread]
        context = news.contexts.name(event.context)
        flow = thread.process, thread.os_tid, context, event.scope
        attempt = _Attempt(event.attempt, event.time_ns, event.timeout_ns, (event.group, event.number))
        call = self._continued(event, attempt, flow)
        if call is None:
            smtp = event.service == "smtp"
            attempt.connecting = smtp and event.operation == "CONNECT"
            operation = "MAIL" if attempt.connecting else event.operation
            call = _Call(
                event.attempt, event.service, operation, event.peer, event.client, event.stack, event.scope,
                self._where(event, operation), event.fingerprint, flow,
            )  # fmt: skip
            joined = self._joined(call, event)
            if joined is None:
                self._calls[call.id] = call
            else:
                call = joined
            self._add(call, attempt)
        call.flow = flow
        self._by_attempt[event.attempt] = call.id
        root = self._root((event.group, event.number))
        if root[0]:
            self._by_retry[root[0], event.service, call.operation, event.peer] = call.id
            call.repeated_by = call.repeated_by or self._library.get(root[0], "")
        self._changed[call.id] = None

    def _continued(self, event: Any, attempt: _Attempt, flow: tuple[Any, ...]) -> _Call | None:
        """The call whose connection to a mail server this mail goes through: it is the same attempt."""
        if event.service != "smtp" or event.operation == "CONNECT":
            return None
        for call in reversed(self._calls.values()):
            last = call.attempts[-1]
            same = call.service == "smtp" and call.flow == flow and call.peer == event.peer
            if same and last.connecting and last.outcome == "succeeded" and last.retry == attempt.retry:
                last.id, last.outcome, last.connecting = event.attempt, "open", False
                call.stack, call.fingerprint = event.stack or call.stack, event.fingerprint
                return call
        return None

    def _joined(self, call: _Call, event: Any) -> _Call | None:
        """The call that an attempt goes on with."""
        found = self._by_attempt.get(event.chain, 0) if event.chain else 0
        if found in self._calls:
            self._calls[found].repeated_by = self._calls[found].repeated_by or event.client
            return self._calls[found]
        root = self._root((event.group, event.number))
        if root[0]:
            return self._calls.get(
                self._by_retry.get((root[0], event.service, call.operation, event.peer), 0)
            )
        before = self._calls.get(self._last_failed.get(call.where, 0))
        if before is None:
            return None
        last = before.attempts[-1]
        differs = before.fingerprint and event.fingerprint and before.fingerprint != event.fingerprint
        if not last.failed or differs or not event.scope:
            return None
        if not 0 <= event.time_ns - (last.start_ns + last.duration_ns) <= _FAR_NS:
            return None
        before.repeated_by = "loop"
        return before

    def _add(self, call: _Call, attempt: _Attempt) -> None:
        if call.attempts:
            last = call.attempts[-1]
            if last.outcome == "cancelled":
                last.outcome = "timed_out"  # a program that goes on after it had set itself a time limit
            told = self._wait_between(last.retry, attempt.retry)
            pause = max(0, attempt.start_ns - last.start_ns - last.duration_ns)
            attempt.backoff_ns = pause if told is None else told
        if len(call.attempts) < _MOST_ATTEMPTS:
            call.attempts.append(attempt)

    def _end(self, event: Any) -> None:
        call = self._calls.get(self._by_attempt.get(event.attempt, 0))
        if call is None:
            return
        for attempt in reversed(call.attempts):
            if attempt.id == event.attempt:
                attempt.duration_ns = max(0, event.time_ns - attempt.start_ns)
                attempt.outcome = OUTCOMES.get(event.outcome, "failed")
                attempt.status, attempt.error = event.status or attempt.status, event.error
                self._settled(call, attempt)
                return

    def _answer(self, event: Any) -> None:
        """Whoever has the answer may leave its body: that is no failure."""
        call = self._calls.get(self._by_attempt.get(event.attempt, 0))
        attempt = call.attempts[-1] if call is not None else None
        if call is None or attempt is None or attempt.id != event.attempt or attempt.outcome != "open":
            return
        refused = call.service == "http" and event.status >= FIRST_REFUSAL
        attempt.status = event.status
        attempt.duration_ns = max(0, event.time_ns - attempt.start_ns)
        attempt.outcome = "failed" if refused else "succeeded"
        attempt.error = f"HTTP {event.status}" if refused else ""
        self._settled(call, attempt)

    def _settled(self, call: _Call, attempt: _Attempt) -> None:
        self._changed[call.id] = None
        if attempt.failed:
            self._last_failed[call.where] = call.id
        else:
            self._last_failed.pop(call.where, None)
        if call.client not in _CHAINED and not attempt.connecting:
            self._by_attempt.pop(attempt.id, None)

    def _timed_out(self, retry: tuple[int, int]) -> None:
        for call in reversed(self._calls.values()):
            last = call.attempts[-1]
            if last.outcome == "cancelled" and retry in self._path(last.retry):
                last.outcome = "timed_out"
                self._changed[call.id] = None
                return

    # retries

    def _where(self, event: Any, operation: str) -> tuple[Any, ...]:
        return event.scope, event.service, operation, event.peer, event.stack[:1]

    def _path(self, retry: tuple[int, int]) -> Iterator[tuple[int, int]]:
        for _ in range(_DEEPEST):
            if not retry[0]:
                return
            yield retry
            retry = self._outer.get(retry[0], (0, 0))

    def _root(self, retry: tuple[int, int]) -> tuple[int, int]:
        path = list(self._path(retry))
        return path[-1] if path else (0, 0)

    def _wait_between(self, before: tuple[int, int], after: tuple[int, int]) -> int | None:
        numbers = dict(self._path(after))
        for group, number in self._path(before):
            if numbers.get(group, number) > number:
                return self._waits.get((group, number))
        return None

    def _forget(self) -> None:
        while len(self._calls) > MOST:
            _, old = self._calls.popitem(last=False)
            for attempt in old.attempts:
                self._by_attempt.pop(attempt.id, None)
            self._by_attempt.pop(old.id, None)
        tables: tuple[OrderedDict[Any, Any], ...] = (
            self._by_retry,
            self._last_failed,
            self._outer,
            self._waits,
        )
        for table in tables:
            while len(table) > _MOST_RETRIES:
                table.popitem(last=False)
        if len(self._library) > 2 * _MOST_RETRIES:
            self._library = {group: name for group, name in self._library.items() if group in self._outer}


def _in_order(news: Slice) -> list[Any]:
    """Begins, answers and ends of attempts, in order of time; a begin before what has the same time."""
    events = [
        *news.probe_events(EXTERNAL_BEGIN).records(),
        *news.probe_events(EXTERNAL_ANSWER).records(),
        *news.probe_events(EXTERNAL_END).records(),
    ]
    return sorted(events, key=lambda event: event.time_ns)
