"""E-mail over SMTP, one connection a message, with retries that cannot make it arrive twice unnoticed."""

import socket
from contextlib import AsyncExitStack
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

import aiosmtplib

from taskflow.data.models import now
from taskflow.faults import HANGING_EMAIL
from taskflow.integrations.loopback import LOOPBACK, BlackHole
from taskflow.integrations.retries import DeliveryFailed, DeliveryRefused, RetryPolicy
from taskflow.settings import Settings

FIRST_PERMANENT_CODE: Final = 500


class EmailService:
    """Sends messages through the server of `settings.smtp_url`, as an async context manager.

    `configured` is False where there is none. With the fault `hanging_email` it talks to a server of its
    own on loopback that accepts connections and never answers.
    """

    def __init__(self, settings: Settings) -> None:
        self.configured = settings.smtp_url is not None
        self._hangs = HANGING_EMAIL.name in settings.faults
        self._policy = RetryPolicy.of(settings)
        self._sender = settings.mail_sender
        url = urlsplit(settings.smtp_url.get_secret_value() if settings.smtp_url else "smtp://localhost")
        self._host, self._port = url.hostname or "localhost", url.port
        self._user = unquote(url.username) if url.username else None
        self._password = unquote(url.password) if url.password else None
        self._tls = url.scheme == "smtps"
        self._open = AsyncExitStack()
        self._deliver = self._policy.retrying(self._attempt, _may_work_soon)

    async def __aenter__(self) -> Self:
        if self._hangs:
            hole = await self._open.enter_async_context(BlackHole())
            self._host, self._port, self._tls, self.configured = LOOPBACK, hole.port, False, True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def send(self, to: str, subject: str, text: str, key: str) -> str:
        """Send one message and return its Message-ID, made of `key`.

        The Message-ID is the idempotency key: every attempt carries the same, so a server or reader that
        gets a message twice (its answer was lost) can tell. DeliveryRefused where trying again is of no
        use (no such mailbox, not an address), DeliveryFailed after the last retry.
        """
        message = _message(self._sender, to, subject, text, key)
        try:
            await self._deliver(message)
        except ValueError as error:  # what the server cannot be told in its own protocol
            raise DeliveryRefused(f"no message can be sent to {to}: {error}") from error
        except (aiosmtplib.SMTPException, OSError) as error:
            if _blames_the_message(error):
                raise DeliveryRefused(f"the mail server refused the message to {to}: {error}") from error
            raise DeliveryFailed(f"the mail server did not take the message to {to}: {error!r}") from error
        return str(message["Message-ID"])

    async def _attempt(self, message: EmailMessage) -> None:
        await aiosmtplib.send(
            message,
            hostname=self._host,
            port=self._port,
            username=self._user,
            password=self._password,
            use_tls=self._tls,
            timeout=self._policy.step_seconds,
            local_hostname=socket.gethostname() or None,  # otherwise found by a DNS look-up
        )


def _message(sender: str, to: str, subject: str, text: str, key: str) -> EmailMessage:
    message = EmailMessage()
    try:
        address = Address(addr_spec=to)
    except (MessageError, ValueError, IndexError, AttributeError) as error:  # the parser has holes
        raise DeliveryRefused(f"{to!r} is not an e-mail address") from error
    message["From"] = sender
    message["To"] = address
    message["Subject"] = " ".join(subject.split())  # a header is one line
    message["Date"] = format_datetime(now())
    message["Message-ID"] = f"<{key}@taskflow>"
    message.set_content(text)
    return message


def _may_work_soon(error: Exception) -> bool:
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return error.code < FIRST_PERMANENT_CODE
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return any(_may_work_soon(refused) for refused in error.recipients)
    return isinstance(error, (aiosmtplib.SMTPException, OSError))


def _blames_the_message(error: Exception) -> bool:
    """Not so a refused login or greeting: that is for the operator to mend, and the message can wait."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return all(_blames_the_message(refused) for refused in error.recipients)
    return (
        isinstance(error, (aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError))
        and error.code >= FIRST_PERMANENT_CODE
    )
