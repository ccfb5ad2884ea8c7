"""Findings: what the analyses say of a trace. Frozen, plain, the same for a living recording and a saved one.

Times are nanoseconds since the Unix epoch, durations nanoseconds, unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pyscope.rows import Location

__all__ = [
    "Access",
    "Attempt",
    "ExternalCall",
    "PerformanceIssue",
    "PerformanceIssues",
    "ProcessResources",
    "Race",
    "ResourceIssue",
    "ResourceMetrics",
    "Sample",
    "ScopeTime",
    "StateChange",
    "SupervisorEvent",
    "TimeParts",
]


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
class TimeParts:
    """Where the time of a call, of several calls or of a scope went, in nanoseconds.

    `cpu_ns`: of the thread, -1 where it is not known. `sql_ns`, `external_ns`, `lock_ns`: in statements, in attempts to
    call other services, and in waits for locks; what ran side by side counts for each. `sql_count`, `external_count`:
    how many of them.
    """

    wall_ns: int
    cpu_ns: int = -1
    sql_ns: int = 0
    external_ns: int = 0
    lock_ns: int = 0
    sql_count: int = 0
    external_count: int = 0

    @property
    def sql_share(self) -> float:
        """The part of the time in SQL, from 0 to 1."""
        return _share(self.sql_ns, self.wall_ns)

    @property
    def external_share(self) -> float:
        """The part of the time in calls to other services, from 0 to 1."""
        return _share(self.external_ns, self.wall_ns)

    @property
    def lock_share(self) -> float:
        """The part of the time in waits for locks, from 0 to 1."""
        return _share(self.lock_ns, self.wall_ns)

    @property
    def cpu_share(self) -> float | None:
        """CPU time against wall time, from 0 to 1; None where it is not known."""
        return None if self.cpu_ns < 0 else _share(self.cpu_ns, self.wall_ns)


def _share(part: int, whole: int) -> float:
    return min(1.0, part / whole) if whole > 0 else 0.0


@dataclass(frozen=True, slots=True)
class ScopeTime:
    """A request, message, report or task, and where its time went. Fields as in `Trace.scopes`."""

    id: int
    kind: str
    name: str
    route: str
    status: int
    outcome: str
    start_ns: int
    parts: TimeParts


@dataclass(frozen=True, slots=True)
class PerformanceIssue:
    """Something that takes more time than it needs.

    `kind`: "n_plus_one_query", "repeated_query", "slow_call" or "blocking_call_in_event_loop". `query_count`: how many
    statements it is, 0 if none. `statement`: their text, values taken out. `parent_statement`: what loaded the
    instances whose attribute sent them, empty if unknown. `relationship`: that attribute, "Task.assignee", or empty.
    `call_site`, `stack`: where in the program's own code, innermost first. `suggestion`: what to change. `total_ms`:
    all of them together, in milliseconds. `scope`: as in `Trace.scopes`, 0 for none. `cause`: of queries, why they were
    sent: "collection", "scalar", "deferred", "subclass", "expired", "refresh", "get" or "statement". `parents`:
    distinct instances, or distinct values where no instance is known. `explanation`: what happened, in one sentence.
    `count`: how often; `time_ns`, `duration_ns` are of the worst. `parts`: where the time of all of them went.
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
    count: int = 1
    parts: TimeParts | None = None


class PerformanceIssues(list[PerformanceIssue]):
    """Performance issues, in order of time."""

    @property
    def query_count(self) -> int:
        """The statements of all issues together."""
        return sum(issue.query_count for issue in self)


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


@dataclass(frozen=True, slots=True)
class StateChange:
    """An attribute of a watched object got another value.

    `process`: the class's name. `old`, `new`: the value itself where it is a str, number, bool or None (of a
    str enum its value), else a bounded description; None too where there was none, or `known` is False.
    `transition`: "task_assigned" for a Task whose status became "assigned", else "<attribute>_changed".
    `trigger`: the function whose call did it. `key`: the primary key of a mapped object, else empty; `object`
    numbers the object, 0 for a row changed by an UPDATE. `seen`: "write" (the stack is that of the change),
    "boundary" (in place, seen at the end of the trigger's call), "between" (seen at the begin of the trigger's
    call: something before did it), "statement" (an UPDATE).
    """

    process: str
    attribute: str
    old: str | int | float | bool | None
    new: str | int | float | bool | None
    transition: str
    trigger: str
    time_ns: int
    thread: str
    key: str
    object: int
    seen: str
    known: bool
    stack: tuple[Location, ...]
    scope: int


@dataclass(frozen=True, slots=True)
class SupervisorEvent:
    """What happened to a child.

    `kind`: child_started, child_terminated (by itself, or crashed), child_restarted, child_shutdown (in order),
    max_restarts_exceeded. `supervisor`: its name; "threading", "asyncio", "subprocess", "multiprocessing" or
    "interpreter" for a child that has none. `restart_count`: how often the child was started again so far, -1
    where the supervisor does not say. `pid`: of a child process, else 0. `stack`: of the crash or the start,
    where it is known.
    """

    kind: str
    supervisor: str
    child: str
    reason: str
    restart_count: int
    time_ns: int
    pid: int
    stack: tuple[Location, ...]


class Sample(NamedTuple):
    """A measurement: when, and how much."""

    time_ns: int
    value: float


@dataclass(frozen=True, slots=True)
class ProcessResources:
    """What one process used, or the mailbox of one actor held.

    `peak_memory`: bytes of resident memory; `peak_is_exact`: it is the kernel's own, not the highest sample.
    `cpu_usage_samples`: percent of one CPU since the sample before. `memory_samples`: bytes.
    """

    name: str
    pid: int
    peak_memory: int
    peak_is_exact: bool
    cpu_usage_samples: Sequence[Sample]
    memory_samples: Sequence[Sample]
    message_queue_length_samples: Sequence[Sample]
    cpu_by_thread: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResourceIssue:
    """A resource of which something took very much.

    `kind`: "mailbox_backlog" or "memory_growth". `subject`: the actor, or the request, message, report or job by its
    name.
    `amount`: messages that waited at most, or bytes that were added. `time_ns`: of that peak; `duration_ns`: how long
    it took to get there. `waited_ns`: the longest that a message waited, 0 for memory. `call_site`, `stack`: who sent
    most of the messages, or the call in which the memory grew; line 0 where it is not known. `senders`: how many of
    the messages came from there. `scope`: as in `Trace.scopes`, 0 for none. `explanation`: what happened, in one
    sentence; `suggestion`: what to change.
    """

    kind: str
    subject: str
    amount: int
    time_ns: int
    duration_ns: int
    waited_ns: int
    call_site: Location
    explanation: str
    suggestion: str
    stack: tuple[Location, ...] = field(default=(), repr=False)
    senders: int = 0
    scope: int = 0


@dataclass(frozen=True, slots=True)
class ResourceMetrics:
    """Memory, CPU and mailboxes over time, of all sampled processes together.

    `peak_memory`: of the process that had most, in bytes. `cpu_usage_samples`: percent of one CPU, added up over
    the processes; `memory_samples`: bytes, added up. `message_queue_length_samples`: of all watched mailboxes, in
    order of time. `by_process`: process ids, and names of actors, with what was theirs.
    """

    peak_memory: int
    peak_is_exact: bool
    cpu_usage_samples: Sequence[Sample]
    memory_samples: Sequence[Sample]
    message_queue_length_samples: Sequence[Sample]
    by_process: Mapping[int | str, ProcessResources]
