"""SMTP clients: aiosmtplib and the standard library's smtplib. Connections and mails; no addresses, no texts.

Connecting (greeting, TLS and login of aiosmtplib included) is an attempt `CONNECT`, sending a mail an attempt `MAIL`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

from pyscope.probes.addresses import peer
from pyscope.probes.attempts import SILENT, Attempt, begin, fingerprint
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches

__all__ = ["SMTPProbe"]

_PEER = "_pyscope_peer"  # on a connected smtplib.SMTP, which does not keep its port


class SMTPProbe(ClientProbe):
    """Watches the SMTP clients that the program imports."""

    name = "smtp"
    extra = "taskflow"
    adapters: ClassVar = {
        "aiosmtplib": "pyscope.probes.smtp:AiosmtplibAdapter",
        "smtplib": "pyscope.probes.smtp:SmtplibAdapter",
    }


def _begin(
    operation: str, host: Any, port: Any, client: str, timeout: Any, *, blocking: bool, mail: Any = ()
) -> Attempt:
    try:
        host = host if type(host) is str and host else "localhost"
        return begin(
            "smtp",
            operation,
            peer(host, port if type(port) is int else None),
            client,
            blocking=blocking,
            timeout=timeout,
            same=fingerprint(*mail) if mail else 0,
        )
    except Exception:
        fault("smtp")
        return SILENT


def _mail(args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, str]) -> tuple[Any, Any]:
    """Sender and text, to tell mails apart: the arguments 1 and 3 of both clients' sendmail."""
    sender, text = names
    return (
        args[0] if args else kwargs.get(sender),
        args[2] if len(args) > 2 else kwargs.get(text),
    )


def _failed(attempt: Attempt, error: BaseException, code: str) -> None:
    """With the server's own code where it gave one; of several refused recipients, the first's."""
    found: Any = 0
    try:
        found = getattr(error, code, None)
        refused = getattr(error, "recipients", None)
        if found is None and type(refused) is list and refused:
            found = getattr(refused[0], code, 0)
        elif found is None and type(refused) is dict and refused:
            found = next(iter(refused.values()))[0]
    except Exception:
        fault("smtp")
        found = 0
    if type(found) is not int or not 0 < found < 1000:
        found = 0
    attempt.failed(error, found, str(found) if found else "")


class AiosmtplibAdapter:
    """aiosmtplib.SMTP.connect and sendmail; its functions and send_message go through them."""

    @staticmethod
    def patch(patches: Patches, library: ModuleType) -> None:
        """Watches aiosmtplib."""

        def make_connect(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            async def connect(self: Any, **kwargs: Any) -> Any:
                attempt = _connecting(self, kwargs) if patches.on else SILENT
                try:
                    response = await original(self, **kwargs)
                except BaseException as error:
                    _failed(attempt, error, "code")
                    raise
                attempt.succeeded()
                return response

            return connect

        def make_sendmail(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            async def sendmail(self: Any, *args: Any, **kwargs: Any) -> Any:
                attempt = SILENT
                if patches.on:
                    mail = _mail(args, kwargs, ("sender", "message"))
                    host, port, timeout = self.hostname, self.port, self.timeout
                    attempt = _begin("MAIL", host, port, "aiosmtplib", timeout, blocking=False, mail=mail)
                try:
                    response = await original(self, *args, **kwargs)
                except BaseException as error:
                    _failed(attempt, error, "code")
                    raise
                attempt.succeeded()
                return response

            return sendmail

        patches.replace(library.SMTP, "connect", make_connect)
        patches.replace(library.SMTP, "sendmail", make_sendmail)


def _connecting(client: Any, kwargs: dict[str, Any]) -> Attempt:
    try:
        host, port, timeout = (
            given if type(given) in (str, int, float) else getattr(client, name)
            for name, given in ((name, kwargs.get(name)) for name in ("hostname", "port", "timeout"))
        )
        if port is None:
            port = 465 if kwargs.get("use_tls") or client.use_tls else 25
        return _begin("CONNECT", host, port, "aiosmtplib", timeout, blocking=False)
    except Exception:
        fault("smtp")
        return SILENT


class SmtplibAdapter:
    """smtplib.SMTP.connect, which its constructor calls, and sendmail, which send_message calls."""

    @staticmethod
    def patch(patches: Patches, library: ModuleType) -> None:
        """Watches smtplib."""

        def make_connect(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def connect(self: Any, host: Any = "localhost", port: Any = 0, *args: Any, **kwargs: Any) -> Any:
                attempt = SILENT
                if patches.on:
                    name, number = self.__dict__[_PEER] = _smtplib_peer(self, host, port)
                    attempt = _begin("CONNECT", name, number, "smtplib", self.timeout, blocking=True)
                try:
                    response = original(self, host, port, *args, **kwargs)
                except BaseException as error:
                    _failed(attempt, error, "smtp_code")
                    raise
                attempt.succeeded()
                return response

            return connect

        def make_sendmail(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def sendmail(self: Any, *args: Any, **kwargs: Any) -> Any:
                attempt = SILENT
                if patches.on:
                    name, number = self.__dict__.get(_PEER, (None, None))
                    mail = _mail(args, kwargs, ("from_addr", "msg"))
                    attempt = _begin("MAIL", name, number, "smtplib", self.timeout, blocking=True, mail=mail)
                try:
                    response = original(self, *args, **kwargs)
                except BaseException as error:
                    _failed(attempt, error, "smtp_code")
                    raise
                attempt.succeeded()
                return response

            return sendmail

        patches.replace(library.SMTP, "connect", make_connect)
        patches.replace(library.SMTP, "sendmail", make_sendmail)


def _smtplib_peer(client: Any, host: Any, port: Any) -> tuple[str, int]:
    """As SMTP.connect reads its arguments: `host:port` in one is allowed."""
    try:
        if type(host) is not str or host.startswith("/"):
            return "unix", 0
        if not port and host.count(":") == 1:
            host, _, after = host.partition(":")
            port = int(after) if after.isascii() and after.isdigit() else 0
        return host, port if type(port) is int and port else client.default_port
    except Exception:
        fault("smtp")
        return "localhost", 0
