"""Real peers that misbehave, for the faults that need one: a mail server that never answers, a flaky gateway."""

import asyncio
from collections import Counter
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import httpx2

LOOPBACK: Final = "127.0.0.1"
LARGEST_HEAD: Final = 64 * 1024
LARGEST_BODY: Final = 16 * 1024 * 1024
OVERLOADED_ATTEMPTS: Final = 2


class _Listener:
    """A TCP server on a free loopback port, with connections that end when it does."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0, limit=LARGEST_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        # From 3.12 on wait_closed waits for the connections too.
        for connection in self._connections:
            connection.transport.abort()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError):
            pass  # the client went away, or did not speak HTTP
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class BlackHole(_Listener):
    """Accepts connections, takes in whatever comes, and never answers."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(LARGEST_HEAD):
            pass


class FlakyGateway(_Listener):
    """A gateway that answers the first two attempts of each delivery with 503 and passes on the third.

    `front(url)` is the address at which the gateway stands in front of `url`. It passes on only to
    addresses that it was put in front of.
    """

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__()
        self._client = httpx2.AsyncClient(timeout=timeout_seconds, trust_env=False)
        self._targets: list[str] = []
        self._seen: Counter[str] = Counter()

    def front(self, url: str) -> str:
        """The address that leads to `url` through this gateway."""
        if url not in self._targets:
            self._targets.append(url)
        return f"http://{LOOPBACK}:{self.port}/{self._targets.index(url)}"

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, traceback)
        await self._client.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        _, path, _ = lines[0].split(" ", 2)
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await reader.readexactly(min(int(headers.get("content-length", "0")), LARGEST_BODY))
        key = headers.get("idempotency-key", "")
        self._seen[key] += 1
        if self._seen[key] <= OVERLOADED_ATTEMPTS:
            status = 503
        else:
            del self._seen[key]
            status = await self._pass_on(self._targets[int(urlsplit(path).path[1:])], headers, body)
        writer.write(f"HTTP/1.1 {status} -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()

    async def _pass_on(self, target: str, headers: dict[str, str], body: bytes) -> int:
        kept = {name: value for name, value in headers.items() if name not in ("host", "connection")}
        try:
            return (await self._client.post(target, content=body, headers=kept)).status_code
        except httpx2.TransportError:
            return 502
