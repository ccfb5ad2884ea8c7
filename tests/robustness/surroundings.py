"""The servers that `everything` talks to, all real and on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from everything import Surroundings

from taskflow.data.valkey import EmbeddedValkey


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.path.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class _Mailbox:
    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("refused"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        return "250 OK"


@contextlib.contextmanager
def surroundings() -> Iterator[Surroundings]:
    """Starts the servers, and ends them after the block."""
    with contextlib.ExitStack() as ending:
        web = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
        web.daemon_threads = True
        ending.callback(web.server_close)
        serving = threading.Thread(target=web.serve_forever, args=(0.02,))
        serving.start()
        ending.callback(serving.join)
        ending.callback(web.shutdown)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        mail = Controller(_Mailbox(), hostname="127.0.0.1", port=port, ready_timeout=60)
        mail.start()
        ending.callback(mail.stop)
        cache = EmbeddedValkey()
        asyncio.run(cache.__aenter__())
        ending.callback(lambda: asyncio.run(cache.stop()))
        path = cache.url.removeprefix("unix://").partition("?")[0]
        yield Surroundings(f"http://127.0.0.1:{web.server_port}", port, path)
