"""Servers on loopback that accept, refuse, hang, drop and recover: what TaskFlow's integrations talk to."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

DEADLINE_SECONDS = 30.0


def until(condition: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
    """Wait until `condition` holds and return what it gave; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.01)


@dataclass(frozen=True)
class Mail:
    """A message that the mail server took."""

    sender: str
    recipients: list[str]
    content: bytes


class MailServer:
    """A real SMTP server in a thread, as a context manager; `url` is its address.

    `answers` is what it says to the next messages, one each: `"250 …"` accepts, `"4xx …"`, `"5xx …"` refuse
    the recipient; `accept` is what it says when they are used up. Stopped and started again it has the
    same address.
    """

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"smtp://127.0.0.1:{self.port}"
        self.mails: list[Mail] = []
        self.answers: list[str] = []
        self.attempts = 0
        self._controller: Controller | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to serve."""
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, ready_timeout=30)
        self._controller.start()

    def stop(self) -> None:
        """Serve no more; connections are refused."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """aiosmtpd's hook for each recipient."""
        self.attempts += 1
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """aiosmtpd's hook for each message."""
        self.mails.append(Mail(envelope.mail_from or "", list(envelope.rcpt_tos), envelope.content or b""))
        return "250 taken"


class DeafServer:
    """Accepts connections and never says a word (`hangs`), or ends them at once; `connections` counts."""

    def __init__(self, hangs: bool = True) -> None:
        self.connections = 0
        self._hangs = hangs
        self._held: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._held:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self._hangs:
                self._held.append(connection)
            else:
                connection.close()


@dataclass(frozen=True)
class Request:
    """A request that the endpoint got; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Answer:
    """What the endpoint does with a request: answer, after a while; or end the connection (`drop`)."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after_seconds: float = 0.0
    drop: bool = False


class HttpEndpoint:
    """A real HTTP server in threads, as a context manager; `url` is its address.

    The next requests get `answers`, one each; once they are used up `usual`.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: list[Answer] = []
        self.usual = Answer()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                endpoint._serve(self)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            self.requests.append(Request(handler.path, headers, body))
            answer = self.answers.pop(0) if self.answers else self.usual
        if answer.after_seconds:
            self._ending.wait(answer.after_seconds)
        handler.close_connection = True
        if answer.drop:
            return
        try:
            handler.send_response(answer.status)
            for name, value in answer.headers.items():
                handler.send_header(name, value)
            handler.send_header("content-length", "0")
            handler.end_headers()
        except OSError:
            pass  # the client did not wait
