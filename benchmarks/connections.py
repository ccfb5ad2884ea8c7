"""Many HTTP connections at once, by asyncio's streams and little else: the client must not be what is measured."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

ANSWER_SECONDS: Final = 120.0
SPARE_FILES: Final = 200
AT_A_TIME: Final = 100  # connections that are opened at a time: the server's backlog is finite


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back: the wall time of all, the latency of each request in seconds, and how many failed."""

    seconds: float
    latencies: list[float]
    failed: int


def request(method: str, path: str, body: Any = None) -> bytes:
    """The bytes of an HTTP/1.1 request."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: taskflow\r\ncontent-length: {len(content)}\r\n"
    kind = "" if body is None else "content-type: application/json\r\n"
    return f"{head}{kind}\r\n".encode() + content


class Connections:
    """`number` connections to the server at `url`, opened on entry; a context manager."""

    def __init__(self, url: str, number: int) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self._number = number

    def __enter__(self) -> Self:
        allow_files(self._number + SPARE_FILES)
        self._runner = asyncio.Runner()
        self._runner.run(self._open())
        return self

    def __exit__(self, *exception: object) -> None:
        for _, writer in self._streams:
            writer.close()
        self._runner.close()

    def send(self, requests: Sequence[Sequence[bytes]]) -> Answers:
        """Each connection sends its requests one after the other, all connections at once."""
        return self._runner.run(self._send(requests))

    async def _open(self) -> None:
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        while len(self._streams) < self._number:
            wanted = min(AT_A_TIME, self._number - len(self._streams))
            opened = [asyncio.open_connection(self._host, self._port) for _ in range(wanted)]
            self._streams += await asyncio.gather(*opened)

    async def _send(self, requests: Sequence[Sequence[bytes]]) -> Answers:
        latencies: list[float] = []
        failures = 0

        async def one(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mine: Sequence[bytes]
        ) -> None:
            nonlocal failures
            for sent, text in enumerate(mine):
                began = time.perf_counter()
                try:
                    writer.write(text)
                    status = await asyncio.wait_for(status_of(reader), ANSWER_SECONDS)
                except (OSError, EOFError, TimeoutError):
                    failures += len(mine) - sent
                    return
                latencies.append(time.perf_counter() - began)
                failures += not 200 <= status < 300

        began = time.perf_counter()
        work = (one(*stream, mine) for stream, mine in zip(self._streams, requests, strict=True))
        await asyncio.gather(*work)
        return Answers(time.perf_counter() - began, latencies, failures)


async def status_of(reader: asyncio.StreamReader) -> int:
    """The status of one answer, which is read to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    for field in fields:
        name, _, value = field.partition(":")
        if name.lower() == "content-length":
            await reader.readexactly(int(value))
    return int(status.split(" ", 2)[1])


def allow_files(number: int) -> None:
    """Let this process, and its children, open `number` files as far as the system admits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
