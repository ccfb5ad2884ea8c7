"""HTTP servers on loopback that answer, refuse, redirect, hang in the head or in the body, and recover."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

TLS = ssl.create_default_context()  # httpx reads all certificates of the system for each client that has none


@dataclass(frozen=True)
class Answer:
    """What the service does with one request. `hang`: "head" or "body", until it ends; `to`: a redirect."""

    status: int = 200
    body: bytes = b"ok"
    hang: str = ""
    to: str = ""


class Service:
    """A real HTTP server in threads; the next requests get `answers`, one each, the rest `Answer()`."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []
        self.ending = threading.Event()
        lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                with lock:
                    service.requests.append(self.path)
                    answer = service.answers.pop(0) if service.answers else Answer()
                if answer.hang == "head":
                    service.ending.wait()
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                if answer.to:
                    self.send_header("location", answer.to)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                if answer.hang == "body":
                    self.wfile.write(answer.body[:1])
                    service.ending.wait()
                    self.close_connection = True
                    return
                self.wfile.write(answer.body)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.peer = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.peer}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port
