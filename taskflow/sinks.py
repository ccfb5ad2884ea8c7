"""Where the demo's notifications go: a mail server and a webhook receiver on loopback, in threads, that count."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from taskflow.integrations.webhooks import InvalidSignature, verify

LOOPBACK: Final = "127.0.0.1"
READY_SECONDS: Final = 30
LARGEST_BODY: Final = 1 << 20


class MailSink:
    """An SMTP server that takes every message and keeps none, as a context manager; `url` is its address."""

    def __init__(self) -> None:
        self.messages = 0
        # aiosmtpd wants to know its port beforehand.
        with socket.create_server((LOOPBACK, 0)) as free:
            port = free.getsockname()[1]
        self.url = f"smtp://{LOOPBACK}:{port}"
        self._controller = Controller(self, hostname=LOOPBACK, port=port, ready_timeout=READY_SECONDS)

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._controller.stop(no_assert=True)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """aiosmtpd's hook for each message."""
        self.messages += 1
        return "250 taken"


class WebhookSink:
    """An HTTP server that takes what is signed with `secret`, as a context manager; `url` is its address.

    `deliveries` counts messages, each once however often it was sent; `forged` counts what had no good
    signature.
    """

    def __init__(self, secret: str) -> None:
        self.forged = 0
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        sink = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = min(int(self.headers.get("content-length", "0")), LARGEST_BODY)
                accepted = sink._accept(secret, self.rfile.read(length), dict(self.headers))
                self.send_response(204 if accepted else 401)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Receiver)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook sink", daemon=True)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}/hooks"

    @property
    def deliveries(self) -> int:
        """How many different messages arrived."""
        return len(self._seen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _accept(self, secret: str, payload: bytes, headers: dict[str, str]) -> bool:
        try:
            key = verify(secret, payload, {name.lower(): value for name, value in headers.items()})
        except InvalidSignature:
            with self._lock:
                self.forged += 1
            return False
        with self._lock:
            self._seen.add(key)
        return True
