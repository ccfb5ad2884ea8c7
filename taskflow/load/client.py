"""A simulated client with good manners: it comes back when asked to, and knows which refusals to expect."""

from collections.abc import Mapping
from typing import Any, Final

import gevent
from locust import FastHttpUser
from locust.env import Environment

from taskflow.load.run import LoadRun

REQUEST_TIMEOUT_SECONDS: Final = 60.0
MOST_ATTEMPTS: Final = 10
MOST_WAITING_SECONDS: Final = 5.0
# A service that is away refuses at once; hammering it would only burn the CPU.
PAUSE_AFTER_ERROR_SECONDS: Final = 0.05
NOBODY: Final[Mapping[int, str]] = {}

Answer = dict[str, Any]


class LoadEnvironment(Environment):
    """Locust's environment with the load that its clients belong to."""

    def __init__(self, load: LoadRun, client: "type[SimulatedClient]") -> None:
        super().__init__(user_classes=[client], host=load.plan.url.rstrip("/"))
        self.load = load


class SimulatedClient(FastHttpUser):  # type: ignore[misc]
    """One client. What it changes is its own, so that every request ought to succeed."""

    abstract = True
    network_timeout = REQUEST_TIMEOUT_SECONDS
    connection_timeout = REQUEST_TIMEOUT_SECONDS

    def __init__(self, environment: LoadEnvironment) -> None:
        super().__init__(environment)
        self.load = environment.load
        self.number, self.chance = self.load.join()

    def on_start(self) -> None:
        """Wait until all clients are there."""
        self.load.gate.wait()

    def send(
        self,
        operation: str,
        method: str,
        path: str,
        json: object = None,
        expected: Mapping[int, str] = NOBODY,
        headers: Mapping[str, str] | None = None,
    ) -> Answer | None:
        """The answer to one request; None after an error or an `expected` refusal (status → what it means).

        503 with Retry-After is obeyed, up to 9 times. StopUser when the load is over.
        """
        for attempts_left in reversed(range(MOST_ATTEMPTS)):
            self.load.take_ticket()
            changes = method != "GET"
            self.load.ledger.unanswered += changes
            with self.client.request(
                method, path, name=operation, json=json, headers=dict(headers or {}), catch_response=True
            ) as response:
                status: int = response.status_code
                self.load.ledger.unanswered -= changes and status != 0
                if 200 <= status < 300:
                    return self._parsed(response)
                if status in expected:
                    self.load.tally.refusals[f"{operation}: {expected[status]}"] += 1
                    response.success()
                    return None
                waiting = _retry_after(response) if status == 503 and attempts_left else None
                if waiting is None:
                    response.failure(f"HTTP {status}" if status else type(_cause(response)).__name__)
                else:
                    self.load.tally.refusals[f"{operation}: asked to come back later"] += 1
                    response.success()
            if waiting is None:
                gevent.sleep(PAUSE_AFTER_ERROR_SECONDS)
                return None
            # Not all at the same moment: that would only be refused again.
            gevent.sleep(waiting * self.chance.uniform(0.5, 1.5))
        return None

    def _parsed(self, response: Any) -> Answer | None:
        if not response.content:
            return {}
        try:
            answer = response.json()
        except ValueError:
            answer = response.text
        return answer if isinstance(answer, dict) else {"content": answer}


def _retry_after(response: Any) -> float | None:
    try:
        return min(MOST_WAITING_SECONDS, float(response.headers["retry-after"]))
    except (KeyError, TypeError, ValueError):
        return None


def _cause(response: Any) -> BaseException:
    """Why there was no answer: the error beneath the client's own."""
    error: BaseException = response.error
    return getattr(error, "original", None) or error
