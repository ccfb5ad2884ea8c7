"""Mails over SMTP: one call each, with connection, server's refusals, timeouts and retries."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
import stamina
from services import unused_port

import pyscope
from pyscope import probes
from pyscope.analysis import external
from pyscope.findings import ExternalCall
from tests.integration.endpoints import DeafServer, MailServer

Calls = Callable[..., list[ExternalCall]]
SOON = 0.3


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as running:
        yield running


def message(text: str = "hello") -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "me@here.example", "secret-person@there.example", "a secret"
    made.set_content(text)
    return made


def by_aiosmtplib(port: int, timeout: float = 30, mail: EmailMessage | None = None) -> None:
    asyncio.run(aiosmtplib.send(mail or message(), hostname="127.0.0.1", port=port, timeout=timeout))


def by_smtplib(port: int, timeout: float = 30, mail: EmailMessage | None = None) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=timeout) as client:
        client.send_message(mail or message())


CLIENTS = [by_aiosmtplib, by_smtplib]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_mail_is_one_call_from_its_connection_on(calls: Calls, server: MailServer, client: Any) -> None:
    [call] = calls(lambda: client(server.port))
    assert len(server.mails) == 1
    assert (call.service, call.operation, call.peer) == ("smtp", "MAIL", f"127.0.0.1:{server.port}")
    assert (call.outcome, call.retries, call.attempts[0].timeout_ns) == ("succeeded", 0, 30e9)
    assert call.call_site.file == __file__


@pytest.mark.parametrize("client", CLIENTS)
def test_a_refusal_is_told_by_its_code(calls: Calls, server: MailServer, client: Any) -> None:
    server.answers = ["550 no such secret-person"]

    def body() -> None:
        with pytest.raises(Exception, match="secret-person"):
            client(server.port)

    [call] = calls(body)
    assert (call.outcome, call.attempts[0].status) == ("failed", 550)
    assert call.attempts[0].error.endswith("SMTPRecipientsRefused: 550")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_refused_connection_is_a_failed_mail(calls: Calls, client: Any) -> None:
    def body() -> None:
        with pytest.raises((OSError, aiosmtplib.SMTPException)):
            client(unused_port())

    [call] = calls(body)
    assert (call.operation, call.outcome, call.timed_out) == ("MAIL", "failed", False)
    assert "Connection refused" in call.attempts[0].error


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_never_greets_is_a_timeout(calls: Calls, client: Any) -> None:
    def body() -> None:
        with DeafServer() as deaf, pytest.raises((OSError, aiosmtplib.SMTPException)):
            client(deaf.port, timeout=SOON)

    [call] = calls(body)
    assert (call.operation, call.outcome, call.timed_out) == ("MAIL", "timed_out", True)


@pytest.mark.parametrize("client", CLIENTS)
def test_four_attempts_with_three_retries_of_one_mail(calls: Calls, client: Any) -> None:
    mail = message()

    def body() -> None:
        with DeafServer() as deaf:
            with pytest.raises((OSError, aiosmtplib.SMTPException)):
                stamina.retry(on=Exception, attempts=4, wait_initial=0.01, wait_jitter=0)(client)(
                    deaf.port, SOON, mail
                )
            assert deaf.connections == 4

    [call] = calls(body)
    assert (call.retries, call.outcome, call.timed_out, call.repeated_by) == (3, "timed_out", True, "stamina")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_loop_written_by_hand_recovers(calls: Calls, server: MailServer, client: Any) -> None:
    server.answers = ["451 later", "451 later"]
    mail = message()

    def body() -> None:
        for _ in range(4):
            with contextlib.suppress(aiosmtplib.SMTPException, smtplib.SMTPException):
                client(server.port, mail=mail)
                break

    [call] = calls(body)
    assert (call.retries, call.outcome, call.repeated_by) == (2, "succeeded", "loop")
    assert [attempt.status for attempt in call.attempts] == [451, 451, 0]


@pytest.mark.parametrize("client", CLIENTS)
def test_mails_to_several_people_are_no_retries_even_if_they_fail(
    calls: Calls, server: MailServer, client: Any
) -> None:
    server.answers = ["550 no"] * 3

    def body() -> None:
        for number in range(3):
            with contextlib.suppress(aiosmtplib.SMTPException, smtplib.SMTPException):
                client(server.port, mail=message(f"for {number}"))

    assert [(call.retries, call.outcome) for call in calls(body)] == [(0, "failed")] * 3


def test_several_mails_over_one_connection_are_several_calls(calls: Calls, server: MailServer) -> None:
    def body() -> None:
        with smtplib.SMTP(f"127.0.0.1:{server.port}") as client:
            client.send_message(message("one"))
            client.send_message(message("two"))

    found = calls(body)
    assert [(call.operation, call.peer, call.outcome) for call in found] == [
        ("MAIL", f"127.0.0.1:{server.port}", "succeeded")
    ] * 2


def test_no_address_and_no_text_is_recorded(tmp_path: Path, server: MailServer) -> None:
    path = tmp_path / "run.pyscope"
    with pyscope.record(path, modules=[__name__], probes=["smtp"]):
        for client in CLIENTS:
            client(server.port)
    assert len(external.find(pyscope.load(path))) == 2
    assert b"secret" not in path.read_bytes()


def test_a_cancelled_mail_is_cancelled(calls: Calls) -> None:
    async def cancel(deaf: DeafServer) -> None:
        task = asyncio.create_task(aiosmtplib.send(message(), hostname="127.0.0.1", port=deaf.port))
        while not deaf.connections:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def body() -> None:
        with DeafServer() as deaf:
            asyncio.run(cancel(deaf))

    [call] = calls(body)
    assert (call.outcome, call.timed_out) == ("cancelled", False)


def test_the_clients_are_as_they_were_after_the_probe_is_gone() -> None:
    owners = [smtplib.SMTP, aiosmtplib.SMTP]
    before = [dict(vars(owner)) for owner in owners]
    held = probes.acquire(["smtp"])
    assert [dict(vars(owner)) for owner in owners] != before
    probes.release(held)
    for owner, old in zip(owners, before, strict=True):
        assert all(old[name] is vars(owner)[name] for name in old | dict(vars(owner)))
