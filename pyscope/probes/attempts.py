"""One attempt to call another service, from its begin to its end; shared by all probes of clients.

A probe begins an attempt before the client sends, and tells it how that ended::

    attempt = begin("http", "GET /users/{}", "api.example:443", "httpx")
    try:
        response = send(request)
    except BaseException as error:
        attempt.failed(error)
        raise
    attempt.succeeded(response.status)

Nothing here raises. An attempt ends once: what is told of it later is ignored.
"""

from __future__ import annotations

import errno as errnos
import os
import sys
from contextvars import ContextVar
from time import perf_counter_ns

from pyscope import emitter
from pyscope.events.external import EXTERNAL_ANSWER, EXTERNAL_BEGIN, EXTERNAL_END, AttemptOutcome
from pyscope.probes.clients import fault
from pyscope.probes.exceptions import is_cancellation

__all__ = ["SILENT", "Attempt", "Silent", "begin", "describe", "fingerprint", "retrying"]

retrying: ContextVar[tuple[int, int]] = ContextVar("pyscope_retrying", default=(0, 0))
"""The retry attempt that runs here: group and number, as in RETRY_BEGIN."""

FIRST_REFUSAL = 400  # HTTP: an answer, but not the one that was asked for
_STACK = 24  # frames of a call site
_LARGEST_BODY = 1 << 16  # bytes of a body that are looked at to tell requests apart
_SALT = int.from_bytes(os.urandom(8), "little")

_BEGIN, _ANSWER, _END = EXTERNAL_BEGIN.kind, EXTERNAL_ANSWER.kind, EXTERNAL_END.kind


class Attempt:
    """One attempt. `status` is that of the answer, 0 for none; `ended` whether its end has been told."""

    __slots__ = ("_handled", "_service", "_started", "ended", "id", "status")

    def __init__(self, identity: int, service: str) -> None:
        self.id = identity
        self.status = 0
        self.ended = False
        self._service = service
        self._handled = id(sys.exc_info()[1])  # a retry may begin where the one before is being handled
        self._started = 0

    def outlives_handler(self) -> None:
        """The exception that is being handled where it begins is gone before it ends: another may have its address."""
        self._handled = 0

    def answered(self, status: int) -> None:
        """The head of the answer has come, its body has not."""
        try:
            if not self.ended:
                self.status = status
                emitter.emit(_ANSWER, self.id, status)
        except Exception:
            fault(self._service)

    def succeeded(self, status: int = 0) -> None:
        """All of the answer has come, or nobody wants the rest."""
        try:
            status = status or self.status
            if self._service == "http" and status >= FIRST_REFUSAL:
                self._end(AttemptOutcome.FAILED, status, f"HTTP {status}")
            else:
                self._end(AttemptOutcome.SUCCEEDED, status, "")
        except Exception:
            fault(self._service)

    def failed(self, error: BaseException, status: int = 0, detail: str = "") -> None:
        """It ended with an exception. `detail`: what is safe to say beside its type."""
        if self.ended:
            return
        outcome, text = AttemptOutcome.FAILED, "an exception"
        try:
            outcome, text = describe(error, self._handled)
            text = f"{text}: {detail}" if detail else text
        except Exception:
            fault(self._service)
        self._end(outcome, status or self.status, text)

    def _end(self, outcome: AttemptOutcome, status: int, error: str) -> None:
        if self.ended:
            return
        self.ended = True
        self.status = status
        try:
            duration = perf_counter_ns() - self._started
            emitter.emit(_END, self.id, duration, int(outcome), status, emitter.intern(error) if error else 0)
        except Exception:
            fault(self._service)


class Silent(Attempt):
    """An attempt that is not recorded."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(0, "")
        self.ended = True


SILENT: Attempt = Silent()


def begin(
    service: str,
    operation: str,
    peer: str,
    client: str,
    *,
    chain: int = 0,
    blocking: bool = True,
    timeout: float | None = None,
    same: int = 0,
) -> Attempt:
    """Begins an attempt on the calling thread, in the retry attempt that runs here.

    `chain`: the id of the first attempt where the client itself repeats. `timeout`: seconds. `same`: a `fingerprint`.
    """
    if not emitter.active():
        return SILENT
    attempt = Attempt(emitter.next_id(), service)
    intern = emitter.intern
    emitter.emit(
        _BEGIN,
        attempt.id,
        chain,
        *retrying.get(),
        intern(service),
        intern(operation),
        intern(peer),
        intern(client),
        blocking,
        timeout * 1e9 if type(timeout) is float or type(timeout) is int else 0,
        same,
        emitter.stack(_STACK),
    )
    attempt._started = perf_counter_ns()  # after the begin: what is told of it ends no later than it did
    return attempt


def fingerprint(*parts: object) -> int:
    """A number that is equal for equal strings and bytes in one process, and tells nothing of them; else 0."""
    for part in parts:
        if type(part) is not str and (type(part) is not bytes or len(part) > _LARGEST_BODY):
            return _of_parts(parts)
    return hash((_SALT, parts))


def _of_parts(parts: tuple[object, ...]) -> int:
    """Of long bodies the begin counts, and the length; what is neither text nor bytes is unknown."""
    kept: list[object] = []
    for part in parts:
        if type(part) is not str and type(part) is not bytes:
            return 0
        kept += part[:_LARGEST_BODY], len(part)
    return hash((_SALT, *kept))


# --- exceptions ----------------------------------------------------------------------------------

# Read through the descriptors: an exception's class may define __getattribute__.
_name_of = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__
_mro_of = type.__dict__["__mro__"].__get__
_cause_of = BaseException.__dict__["__cause__"].__get__
_context_of = BaseException.__dict__["__context__"].__get__
_errno_of = OSError.__dict__["errno"].__get__
_MOST_TYPES = 512
_types: dict[type[BaseException], tuple[AttemptOutcome, str]] = {}


def describe(error: BaseException, handled: int = 0) -> tuple[AttemptOutcome, str]:
    """How an attempt with this exception ended, and the exception in words: its type and, from the operating system's
    error behind it, the reason. Not its message, which may hold addresses, parameters and passwords.
    `handled`: the id of an exception that was there before and has nothing to do with this one."""
    kind = type(error)
    found = _types.get(kind)
    if found is None:
        found = _of_type(kind)
        if len(_types) < _MOST_TYPES:
            _types[kind] = found
    outcome, name = found
    if outcome in (AttemptOutcome.CANCELLED, AttemptOutcome.TIMED_OUT):
        return outcome, name
    cause: BaseException | None = error
    for _ in range(8):
        if isinstance(cause, OSError):
            number = _errno_of(cause)
            if type(number) is int and number in errnos.errorcode:
                if number == errnos.ETIMEDOUT:
                    outcome = AttemptOutcome.TIMED_OUT
                return outcome, f"{name}: {os.strerror(number)}"
        after = _cause_of(cause)
        cause = after if after is not None else _context_of(cause)
        if cause is None or id(cause) == handled:
            break
        if isinstance(cause, TimeoutError):  # wrapped by a client whose own error does not say so
            return AttemptOutcome.TIMED_OUT, name
    return outcome, name


def _of_type(kind: type[BaseException]) -> tuple[AttemptOutcome, str]:
    names = [_name_of(base) for base in _mro_of(kind)]
    module = _module_of(kind)
    package = module.partition(".")[0] if type(module) is str else ""
    name = names[0] if package in ("", "builtins") else f"{package}.{names[0]}"
    if is_cancellation(kind) or issubclass(kind, (KeyboardInterrupt, SystemExit)):
        return AttemptOutcome.CANCELLED, name
    # urllib3 1 derives a refused connection from a timeout.
    timed_out = any("Timeout" in base for base in names) and "NewConnectionError" not in names
    return AttemptOutcome.TIMED_OUT if timed_out else AttemptOutcome.FAILED, name
