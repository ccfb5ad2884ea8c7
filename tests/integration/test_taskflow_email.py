"""E-mail against real mail servers: one that takes messages, and those that refuse, hang and drop."""

import asyncio
import email
import email.policy

import pytest

from taskflow.integrations.email import EmailService
from taskflow.integrations.retries import DeliveryFailed, DeliveryRefused
from taskflow.settings import Settings
from tests.integration.endpoints import DeafServer, MailServer

QUICK = {
    "faults": "none",
    "external_step_seconds": 0.1,
    "external_backoff_seconds": 0.01,
    "external_backoff_max_seconds": 0.05,
}


def send(
    url: str | None,
    to: str = "ada@taskflow.example",
    subject: str = "News",
    key: str = "k1",
    **values: object,
) -> str:
    async def run() -> str:
        settings = Settings.model_validate(QUICK | {"smtp_url": url} | values)
        async with EmailService(settings) as service:
            return await service.send(to, subject, "Something happened.\n", key)

    return asyncio.run(run())


PATIENT = {"external_step_seconds": 20.0, "external_attempt_seconds": 30.0}


def test_a_message_arrives_as_it_was_written() -> None:
    with MailServer() as server:
        assert send(server.url, subject="Täsk\r\nBcc: eve@evil.example", **PATIENT) == "<k1@taskflow>"
    [mail] = server.mails
    message = email.message_from_bytes(mail.content, policy=email.policy.default)
    assert mail.recipients == ["ada@taskflow.example"]
    assert message["To"] == "ada@taskflow.example"
    assert message["From"] == "taskflow@localhost"
    assert message["Subject"] == "Täsk Bcc: eve@evil.example"
    assert message["Bcc"] is None
    assert message.get_content().splitlines() == ["Something happened."]


def test_a_temporary_refusal_is_tried_again_under_the_same_message_id() -> None:
    with MailServer() as server:
        server.answers = ["451 busy", "452 full"]
        send(server.url, **PATIENT)
    assert server.attempts == 3
    [mail] = server.mails
    assert b"Message-ID: <k1@taskflow>" in mail.content


def test_a_mailbox_that_does_not_exist_is_refused_at_once() -> None:
    with MailServer() as server:
        server.answers = ["550 no such user"]
        with pytest.raises(DeliveryRefused, match="no such user"):
            send(server.url, **PATIENT)
    assert server.attempts == 1


@pytest.mark.parametrize("address", ["x,y@d", "(@b", "a@[", "<a@b", "", "a@b c", "\u00e9@b.example"])
def test_what_is_not_an_address_never_reaches_the_server(address: str) -> None:
    with MailServer() as server, pytest.raises(DeliveryRefused):
        send(server.url, to=address, **PATIENT)
    assert server.attempts == 0


def test_a_hanging_mail_server_is_tried_four_times_and_given_up() -> None:
    with DeafServer() as server, pytest.raises(DeliveryFailed, match="Timeout"):
        send(f"smtp://127.0.0.1:{server.port}")
    assert server.connections == 4


def test_a_mail_server_that_drops_connections_is_tried_four_times_and_given_up() -> None:
    with DeafServer(hangs=False) as server, pytest.raises(DeliveryFailed, match="ConnectError"):
        send(f"smtp://127.0.0.1:{server.port}", **PATIENT)
    assert server.connections == 4


def test_a_mail_server_that_is_away_is_a_failure_that_names_no_defect() -> None:
    with DeafServer() as server:
        pass
    with pytest.raises(DeliveryFailed, match="message to ada"):
        send(f"smtp://127.0.0.1:{server.port}", external_retries=0)


def test_all_attempts_together_end_in_the_time_of_the_whole_call() -> None:
    with DeafServer() as server, pytest.raises(DeliveryFailed, match="TimeoutError"):
        send(f"smtp://127.0.0.1:{server.port}", external_step_seconds=60, external_call_seconds=0.2)
    assert server.connections == 1


def test_an_attempt_ends_in_its_own_time_whatever_its_steps_may_take() -> None:
    with DeafServer() as server, pytest.raises(DeliveryFailed, match="TimeoutError"):
        send(f"smtp://127.0.0.1:{server.port}", external_step_seconds=60, external_attempt_seconds=0.1)
    assert server.connections == 4


def test_the_fault_hanging_email_times_out_at_a_real_socket_and_its_twin_delivers() -> None:
    with MailServer() as server:
        with pytest.raises(DeliveryFailed, match="Timed out waiting for server ready message"):
            send(server.url, faults="hanging_email")
        assert server.attempts == 0
        send(server.url, faults="none", **PATIENT)
        assert server.attempts == 1


def test_the_fault_hanging_email_needs_no_mail_server() -> None:
    with pytest.raises(DeliveryFailed, match="Timed out"):
        send(None, faults="hanging_email", external_retries=1)
