"""Findings: what the analyses say of a trace. Frozen, plain, the same for a living recording and a saved one.

Times are nanoseconds since the Unix epoch, durations nanoseconds, unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyscope.rows import Location

__all__ = ["Attempt", "ExternalCall"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of an external call.

    `outcome`: "succeeded", "failed", "timed_out", "cancelled", or "open" (no end was recorded: it hung when
    the program died). `error`: type of the exception and what the system said, "HTTP 503" for an answer that
    refuses, else empty. `backoff_ns`: the wait before this attempt, 0 for the first. `status`: of the answer,
    0 for none. `timeout_ns`: what the client allows for an answer, 0 for no limit or unknown.
    """

    start_ns: int
    duration_ns: int
    outcome: str
    error: str
    backoff_ns: int
    status: int = 0
    timeout_ns: int = 0


@dataclass(frozen=True, slots=True)
class ExternalCall:
    """One call to another service, with all attempts to get it done.

    `service`: "http", "smtp", "redis", "storage", or "retry" for something repeated whose client is not known.
    `operation`: "POST /hooks/{}", "MAIL", a Redis command, "WRITE", or the function that was retried. `peer`:
    host:port. `timed_out`: whether any attempt ran into a time limit. `retries`: attempts after the first.
    `outcome`: the last attempt's. `client`: the library. `repeated_by`: "tenacity", "stamina", "loop"
    (written by hand), the client's name where it repeats by itself, or empty. `call_site`, `stack`: where in
    the program's own code, innermost first. `call`: row in `Trace.calls` of the call around it, -1 for none.
    `scope`: as in `Trace.scopes`, 0 for none.
    """

    service: str
    operation: str
    peer: str
    attempts: tuple[Attempt, ...]
    timed_out: bool
    retries: int
    outcome: str
    start_ns: int
    duration_ns: int
    client: str
    repeated_by: str
    call_site: Location
    stack: tuple[Location, ...] = field(repr=False)
    scope: int = 0
    thread: str = ""
    context: str | None = None
    call: int = -1
