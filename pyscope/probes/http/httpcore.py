"""httpcore, on which httpx's transports stand: their own `retries`, which connect again after a pause.

There is nothing to see of a retry but that pause, and nothing else that a network backend's `sleep` is called for.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from pyscope.probes.attempts import Attempt
from pyscope.probes.clients import fault
from pyscope.probes.patches import Patches

__all__ = ["Sendings", "patch", "sendings"]


class Sendings:
    """A request that is being sent, several times perhaps: `attempt` is the last; `begin` begins another of a chain."""

    __slots__ = ("_begin", "_chain", "_token", "attempt")

    def __init__(self, attempt: Attempt, begin: Callable[..., Attempt]) -> None:
        self.attempt = attempt
        self._chain = attempt.id
        self._begin = begin
        self._token = sendings.set(self)

    def end(self) -> None:
        """The request is through, called where it was begun."""
        try:
            sendings.reset(self._token)
        except Exception:
            fault("http")

    def failed(self) -> None:
        """The exception that is being handled ended the last one."""
        try:
            error = sys.exc_info()[1]
            if error is not None:
                self.attempt.failed(error)
        except Exception:
            fault("http")

    def again(self) -> None:
        """The next one begins."""
        try:
            if self.attempt.ended:
                self.attempt = self._begin(chain=self._chain)
                self.attempt.outlives_handler()
        except Exception:
            fault("http")


sendings: ContextVar[Sendings | None] = ContextVar("pyscope_httpcore_sendings", default=None)
"""Those of the request that is sent here, where its transport retries."""


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches the pauses of the network backends that httpcore takes by itself."""
    patches.replace(library.SyncBackend, "sleep", _sleep)
    patches.replace(sys.modules[f"{library.__name__}._backends.auto"].AutoBackend, "sleep", _async_sleep)


def _sleep(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def sleep(self: Any, seconds: float) -> None:
        request = sendings.get()
        if request is not None:
            request.failed()
        original(self, seconds)
        if request is not None:
            request.again()

    return sleep


def _async_sleep(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def sleep(self: Any, seconds: float) -> None:
        request = sendings.get()
        if request is not None:
            request.failed()
        await original(self, seconds)
        if request is not None:
            request.again()

    return sleep
