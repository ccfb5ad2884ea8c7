"""The real server: uvicorn on a socket of our own, so that port 0 works and readiness can be told."""

import signal
import socket
import sys
from pathlib import Path

import uvicorn

from taskflow.settings import Settings
from taskflow.web.app import create_app

BACKLOG = 2048


class _AnnouncingServer(uvicorn.Server):
    """A uvicorn server that says when it is ready, on standard output and in a file."""

    def __init__(self, config: uvicorn.Config, host: str, port: int, port_file: Path | None) -> None:
        super().__init__(config)
        self._host = host
        self._port = port
        self._port_file = port_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._port_file is not None:
            # Renamed into place, so that a reader never sees half of it.
            unfinished = self._port_file.with_name(self._port_file.name + ".new")
            unfinished.write_text(f"{self._port}\n", encoding="ascii")
            unfinished.replace(self._port_file)
        host = f"[{self._host}]" if ":" in self._host else self._host
        sys.stdout.write(f"taskflow ready url=http://{host}:{self._port} port={self._port}\n")
        sys.stdout.flush()


def serve(
    settings: Settings, host: str, port: int, port_file: Path | None = None, log_level: str = "warning"
) -> int:
    """Serve until SIGTERM or SIGINT, then finish the requests in flight; returns the exit status.

    Port 0 takes a free one. Once requests are accepted, one line `taskflow ready url=… port=…` goes
    to standard output and the port to `port_file`. OSError when the address cannot be had.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        create_app(settings),
        log_level=log_level,
        loop="asyncio",  # whatever else is installed: figures are to be comparable
        access_log=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    server = _AnnouncingServer(config, host, listener.getsockname()[1], port_file)
    # uvicorn raises the signal again when it is done, to die by it. A handler in place from the start
    # lets the process end normally instead, with status 0 and with its exit hooks run.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    with listener:
        server.run(sockets=[listener])
    return 0 if server.started else 1


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only where it is: without it each answer
    # waits for the client's delayed acknowledgement, 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener
