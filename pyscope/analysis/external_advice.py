"""What to say of calls to other services that did not go well: who is away needs other care than who refuses."""

from __future__ import annotations

from enum import Enum

from pyscope.findings import Attempt, ExternalCall

__all__ = ["WELL", "Trouble", "advice", "trouble"]

WELL = ("succeeded", "open")
_REFUSALS = (
    "ResponseError", "DataError", "ExecAbortError", "NoPermissionError", "ModuleError", "NoSuchFieldsetError",
    "ClusterCrossSlotError", "CrossSlotTransactionError",
)  # fmt: skip
_WAITING = (
    "BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN", "XREAD", "XREADGROUP",
)  # fmt: skip
"""Commands that wait until there is something: a worker that is told to end leaves one unanswered."""
_FIRST_REFUSAL, _FIRST_ERROR = 400, 500  # HTTP
_AWAY = (408, 502, 503, 504)  # a timeout, and what stands before a service that is away says so


class Trouble(Enum):
    """What is wrong with a call: nothing, as far as it can be told; or the service is away, or it answers that it has
    failed, or it refuses what is sent, or somebody else has written in between, or who asked did not wait for the
    answer."""

    NONE = "none"
    AWAY = "away"
    BROKEN = "broken"
    REFUSED = "refused"
    CONFLICT = "conflict"
    CANCELLED = "cancelled"


def trouble(call: ExternalCall) -> Trouble:
    """What kept a call from succeeding or, where it has succeeded, from doing so at once."""
    failed = [attempt for attempt in call.attempts if attempt.outcome not in WELL]
    if not failed:
        return Trouble.AWAY if call.retries else Trouble.NONE
    found = [kind for kind in (_of(call, attempt) for attempt in failed) if kind is not Trouble.NONE]
    if not found:
        return Trouble.NONE
    for kind in (Trouble.AWAY, Trouble.BROKEN) if call.outcome in WELL else ():
        if kind in found:
            return kind
    return found[-1]


def _of(call: ExternalCall, attempt: Attempt) -> Trouble:
    service = call.service
    if service == "redis" and call.operation in _WAITING and _is_from_outside(attempt):
        return Trouble.NONE
    if attempt.outcome == "cancelled":
        return Trouble.CANCELLED
    if attempt.outcome == "failed" and service == "http":
        if attempt.status in _AWAY or attempt.status < _FIRST_REFUSAL:
            return Trouble.AWAY
        return Trouble.REFUSED if attempt.status < _FIRST_ERROR else Trouble.BROKEN
    if attempt.outcome == "failed" and service == "redis":
        error = attempt.error.partition(":")[0].rpartition(".")[2]
        if error == "NoScriptError":  # the client sends the script then, as in the lock() that it has
            return Trouble.NONE
        if error == "WatchError":
            return Trouble.CONFLICT
        if error in _REFUSALS:
            return Trouble.REFUSED
    return Trouble.AWAY


def _is_from_outside(attempt: Attempt) -> bool:
    """Whether neither the client nor the operating system ended an attempt: a cancellation, or a signal's handler."""
    package, dot, _ = attempt.error.partition(":")[0].partition(".")
    return attempt.outcome == "cancelled" or (bool(dot) and package not in ("redis", "valkey"))


def advice(found: Trouble, service: str, failed: bool) -> str:
    """What to change about calls with one trouble. `failed`: they have not come through in the end."""
    if found is Trouble.CONFLICT:
        return (
            "Others write to a watched key: repeat the transaction, as the client's transaction() does, and where that "
            "happens often, write with one command or a script."
        )
    if found is Trouble.CANCELLED:
        return (
            "Who asked did not wait for the answer: a timeout of its own ran out, its client has gone, or the program "
            "ended. Where it was a timeout, see why the service takes longer."
        )
    if found is Trouble.REFUSED and service == "redis":
        return "The server is there and refused the command: look at what is sent, and at what lies under the key."
    if found is Trouble.REFUSED:
        return (
            "The service is there and refused the request: look at what is sent, its address, content and rights, and, "
            "for HTTP 429, at how often."
        )
    if failed and found is Trouble.BROKEN:
        return (
            "The service is there and answered that it has failed: look for the cause in its own log. Where the call "
            "may be made twice, try again after a pause, a few times; and have a plan for when that does not help."
        )
    if failed:
        return (
            "Give the call a timeout that the caller can bear, and a plan for when the service is away: queue it, or "
            "answer without it."
        )
    return "It came through in the end: look at the service's health, and at how long callers wait meanwhile."
