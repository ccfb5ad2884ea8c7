"""Events of calls to other services: the begin and the end of each attempt, and the retries around them."""

from __future__ import annotations

from enum import IntEnum

from pyscope.events import EventType

__all__ = [
    "EXTERNAL_ANSWER",
    "EXTERNAL_BEGIN",
    "EXTERNAL_END",
    "RETRY_BEGIN",
    "RETRY_END",
    "RETRY_WAIT",
    "AttemptOutcome",
]


class AttemptOutcome(IntEnum):
    """How an attempt ended. FAILED includes answers that refuse, such as HTTP 503."""

    SUCCEEDED = 1
    FAILED = 2
    TIMED_OUT = 3
    CANCELLED = 4


# attempt: a number of its own. chain: the first attempt of those that the client itself repeats, 0 for a client that
# does not. group, number: the retry attempt (RETRY_BEGIN) around it, 0 for none. fingerprint: equal for equal
# requests of one process, 0 unknown. blocking: whether the calling thread waits. timeout_ns: 0 for none or
# unknown.
EXTERNAL_BEGIN = EventType(
    25,
    "external_begin",
    "attempt chain group number service:string operation:string peer:string client:string blocking timeout_ns "
    "fingerprint stack:stack",
)
# The head of the answer has come; its body may take long, or never be read to its end.
EXTERNAL_ANSWER = EventType(26, "external_answer", "attempt status")
# outcome: AttemptOutcome. error: the type's name and what is safe to say, never the message.
EXTERNAL_END = EventType(27, "external_end", "attempt duration_ns outcome status error:string")

# group: one call of what is retried. number: of the attempt, from 1. outer, outer_number: the retry attempt
# around it.
RETRY_BEGIN = EventType(
    30, "retry_begin", "group number outer outer_number name:string library:string stack:stack"
)
RETRY_END = EventType(31, "retry_end", "group number duration_ns outcome error:string")
# The attempt `number` was not good enough, and another will follow after so long.
RETRY_WAIT = EventType(32, "retry_wait", "group number backoff_ns")
