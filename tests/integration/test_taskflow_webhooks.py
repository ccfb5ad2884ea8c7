"""Webhooks against a real HTTP endpoint that takes them, hangs, fails and recovers."""

import asyncio
import time
from email.utils import format_datetime

import pytest
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from taskflow.data.models import now
from taskflow.integrations.retries import DeliveryFailed, DeliveryRefused
from taskflow.integrations.webhooks import InvalidSignature, WebhookService, signed_headers, verify
from taskflow.settings import Settings
from tests.integration.endpoints import Answer, DeafServer, HttpEndpoint

SECRET = "known to both"
PAYLOAD = b'{"change": "created"}'
QUICK = {
    "faults": "none",
    "webhook_secret": SECRET,
    "external_step_seconds": 20.0,
    "external_attempt_seconds": 30.0,
    "external_backoff_seconds": 0.01,
    "external_backoff_max_seconds": 0.05,
}


def post(url: str, payload: bytes = PAYLOAD, key: str = "k1", **values: object) -> None:
    async def run() -> None:
        async with WebhookService(Settings.model_validate(QUICK | values)) as service:
            await service.post(url, payload, key)

    asyncio.run(run())


def test_a_receiver_can_tell_that_a_webhook_is_from_us_and_unaltered() -> None:
    with HttpEndpoint() as endpoint:
        post(endpoint.url)
    [request] = endpoint.requests
    assert request.body == PAYLOAD
    assert request.headers["content-type"] == "application/json"
    assert verify(SECRET, request.body, request.headers) == "k1"
    with pytest.raises(InvalidSignature, match="not signed"):
        verify("another secret", request.body, request.headers)
    with pytest.raises(InvalidSignature, match="not signed"):
        verify(SECRET, request.body + b" ", request.headers)
    with pytest.raises(InvalidSignature, match="not signed"):
        verify(SECRET, request.body, request.headers | {"webhook-id": "k2"})
    with pytest.raises(InvalidSignature, match="missing"):
        verify(SECRET, request.body, {})


def test_a_webhook_that_is_replayed_later_is_not_believed() -> None:
    an_hour_ago = int(time.time()) - 3600
    headers = signed_headers(SECRET, PAYLOAD, "k1", an_hour_ago)
    with pytest.raises(InvalidSignature, match="too old"):
        verify(SECRET, PAYLOAD, headers)
    assert verify(SECRET, PAYLOAD, headers, tolerance_seconds=7200) == "k1"


def test_the_signature_is_the_one_of_the_specification() -> None:
    # Computed apart, with openssl: printf 'k1.1700000000.{}' | openssl dgst -sha256 -hmac 'known to both'
    headers = signed_headers(SECRET, b"{}", "k1", 1_700_000_000)
    assert headers["webhook-signature"] == "v1,i8qshtCgszgINAihuLV7qHcIfaILeuTDJlWITW4z63U="


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_temporary_failure_is_tried_again_under_the_same_key(status: int) -> None:
    with HttpEndpoint() as endpoint:
        endpoint.answers = [Answer(status), Answer(drop=True)]
        post(endpoint.url)
    assert len(endpoint.requests) == 3
    assert {request.headers["idempotency-key"] for request in endpoint.requests} == {"k1"}
    assert {request.body for request in endpoint.requests} == {PAYLOAD}
    assert all(verify(SECRET, request.body, request.headers) == "k1" for request in endpoint.requests)


@pytest.mark.parametrize("status", [301, 400, 401, 404, 410, 422])
def test_any_other_answer_is_final(status: int) -> None:
    with HttpEndpoint() as endpoint:
        endpoint.usual = Answer(status, {"location": "/elsewhere"})
        with pytest.raises(DeliveryRefused, match=f"answered {status}"):
            post(endpoint.url)
    assert len(endpoint.requests) == 1


def test_after_three_retries_it_is_given_up() -> None:
    with HttpEndpoint() as endpoint:
        endpoint.usual = Answer(503)
        with pytest.raises(DeliveryFailed, match="answered 503"):
            post(endpoint.url)
    assert len(endpoint.requests) == 4


def test_a_hanging_receiver_is_tried_four_times() -> None:
    with HttpEndpoint() as endpoint:
        endpoint.usual = Answer(after_seconds=60)
        with pytest.raises(DeliveryFailed, match="ReadTimeout"):
            post(endpoint.url, external_step_seconds=0.2)
        assert len(endpoint.requests) == 4


def test_a_receiver_that_is_away_is_a_failure() -> None:
    with DeafServer() as gone:
        pass
    with pytest.raises(DeliveryFailed, match="did not answer"):
        post(f"http://127.0.0.1:{gone.port}/")


def test_retry_after_is_honoured_within_bounds() -> None:
    an_hour_from_now = format_datetime(now().replace(year=now().year + 1), usegmt=True)
    with HttpEndpoint() as endpoint:
        endpoint.answers = [
            Answer(429, {"retry-after": "3600"}),
            Answer(503, {"retry-after": an_hour_from_now}),
            Answer(503, {"retry-after": "soon"}),
        ]
        post(endpoint.url, external_backoff_max_seconds=0.4)
    first, second, third, fourth = (request.at for request in endpoint.requests)
    assert second - first >= 0.39
    assert third - second >= 0.39
    assert fourth > third


def test_a_retry_after_of_zero_is_no_wait_at_all() -> None:
    with HttpEndpoint() as endpoint:
        endpoint.answers = [Answer(503, {"retry-after": "0"})]
        post(endpoint.url, external_backoff_seconds=60, external_backoff_max_seconds=60)
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://127.0.0.1:x/", "nonsense"])
def test_what_is_not_an_address_is_refused(url: str) -> None:
    with pytest.raises(DeliveryRefused, match="not an address"):
        post(url)


def test_retries_are_told_of_by_name_and_without_what_was_to_be_delivered() -> None:
    told: list[RetryDetails] = []
    set_on_retry_hooks([told.append])
    try:
        with HttpEndpoint() as endpoint:
            endpoint.answers = [Answer(503)]
            post(endpoint.url)
    finally:
        set_on_retry_hooks(None)
    [retry] = told
    assert retry.name == "taskflow.integrations.webhooks.WebhookService._attempt"
    assert (retry.args, retry.kwargs) == ((), {})


def test_the_fault_flaky_webhook_costs_two_retries_and_its_twin_none() -> None:
    retries: list[int] = []

    def deliver(faults: str) -> int:
        def note(details: RetryDetails) -> None:
            retries.append(details.retry_num)

        retries.clear()
        set_on_retry_hooks([note])
        try:
            with HttpEndpoint() as endpoint:
                post(endpoint.url, faults=faults)
        finally:
            set_on_retry_hooks(None)
        [request] = endpoint.requests
        assert verify(SECRET, request.body, request.headers) == "k1"
        return len(retries)

    assert deliver("flaky_webhook") == 2
    assert deliver("none") == 0
