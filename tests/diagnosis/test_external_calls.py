"""External calls: time limits and retries of e-mail, webhooks and storage, each beside a twin that succeeds at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import pyscope
from pyscope.analysis import external
from pyscope.findings import ExternalCall
from pyscope.testing import assert_retry_attempts, assert_timeout_captured
from taskflow.integrations.retries import DeliveryFailed
from tests.diagnosis.conftest import Serve
from tests.diagnosis.service import Service, wait_until
from tests.integration.endpoints import Answer, DeafServer, HttpEndpoint, MailServer

OWN = ["taskflow.*"]
STEP_SECONDS = 0.15
# A wait is the one before it doubled, plus at most the first at random: so each is longer than the one before.
BACKOFF: dict[str, Any] = {
    "external_backoff_seconds": 0.02,
    "external_backoff_max_seconds": 5.0,
    "notification_retry_seconds": 3600,
}
IMPATIENT = BACKOFF | {"external_step_seconds": STEP_SECONDS}
PATIENT = BACKOFF | {"external_step_seconds": 30.0, "external_attempt_seconds": 60.0}

Start = Callable[..., Service]


@pytest.fixture
def start(serve: Serve) -> Start:
    """Starts a small service that gives up soon, or with what else is set."""
    return lambda **values: serve(**({"projects": 1, "tasks": 4, "webhook_secret": "s3cret-key"} | values))


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    """A mail server that takes what comes."""
    with MailServer() as server:
        yield server


@pytest.fixture
def endpoint() -> Iterator[HttpEndpoint]:
    """A subscriber of webhooks."""
    with HttpEndpoint() as server:
        yield server


def delivered(service: Service, channel: str, count: int = 1) -> None:
    """Waits until so many deliveries of a channel have ended, well or not."""

    def ended() -> bool:
        figures = service.get("/notifications")[channel]
        return int(figures["sent"]) + int(figures["failed"]) >= count

    wait_until(ended)


def assign_a_task(service: Service, title: str = "Write the report") -> None:
    """Something of which the assignee is mailed."""
    service.post(f"/tasks/{service.create_task(title=title)}/assign", {"assignee_id": 1})


def calls_of(runtime: Any, service: str) -> list[ExternalCall]:
    return [call for call in runtime.get_external_calls() if call.service == service]


def growing(call: ExternalCall) -> bool:
    """Whether nothing was waited for at first, and longer each time after that."""
    waits = [attempt.backoff_ns for attempt in call.attempts]
    return waits[0] == 0 and all(before < after for before, after in pairwise(waits))


# --- e-mail --------------------------------------------------------------------------------------


def test_hanging_email_times_out_with_exactly_three_retries(start: Start, pyscope_runtime: Any) -> None:
    service = start(faults="hanging_email", **IMPATIENT)
    pyscope_runtime.trace_external_calls(modules=OWN)
    assign_a_task(service)
    delivered(service, "email")
    calls = pyscope_runtime.get_external_calls()
    call = assert_timeout_captured(calls, "smtp", operation="MAIL", outcome="timed_out")
    assert assert_retry_attempts(calls, "smtp", 3) is call
    assert [attempt.outcome for attempt in call.attempts] == ["timed_out"] * 4
    assert {attempt.error for attempt in call.attempts} == {"aiosmtplib.SMTPConnectTimeoutError"}
    assert {attempt.timeout_ns for attempt in call.attempts} == {round(STEP_SECONDS * 1e9)}
    assert all(attempt.duration_ns >= STEP_SECONDS * 0.9e9 for attempt in call.attempts)
    assert growing(call)
    assert (call.client, call.repeated_by) == ("aiosmtplib", "stamina")


def test_the_twin_of_hanging_email_is_delivered_without_a_retry(
    start: Start, mail_server: MailServer, pyscope_runtime: Any
) -> None:
    service = start(smtp_url=mail_server.url, **PATIENT)
    pyscope_runtime.trace_external_calls(modules=OWN)
    assign_a_task(service)
    delivered(service, "email")
    assert len(mail_server.mails) == 1
    [call] = calls_of(pyscope_runtime, "smtp")
    assert (call.operation, call.outcome, call.retries, call.timed_out) == ("MAIL", "succeeded", 0, False)
    assert call.repeated_by == ""
    with pytest.raises(AssertionError, match="no call to smtp timed out"):
        assert_timeout_captured([call], "smtp")


def test_the_server_sees_as_many_connections_as_there_are_attempts(
    start: Start, pyscope_runtime: Any
) -> None:
    with DeafServer() as deaf:
        service = start(smtp_url=f"smtp://127.0.0.1:{deaf.port}", external_retries=1, **IMPATIENT)
        pyscope_runtime.trace_external_calls(modules=OWN)
        assign_a_task(service)
        delivered(service, "email")
        call = assert_timeout_captured(calls_of(pyscope_runtime, "smtp"), "smtp")
        assert len(call.attempts) == deaf.connections == 2
        assert call.peer == f"127.0.0.1:{deaf.port}"
        with pytest.raises(AssertionError, match="no call to smtp had 3 retries"):
            assert_retry_attempts([call], "smtp", 3)


def test_mails_that_hang_side_by_side_are_told_apart(start: Start, pyscope_runtime: Any) -> None:
    service = start(faults="hanging_email", **IMPATIENT)
    pyscope_runtime.trace_external_calls(modules=OWN)
    for number in range(3):
        assign_a_task(service, f"Task {number}")
    delivered(service, "email", 3)
    calls = calls_of(pyscope_runtime, "smtp")
    assert [(call.retries, call.outcome) for call in calls] == [(3, "timed_out")] * 3
    assert len({call.context for call in calls}) == 3
    assert all(growing(call) for call in calls)


def test_a_busy_mail_server_is_retried_without_a_timeout(
    start: Start, mail_server: MailServer, pyscope_runtime: Any
) -> None:
    mail_server.answers = ["451 busy", "452 full"]
    service = start(smtp_url=mail_server.url, **PATIENT)
    pyscope_runtime.trace_external_calls(modules=OWN)
    assign_a_task(service)
    delivered(service, "email")
    call = assert_retry_attempts(calls_of(pyscope_runtime, "smtp"), "smtp", 2, outcome="succeeded")
    assert not call.timed_out
    assert [attempt.outcome for attempt in call.attempts] == ["failed", "failed", "succeeded"]
    assert [attempt.status for attempt in call.attempts[:2]] == [451, 452]


def test_a_mailbox_that_does_not_exist_is_one_failed_attempt(
    start: Start, mail_server: MailServer, pyscope_runtime: Any
) -> None:
    mail_server.answers = ["550 no such user"]
    service = start(smtp_url=mail_server.url, **PATIENT)
    pyscope_runtime.trace_external_calls(modules=OWN)
    assign_a_task(service)
    delivered(service, "email")
    call = assert_retry_attempts(calls_of(pyscope_runtime, "smtp"), "smtp", 0, outcome="failed")
    assert [attempt.status for attempt in call.attempts] == [550]


# --- webhooks ------------------------------------------------------------------------------------


def test_flaky_webhook_is_delivered_after_two_retries(
    start: Start, endpoint: HttpEndpoint, pyscope_runtime: Any
) -> None:
    service = start(faults="flaky_webhook", webhook_urls=endpoint.url, **PATIENT)
    pyscope_runtime.trace_external_calls(modules=["taskflow.integrations.webhooks"])
    service.create_task()
    delivered(service, "webhook")
    call = assert_retry_attempts(calls_of(pyscope_runtime, "http"), "http", 2, outcome="succeeded")
    assert [attempt.status for attempt in call.attempts] == [503, 503, 200]
    assert [attempt.error for attempt in call.attempts] == ["HTTP 503", "HTTP 503", ""]
    assert growing(call)
    assert not call.timed_out
    assert len(endpoint.requests) == 1


def test_the_twin_of_flaky_webhook_is_delivered_at_once(
    start: Start, endpoint: HttpEndpoint, pyscope_runtime: Any
) -> None:
    service = start(webhook_urls=endpoint.url, **PATIENT)
    pyscope_runtime.trace_external_calls(modules=OWN)
    service.create_task()
    delivered(service, "webhook")
    [call] = calls_of(pyscope_runtime, "http")
    assert (call.operation, call.peer) == ("POST /hook", f"127.0.0.1:{endpoint.port}")
    assert (call.retries, call.outcome, call.repeated_by) == (0, "succeeded", "")


def test_a_subscriber_that_keeps_refusing_is_given_up_after_three_retries(
    start: Start, endpoint: HttpEndpoint, pyscope_runtime: Any
) -> None:
    endpoint.usual = Answer(503)
    service = start(webhook_urls=endpoint.url, **PATIENT)
    pyscope_runtime.trace_external_calls(modules=OWN)
    service.create_task()
    delivered(service, "webhook")
    call = assert_retry_attempts(calls_of(pyscope_runtime, "http"), "http", 3, outcome="failed")
    assert len(endpoint.requests) == len(call.attempts) == 4
    assert len({request.headers["idempotency-key"] for request in endpoint.requests}) == 1


def test_a_subscriber_that_does_not_answer_in_time_is_a_timeout(
    start: Start, endpoint: HttpEndpoint, pyscope_runtime: Any
) -> None:
    endpoint.answers = [Answer(after_seconds=60)]
    service = start(webhook_urls=endpoint.url, external_retries=0, **IMPATIENT)
    pyscope_runtime.trace_external_calls(modules=OWN)
    service.create_task()
    delivered(service, "webhook")
    call = assert_timeout_captured(calls_of(pyscope_runtime, "http"), "http", retries=0, outcome="timed_out")
    assert call.attempts[0].error == "httpx2.ReadTimeout"


# --- storage -------------------------------------------------------------------------------------


def test_failing_storage_is_tried_four_times_and_given_up(start: Start, pyscope_runtime: Any) -> None:
    storage = start(faults="failing_storage", **BACKOFF).application.storage
    pyscope_runtime.trace_external_calls(modules=OWN)
    with pytest.raises(DeliveryFailed):
        storage.write("reports/page.html", b"<p>")
    call = assert_retry_attempts(pyscope_runtime.get_external_calls(), "retry", 3, outcome="failed")
    assert call.operation.endswith("FileStorage._attempt_to_write")
    assert [attempt.outcome for attempt in call.attempts] == ["failed"] * 4
    assert growing(call)
    assert "FileStorage.write" in [place.function for place in call.stack]


def test_the_twin_of_failing_storage_writes_without_a_retry(start: Start, pyscope_runtime: Any) -> None:
    storage = start(storage_url="memory://diagnosis", **BACKOFF).application.storage
    pyscope_runtime.trace_external_calls(modules=OWN)
    storage.write("reports/page.html", b"<p>")
    [call] = pyscope_runtime.get_external_calls()
    assert (call.service, call.operation, call.peer) == ("storage", "WRITE", "memory")
    assert (call.retries, call.outcome) == (0, "succeeded")


def test_the_retries_of_a_reports_process_are_in_the_recording(
    start: Start, tmp_path: Path, pyscope_runtime: Any
) -> None:
    path = tmp_path / "report.pyscope"
    service = start(faults="failing_storage", **BACKOFF)
    pyscope_runtime.start_tracing(modules=OWN, path=path, probes=["retry", "storage"])
    report = service.post("/reports", {"year": 2025})["id"]
    wait_until(lambda: service.get(f"/reports/{report}")["status"] == "failed")
    pyscope_runtime.stop_all()
    found = external.find(pyscope.load(path))
    call = assert_retry_attempts(found, "retry", 3, outcome="failed")
    assert call.operation.endswith("FileStorage._attempt_to_write")
    assert any(place.function == "write_annual_report" for place in call.stack)


# --- where, for whom, and what is not told -------------------------------------------------------


def test_the_call_site_is_the_integrations_and_the_stack_leads_to_who_wanted_it(
    start: Start, pyscope_runtime: Any
) -> None:
    service = start(faults="hanging_email", **IMPATIENT)
    pyscope_runtime.trace_external_calls(modules=OWN)
    assign_a_task(service)
    delivered(service, "email")
    [call] = calls_of(pyscope_runtime, "smtp")
    assert call.call_site == call.stack[0]
    assert call.call_site.file.endswith("taskflow/integrations/email.py")
    assert call.call_site.function == "EmailService._attempt"
    assert [place.function for place in call.stack if place.function.endswith(("send", "_mail"))] == [
        "EmailService.send",
        "NotificationService._mail",
    ]
    assert (call.thread, call.scope) == ("uvicorn", 0)
    assert call.context


def test_a_call_that_a_request_makes_carries_the_requests_scope(start: Start, pyscope_runtime: Any) -> None:
    service = start(tasks=20, **BACKOFF)
    report = service.post("/reports", {"year": 2025})["id"]
    wait_until(lambda: service.get(f"/reports/{report}")["status"] == "finished")
    pyscope_runtime.trace_external_calls(modules=OWN)
    for _ in range(2):
        assert service.client.get(f"/reports/{report}/file").status_code == 200
    reads = calls_of(pyscope_runtime, "storage")
    assert [(read.operation, read.retries, read.outcome) for read in reads] == [("READ", 0, "succeeded")] * 2
    assert 0 not in {read.scope for read in reads}
    assert len({read.scope for read in reads}) == 2


def test_only_calls_from_the_modules_that_were_named_are_told(
    start: Start, endpoint: HttpEndpoint, pyscope_runtime: Any
) -> None:
    service = start(faults="hanging_email", webhook_urls=endpoint.url, external_retries=0, **IMPATIENT)
    pyscope_runtime.trace_external_calls(modules=["taskflow.integrations.email"])
    assign_a_task(service)
    delivered(service, "email")
    delivered(service, "webhook", 2)
    assert {call.service for call in pyscope_runtime.get_external_calls()} == {"smtp"}


def test_no_secret_address_or_text_gets_into_the_recording(
    start: Start, endpoint: HttpEndpoint, mail_server: MailServer, tmp_path: Path, pyscope_runtime: Any
) -> None:
    path = tmp_path / "calls.pyscope"
    hook = f"http://eve:hook-pass@127.0.0.1:{endpoint.port}/hook/0123456789abcdef?token=query-token"
    service = start(smtp_url=mail_server.url, webhook_urls=hook, **PATIENT)
    pyscope_runtime.start_tracing(modules=OWN, path=path, probes=["http", "smtp", "retry", "asgi"])
    assign_a_task(service, "A confidential title")
    delivered(service, "email")
    delivered(service, "webhook", 2)
    pyscope_runtime.stop_all()
    assert len(mail_server.mails) == 1
    assert "query-token" in endpoint.requests[0].path
    trace = pyscope.load(path)
    found = external.find(trace)
    assert {call.service for call in found} >= {"smtp", "http"}
    told = "\n".join([*trace.strings, *map(repr, found)])
    key = endpoint.requests[0].headers["webhook-id"]
    for secret in ("hook-pass", "query-token", "s3cret-key", "confidential", "taskflow.example", key):
        assert secret not in told


def test_after_the_stop_calls_are_made_and_no_longer_followed(
    start: Start, endpoint: HttpEndpoint, pyscope_runtime: Any
) -> None:
    service = start(webhook_urls=endpoint.url, **PATIENT)
    pyscope_runtime.trace_external_calls(modules=OWN)
    service.create_task()
    delivered(service, "webhook")
    pyscope_runtime.stop_external_calls()
    service.create_task()
    delivered(service, "webhook", 2)
    assert len(endpoint.requests) == 2
    assert len(pyscope_runtime.get_external_calls()) == 1
