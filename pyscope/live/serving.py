"""The dashboard by itself: served by uvicorn on a socket of its own, of another process or a recording."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable

from pyscope import config
from pyscope.errors import ConfigError, MissingExtra
from pyscope.live.mounting import Dashboard
from pyscope.live.security import is_loopback, new_token
from pyscope.live.source import source_of

try:
    import uvicorn
    import websockets  # noqa: F401
except ImportError as error:
    raise MissingExtra("pyscope live", error.name or "uvicorn", "live") from None

__all__ = ["serve"]

_BACKLOG = 128


def serve(target: str, *, host: str, port: int, hosts: Iterable[str] = (), read_only: bool = False) -> int:
    """Serves until SIGINT or SIGTERM; prints the address first. Returns the exit status.

    Raises RecordingError (or another PyScopeError) if there is nothing at `target`, ConfigError if the address cannot
    be had.
    """
    source = source_of(target)
    located = source.locate()
    if located is not None and not located.ring:
        _check(located.path)
    settings_token = config.resolve().token
    token = settings_token or new_token()
    listener = _listen(host, port)
    taken = listener.getsockname()[1]
    dashboard = Dashboard(source, token, allowed_hosts=(*hosts, host), read_only=read_only)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{taken}/"
    if settings_token is None:
        address += f"?token={token}"
    sys.stdout.write(f"pyscope live {source.name}: {address}\n")
    if settings_token is not None:
        sys.stdout.write("  it asks for the token: add ?token=… with the value of PYSCOPE_TOKEN\n")
    if not is_loopback(host):
        sys.stdout.write(
            "  it can be reached from other machines, and does not encrypt: use a proxy that does\n"
        )
    sys.stdout.flush()
    server = uvicorn.Server(
        uvicorn.Config(
            dashboard.app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            ws_max_size=1 << 16,
            ws_per_message_deflate=False,  # on loopback it costs more than it saves
            timeout_graceful_shutdown=2,
        )
    )
    sys.setswitchinterval(0.001)  # what looks must not wait for what analyses
    dashboard.feed.start()
    try:
        with listener:
            server.run(sockets=[listener])
    finally:
        dashboard.close()
    return 0 if server.started else 1


def _check(path: str) -> None:
    """Whether the file can be shown at all: better said here than on a page."""
    from pyscope.live.file_tail import FileTail

    FileTail(path).close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only where it is: without it a message waits for the
    # acknowledgement of the one before, 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(f"the address {host}:{port} cannot be had: {why}. Choose another --port.") from None
    return listener
