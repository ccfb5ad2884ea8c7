"""Why an actor ended: the exit reasons of OTP."""

import traceback
from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class ExitKind(StrEnum):
    """The kinds of exit; only `crashed`, `killed` and `abandoned` are abnormal."""

    NORMAL = "normal"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"
    KILLED = "killed"
    ABANDONED = "abandoned"


class Killed(BaseException):
    """Raised inside the thread of an actor that is being killed; no hook of the actor runs any more."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How an actor ended. `error` is the exception that ended it, or the cause of an orderly shutdown."""

    kind: ExitKind
    error: BaseException | None = None

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """The exit of an actor that `error` ended."""
        return cls(ExitKind.KILLED if isinstance(error, Killed) else ExitKind.CRASHED, error)

    @property
    def is_normal(self) -> bool:
        """Whether a transient child that ended so stays down."""
        return self.kind in (ExitKind.NORMAL, ExitKind.SHUTDOWN)

    def __str__(self) -> str:
        if self.error is None or isinstance(self.error, Killed):
            return self.kind.value
        error = traceback.format_exception_only(self.error)[-1].strip()
        return error if self.kind is ExitKind.CRASHED else f"{self.kind.value} ({error})"
