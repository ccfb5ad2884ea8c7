"""Calls to other services, each with its attempts and the waits between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyscope.analysis import external
from pyscope.findings import Attempt, ExternalCall
from pyscope.views.values import NAME, identity, ms, place, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["call_id", "message", "row"]

_MOST_ATTEMPTS = 100


def message(
    trace: Trace,
    limit: int = 1000,
    *,
    since_ms: float | None = None,
    found: Sequence[ExternalCall] | None = None,
) -> dict[str, Any]:
    """The last `limit` calls in order of their begin.

    `since_ms`: only those that ended or still ran then. `found`: what `pyscope.analysis.external.find` found, if that
    is known.
    """
    calls = external.find(trace) if found is None else found
    if since_ms is not None:
        calls = [call for call in calls if call.start_ns + call.duration_ns >= since_ms * 1e6]
    return {"type": "external", "calls": [row(call) for call in calls[-limit:]] if limit > 0 else []}


def call_id(call: ExternalCall) -> str:
    """The same for a call as long as it lasts, and whoever reads it."""
    return identity(call.start_ns, call.thread, call.service, call.operation, call.peer)


def row(call: ExternalCall) -> dict[str, Any]:
    """One call."""
    return {
        "id": call_id(call),
        "service": text(call.service, NAME),
        "operation": text(call.operation, NAME),
        "peer": text(call.peer, NAME),
        "outcome": call.outcome,
        "timed_out": call.timed_out,
        "retries": call.retries,
        "start_ms": ms(call.start_ns),
        "duration_ms": ms(call.duration_ns),
        "client": text(call.client, NAME),
        "repeated_by": text(call.repeated_by, NAME),
        "location": place(call.call_site),
        "scope": str(call.scope) if call.scope else "",
        "attempts": [_attempt(attempt) for attempt in call.attempts[:_MOST_ATTEMPTS]],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "start_ms": ms(attempt.start_ns),
        "duration_ms": ms(attempt.duration_ns),
        "outcome": attempt.outcome,
        "error": text(attempt.error, NAME),
        "backoff_ms": ms(attempt.backoff_ns),
        "status": attempt.status,
        "timeout_ms": ms(attempt.timeout_ns),
    }
