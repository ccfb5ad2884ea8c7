"""When to try again: the one retry policy of every call to another service."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, Self, TypeVar

import stamina

from taskflow.errors import TaskFlowError
from taskflow.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

Verdict = Callable[[Exception], bool | float]


class DeliveryFailed(TaskFlowError):
    """Another service did not take what it was given; it may do so later."""


class DeliveryRefused(TaskFlowError):
    """Another service will never take this; trying again is of no use."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, how long and how patiently a call is tried.

    `step_seconds` bounds each wait for the other side (connect, one answer) and is left to the protocol's
    own client, whose error says where it hung; `attempt_seconds` bounds an attempt whose every step is
    just in time, `call_seconds` all attempts with the waits between. A wait is `backoff_seconds`, doubled
    each time, plus up to as much again at random, so that callers that failed together do not return
    together; never more than `backoff_max_seconds`.
    """

    retries: int = 3
    step_seconds: float = 5.0
    attempt_seconds: float = 10.0
    call_seconds: float = 60.0
    backoff_seconds: float = 0.2
    backoff_max_seconds: float = 5.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The policy that `settings` ask for."""
        return cls(
            settings.external_retries,
            settings.external_step_seconds,
            settings.external_attempt_seconds,
            settings.external_call_seconds,
            settings.external_backoff_seconds,
            settings.external_backoff_max_seconds,
        )

    def retrying(self, attempt: Callable[P, Awaitable[T]], again: Verdict) -> Callable[P, Awaitable[T]]:
        """`attempt` with retries and timeouts.

        `again` says of an exception whether trying again may help, or in seconds how long to wait first.
        Whatever the last attempt raised is raised; TimeoutError where the time of the whole call is up.
        """

        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            # The retries see no arguments: they would end up in the log, and are what people write.
            @self._retry(again)
            @wraps(attempt)
            async def attempts() -> T:
                async with asyncio.timeout(self.attempt_seconds):
                    return await attempt(*args, **kwargs)

            async with asyncio.timeout(self.call_seconds):
                return await attempts()

        return call

    def retrying_in_thread(self, attempt: Callable[P, T], again: Verdict) -> Callable[P, T]:
        """The same for a blocking `attempt`, which nobody can interrupt: no attempt begins after the time."""

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            @self._retry(again)
            @wraps(attempt)
            def attempts() -> T:
                return attempt(*args, **kwargs)

            return attempts()

        return call

    def _retry(self, again: Verdict) -> Callable[[Callable[[], R]], Callable[[], R]]:
        return stamina.retry(
            on=again,
            attempts=self.retries + 1,
            timeout=self.call_seconds,
            wait_initial=self.backoff_seconds,
            wait_jitter=self.backoff_seconds,
            wait_max=self.backoff_max_seconds,
        )
