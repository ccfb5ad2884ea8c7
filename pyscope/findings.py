"""Findings: what the analyses say of a trace. Frozen, plain, the same for a living recording and a saved one.

Times are nanoseconds since the Unix epoch, durations nanoseconds, unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyscope.rows import Location

__all__ = ["Access", "Attempt", "ExternalCall", "PerformanceIssue", "Race"]


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


@dataclass(frozen=True, slots=True)
class PerformanceIssue:
    """Something that takes more time than it needs.

    `kind`: "n_plus_one_query", "repeated_query", "slow_call" or "blocking_call_in_event_loop". `query_count`: how many
    statements it is, 0 if none. `statement`: their text, values taken out. `parent_statement`: what loaded the
    instances whose attribute sent them, empty if unknown. `relationship`: that attribute, "Task.assignee", or empty.
    `call_site`, `stack`: where in the program's own code, innermost first. `suggestion`: what to change. `total_ms`:
    all of them together, in milliseconds. `scope`: as in `Trace.scopes`, 0 for none. `cause`: of queries, why they were
    sent: "collection", "scalar", "deferred", "expired", "refresh", "get" or "statement". `parents`: distinct instances,
    or distinct values where no instance is known. `explanation`: what happened, in one sentence.
    """

    kind: str
    query_count: int
    statement: str
    parent_statement: str
    relationship: str
    call_site: Location
    suggestion: str
    total_ms: float
    scope: int
    cause: str = ""
    parents: int = 0
    explanation: str = ""
    time_ns: int = 0
    duration_ns: int = 0
    thread: str = ""
    context: str | None = None
    stack: tuple[Location, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """One access of a race. `operation`: "read", "check", "write", … `location`: in the program's own code, the
    innermost of `stack`. `context`: of an asyncio task or greenlet its name, else None.
    """

    operation: str
    thread: str
    context: str | None
    time_ns: int
    location: Location
    stack: tuple[Location, ...] = field(default=(), repr=False)
    scope: int = 0


@dataclass(frozen=True, slots=True)
class Race:
    """Two flows of control that use the same thing so that the result depends on who comes first.

    `kind`: "data_race", "lost_update", "check_then_act" or "write_skew". `subject`: what it is about, "Counter.value"
    or "accounts.balance". `accesses`: in order of time. `grade`: "observed" where the foreign write fell inside the
    window, else "possible". `count`: how often this was found, between the same places in the code.
    """

    kind: str
    subject: str
    accesses: tuple[Access, ...]
    grade: str
    explanation: str
    suggestion: str
    count: int = 1
