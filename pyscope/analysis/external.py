"""Calls to other services, each with all its attempts, however they came to be repeated.

A call is repeated by tenacity or stamina (their groups, outermost first), by the client itself (urllib3,
redis: its chain), or by a loop written by hand: the same request from the same call site to the same peer, in
the same call of the program or in calls that it made in the same way, once the attempt before has failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pyscope.analysis.call_sites import call_site
from pyscope.analysis.sends import OUTCOMES, Retry, Send, Sends
from pyscope.events.external import RETRY_BEGIN, RETRY_END, RETRY_WAIT, AttemptOutcome
from pyscope.findings import Attempt, ExternalCall

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["find"]

_OPEN = "open"
_DEEPEST = 32  # calls between a loop and what it repeats
_CHAINED = ("httpx", "httpx2", "urllib3", "redis", "valkey")  # clients that repeat by themselves


@dataclass(slots=True)
class _Logical:
    """One call with its attempts so far."""

    sends: list[Send]
    repeated_by: str = ""


def find(trace: Trace, *, all_calls: bool = True) -> list[ExternalCall]:
    """All calls to other services, in order of their begin.

    A call is one request, mail, command or file operation, with every attempt to get it done. Something that
    was retried without any such attempt seen in it is a call of the service "retry", named after the
    function. `all_calls` false: without those that succeeded at once.
    """
    retries = _Retries(trace)
    calls: list[_Logical] = []
    grouped = _Grouped(retries, calls)
    loops = _Loops(trace, calls)
    chains: dict[int, _Logical] = {}
    sends = Sends(trace)
    for send in _mails(list(sends.at(np.flatnonzero(~sends.plain)))):
        root = retries.root(send.retry)
        logical = chains.get(send.chain) if send.chain else None
        if logical is not None:
            logical.sends.append(send)
            logical.repeated_by = logical.repeated_by or send.client
        elif root[0]:
            logical = grouped.place(send, root)
        else:
            logical = loops.place(send)
        if send.client in _CHAINED:
            chains[send.chain or send.id] = logical
    names = _Names(trace)
    if all_calls:
        found = [_alone(names, send) for send in sends.at(np.flatnonzero(sends.plain))]
    else:
        found = []
        calls = [each for each in calls if len(each.sends) > 1 or each.sends[0].outcome != "succeeded"]
    found += [_call(names, logical, retries) for logical in calls]
    found += retries.without_sends(trace, grouped.seen)
    return sorted(found, key=lambda call: call.start_ns)


def _mails(sends: list[Send]) -> list[Send]:
    """A connection to a mail server and the mail that follows it are one attempt to send that mail."""
    kept = []
    connected: dict[tuple[int, int, str, Retry], Send] = {}
    for send in sends:
        if send.service == "smtp":
            where = send.thread, send.context, send.peer, send.retry
            if send.operation == "CONNECT":
                if send.outcome == "succeeded":
                    connected[where] = send
                else:
                    send.operation = "MAIL"  # what the connection was for
            elif where in connected:
                connection = connected.pop(where)
                connection.operation, connection.fingerprint, connection.shown = (
                    "MAIL",
                    send.fingerprint,
                    send.stack,
                )
                connection.end_ns, connection.outcome = send.end_ns, send.outcome
                connection.status, connection.error = send.status, send.error
                continue
        kept.append(send)
    return kept


def _lists(events: Any, *names: str) -> Iterable[list[Any]]:
    return (events[name].tolist() for name in names)


class _Retries:
    """What tenacity and stamina did."""

    def __init__(self, trace: Trace) -> None:
        self.begins = list(trace.probe_events(RETRY_BEGIN).records())
        self.outer: dict[int, Retry] = {row.group: (row.outer, row.outer_number) for row in self.begins}
        self.library: dict[int, str] = {row.group: row.library for row in self.begins}
        self.ends: dict[Retry, Any] = {
            (row.group, row.number): row for row in trace.probe_events(RETRY_END).records()
        }
        self.waits: dict[Retry, int] = {
            (group, number): backoff
            for group, number, backoff in zip(
                *_lists(trace.probe_events(RETRY_WAIT), "group", "number", "backoff_ns"), strict=True
            )
        }

    def root(self, retry: Retry) -> Retry:
        """The outermost retry attempt around one."""
        for _ in range(_DEEPEST):
            outer = self.outer.get(retry[0], (0, 0))
            if not outer[0]:
                break
            retry = outer
        return retry

    def path(self, retry: Retry) -> Iterable[Retry]:
        """A retry attempt and those around it, innermost first."""
        for _ in range(_DEEPEST):
            if not retry[0]:
                return
            yield retry
            retry = self.outer.get(retry[0], (0, 0))

    def timed_out(self, retry: Retry) -> bool:
        """Whether the attempt around ended with a timeout."""
        return any(
            one in self.ends and self.ends[one].outcome == AttemptOutcome.TIMED_OUT
            for one in self.path(retry)
        )

    def wait(self, before: Retry, after: Retry) -> int | None:
        """The wait that was told between two attempts."""
        numbers = dict(self.path(after))
        for group, number in self.path(before):
            if numbers.get(group, number) > number:
                return self.waits.get((group, number))
        return None

    def without_sends(self, trace: Trace, seen: set[int]) -> list[ExternalCall]:
        """Calls of what was retried, or failed in the end, with no attempt of a known client in it."""
        groups: dict[int, list[Any]] = {}
        for row in self.begins:
            if not row.outer and row.group not in seen:
                groups.setdefault(row.group, []).append(row)
        found = []
        for group, rows in groups.items():
            attempts = [
                self._attempt(trace, row, rows[at - 1] if at else None) for at, row in enumerate(rows)
            ]
            if len(attempts) == 1 and attempts[0].outcome == "succeeded":
                continue
            if (group, rows[-1].number) in self.waits and attempts[-1].outcome == "succeeded":
                attempts[-1] = _replaced(attempts[-1], outcome="failed")
            first = rows[0]
            place = call_site(first.stack)
            found.append(
                ExternalCall(
                    service="retry",
                    operation=first.name or place.function,
                    peer="",
                    attempts=tuple(attempts),
                    timed_out=any(attempt.outcome == "timed_out" for attempt in attempts),
                    retries=len(attempts) - 1,
                    outcome=attempts[-1].outcome,
                    start_ns=first.time_ns,
                    duration_ns=attempts[-1].start_ns + attempts[-1].duration_ns - first.time_ns,
                    client="",
                    repeated_by=first.library,
                    call_site=place,
                    stack=first.stack,
                    scope=first.scope,
                    thread=trace.threads[first.thread].name,
                    context=trace.contexts[first.context].name if first.context else None,
                    call=first.call,
                )
            )
        return found

    def _attempt(self, trace: Trace, row: Any, before: Any) -> Attempt:
        end = self.ends.get((row.group, row.number))
        duration = end.duration_ns if end else trace.processes[row.process].end_ns - row.time_ns
        outcome = OUTCOMES.get(end.outcome, "failed") if end else _OPEN
        error = end.error if end else ""
        if outcome == "succeeded" and (row.group, row.number) in self.waits:
            outcome, error = "failed", "the result was not accepted"
        backoff = self.waits.get((row.group, before.number), 0) if before else 0
        return Attempt(row.time_ns, duration, outcome, error, backoff, 0, 0)


class _Grouped:
    """Attempts inside retries: the nth call of one name in each retry attempt is the same call."""

    def __init__(self, retries: _Retries, calls: list[_Logical]) -> None:
        self._retries = retries
        self._calls = calls
        self._named: dict[tuple[int, str, str, str], list[_Logical]] = {}
        self._at: dict[
            tuple[int, str, str, str], tuple[int, int]
        ] = {}  # number of the attempt, position in it
        self.seen: set[int] = set()  # root groups with sends

    def place(self, send: Send, root: Retry) -> _Logical:
        group, number = root
        self.seen.add(group)
        key = (group, *_name(send))
        named = self._named.setdefault(key, [])
        of, position = self._at.get(key, (0, -1))
        if of != number:
            position = 0
        elif not _continues(named[position].sends[-1], send):
            position += 1
        self._at[key] = number, position
        if position == len(named):
            named.append(_Logical([]))
            self._calls.append(named[position])
        logical = named[position]
        logical.repeated_by = self._retries.library.get(group, "")
        logical.sends.append(send)
        return logical


def _continues(last: Send, send: Send) -> bool:
    """Whether a further send in the same retry attempt is about the same call."""
    return last.failed and last.end_ns <= send.start_ns


class _Loops:
    """Attempts outside retries: those of one loop written by hand are one call."""

    def __init__(self, trace: Trace, calls: list[_Logical]) -> None:
        self._trace = trace
        self._calls = calls
        self._failed: dict[tuple[Any, ...], _Logical] = {}

    def place(self, send: Send) -> _Logical:
        # A mail whose connection failed is not known.
        key = (send.thread, send.stack, *_name(send), 0 if send.service == "smtp" else send.fingerprint)
        logical = self._failed.get(key)
        last = logical.sends[-1] if logical is not None else None  # the client itself may have repeated
        if logical is None or last is None or not last.failed or not self._repeats(last, send):
            logical = _Logical([])
            self._calls.append(logical)
        else:
            logical.repeated_by = "loop"
        logical.sends.append(send)
        if send.failed:
            self._failed[key] = logical
        else:
            self._failed.pop(key, None)
        return logical

    def _repeats(self, last: Send, send: Send) -> bool:
        if last.end_ns > send.start_ns:
            return False
        if last.fingerprint and send.fingerprint and last.fingerprint != send.fingerprint:
            return False
        same_caller, to_root = self._same_way(last.call, send.call)
        if last.context == send.context:
            return same_caller
        # asyncio.wait_for makes a task of each attempt, up to Python 3.11. Of whom, the trace does not say.
        contexts = self._trace.contexts
        return (
            contexts[last.context].kind == contexts[send.context].kind == "task"
            and last.scope == send.scope
            and to_root
            and (send.call < 0 or send.scope != 0 or last.outcome in ("cancelled", "timed_out"))
        )

    def _same_way(self, a: int, b: int) -> tuple[bool, bool]:
        """Whether two calls are one or were made in the same way by one; and whether so from the root on."""
        parent, function = self._trace.calls["parent"], self._trace.calls["function"]
        for _ in range(_DEEPEST):
            if a == b:
                return True, True
            if a < 0 or b < 0 or function[a] != function[b]:
                break
            a, b = int(parent[a]), int(parent[b])
            if a < 0 and b < 0:
                return False, True
        return False, False


def _name(send: Send) -> tuple[str, str, str]:
    """What attempts of one call have in common."""
    return send.service, send.operation, send.peer


class _Names:
    """Names and stacks of a trace, each made once."""

    def __init__(self, trace: Trace) -> None:
        self.stack = trace.stack
        self.threads = [thread.name for thread in trace.threads]
        self._contexts = trace.contexts
        self._known: dict[int, str | None] = {0: None}

    def context(self, number: int) -> str | None:
        """The name of a task or greenlet."""
        if number not in self._known:
            self._known[number] = self._contexts[number].name
        return self._known[number]


def _alone(names: _Names, send: Send) -> ExternalCall:
    """A call that succeeded at once."""
    attempt = Attempt(
        send.start_ns, send.end_ns - send.start_ns, send.outcome, "", 0, send.status, send.timeout_ns
    )
    return _external_call(names, [send], (attempt,), "")


def _call(names: _Names, logical: _Logical, retries: _Retries) -> ExternalCall:
    sends = logical.sends
    last = sends[-1]
    for at, send in enumerate(sends):
        # A program that goes on after a cancellation had set itself a time limit.
        if send.outcome == "cancelled" and (
            send is not last or retries.timed_out(send.retry) or (at and sends[at - 1].outcome == "timed_out")
        ):
            send.outcome = "timed_out"
    attempts = []
    for at, send in enumerate(sends):
        backoff = 0
        if at:
            told = retries.wait(sends[at - 1].retry, send.retry)
            backoff = max(0, send.start_ns - sends[at - 1].end_ns) if told is None else told
        attempts.append(
            Attempt(
                send.start_ns,
                max(0, send.end_ns - send.start_ns),
                send.outcome,
                send.error,
                backoff,
                send.status,
                send.timeout_ns,
            )
        )
    return _external_call(names, sends, tuple(attempts), logical.repeated_by if len(sends) > 1 else "")


def _external_call(
    names: _Names, sends: list[Send], attempts: tuple[Attempt, ...], repeated_by: str
) -> ExternalCall:
    first, last = sends[0], sends[-1]
    stack = names.stack(first.shown or first.stack)
    return ExternalCall(
        first.service,
        first.operation,
        first.peer,
        attempts,
        any(attempt.outcome == "timed_out" for attempt in attempts),
        len(sends) - 1,
        last.outcome,
        first.start_ns,
        max(0, last.end_ns - first.start_ns),
        first.client,
        repeated_by,
        call_site(stack),
        stack,
        first.scope,
        names.threads[first.thread],
        names.context(first.context),
        first.call,
    )


def _replaced(attempt: Attempt, **changes: Any) -> Attempt:
    import dataclasses

    return dataclasses.replace(attempt, **changes)
