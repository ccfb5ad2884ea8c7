"""Webhooks: signed POSTs as the Standard Webhooks specification describes them, with retries.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import hmac
import time
from base64 import b64encode
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC
from email.utils import parsedate_to_datetime
from hashlib import sha256
from types import TracebackType
from typing import Final, Self

import httpx2

from taskflow.data.models import now
from taskflow.faults import FLAKY_WEBHOOK
from taskflow.integrations.loopback import FlakyGateway
from taskflow.integrations.retries import DeliveryFailed, DeliveryRefused, RetryPolicy
from taskflow.settings import Settings

TOLERANCE_SECONDS: Final = 300
TOO_MANY_REQUESTS: Final = 429


class InvalidSignature(ValueError):
    """A webhook was not signed with this secret, or is too old to be believed."""


class WebhookService:
    """Delivers payloads to subscribers' addresses, as an async context manager.

    With the fault `flaky_webhook` every delivery goes through a gateway on loopback that answers its first
    two attempts with 503.
    """

    def __init__(self, settings: Settings) -> None:
        self._flaky = FLAKY_WEBHOOK.name in settings.faults
        self._policy = RetryPolicy.of(settings)
        self._secret = settings.webhook_secret.get_secret_value()
        self._gateway: FlakyGateway | None = None
        self._open = AsyncExitStack()
        # trust_env off: where a webhook goes is the subscriber's choice, not a proxy variable's.
        self._client = httpx2.AsyncClient(
            timeout=self._policy.step_seconds, trust_env=False, follow_redirects=False
        )
        self._deliver = self._policy.retrying(self._attempt, self._again)

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._client)
        if self._flaky:
            self._gateway = await self._open.enter_async_context(FlakyGateway(self._policy.step_seconds))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def post(self, url: str, payload: bytes, key: str) -> None:
        """Deliver the JSON text `payload`; every attempt carries the same idempotency key.

        Connection errors, timeouts, 5xx and 429 are tried again, for as long as `Retry-After` asks within
        the policy's bounds, then DeliveryFailed. Any other answer but 2xx is DeliveryRefused at once.
        """
        try:
            await self._deliver(self._gateway.front(url) if self._gateway else url, payload, key)
        except httpx2.HTTPStatusError as error:
            status = error.response.status_code
            if _is_temporary(status):
                raise DeliveryFailed(f"{url} answered {status}") from error
            raise DeliveryRefused(f"{url} answered {status}") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise DeliveryRefused(f"{url} is not an address: {error}") from error
        except (httpx2.TransportError, TimeoutError) as error:
            raise DeliveryFailed(f"{url} did not answer: {error!r}") from error

    async def _attempt(self, url: str, payload: bytes, key: str) -> None:
        headers = signed_headers(self._secret, payload, key, int(time.time()))
        # What the receiver says beside its status is of no interest, however much it is.
        async with self._client.stream("POST", url, content=payload, headers=headers) as response:
            if not response.is_success:
                response.raise_for_status()

    def _again(self, error: Exception) -> bool | float:
        if not isinstance(error, httpx2.HTTPStatusError):
            usable = not isinstance(error, httpx2.UnsupportedProtocol)
            return usable and isinstance(error, (httpx2.TransportError, TimeoutError))
        if not _is_temporary(error.response.status_code):
            return False
        asked = _retry_after(error.response.headers.get("retry-after", ""))
        return True if asked is None else min(asked, self._policy.backoff_max_seconds)


def signed_headers(secret: str, payload: bytes, key: str, timestamp: int) -> dict[str, str]:
    """The headers of one attempt, at `timestamp` seconds of the Unix epoch.

    The signature covers key, time and payload; the key is there a second time under the name that
    receivers of other APIs know.
    """
    return {
        "content-type": "application/json",
        "webhook-id": key,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{_signature(secret, payload, key, timestamp)}",
        "idempotency-key": key,
    }


def verify(
    secret: str, payload: bytes, headers: Mapping[str, str], tolerance_seconds: float = TOLERANCE_SECONDS
) -> str:
    """What a receiver does first: check signature and age; returns the idempotency key.

    `headers` have lower-case names. InvalidSignature for anything forged, altered, or older (or newer)
    than `tolerance_seconds`.
    """
    try:
        key, timestamp = headers["webhook-id"], int(headers["webhook-timestamp"])
        offered = headers["webhook-signature"].split(" ")
    except (KeyError, ValueError) as error:
        raise InvalidSignature("the signature headers are missing or malformed") from error
    if abs(time.time() - timestamp) > tolerance_seconds:
        raise InvalidSignature("the message is too old, or from the future")
    expected = f"v1,{_signature(secret, payload, key, timestamp)}".encode()
    if not any(hmac.compare_digest(expected, one.encode()) for one in offered):
        raise InvalidSignature("the message was not signed with this secret")
    return key


def _signature(secret: str, payload: bytes, key: str, timestamp: int) -> str:
    signed = f"{key}.{timestamp}.".encode() + payload
    return b64encode(hmac.digest(secret.encode(), signed, sha256)).decode("ascii")


def _is_temporary(status: int) -> bool:
    return status >= 500 or status == TOO_MANY_REQUESTS


def _retry_after(value: str) -> float | None:
    """Seconds to wait, from a number of seconds or a date (RFC 9110, 10.2.3); None for anything else."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - now()).total_seconds())
