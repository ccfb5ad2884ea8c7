"""A steady load: so many requests a second from a process of its own, told over its standard input how many to send.

python -m benchmarks.paced URL RATE       then a number a line; each is answered with a line when they are done
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from benchmarks.connections import request, status_of

CONNECTIONS: Final = 16
MIX: Final = (
    ("GET", "/tasks/{}", None),
    ("GET", "/tasks/{}", None),
    ("GET", "/tasks/{}", None),
    ("POST", "/tasks", {"project_id": 1, "title": "one of many"}),
    ("GET", "/tasks/{}", None),
)


class Paced:
    """Drives the service at `url` while the block runs; `send` sends that many requests at the rate and waits."""

    def __init__(self, url: str, rate: float) -> None:
        self.rate = rate
        self._arguments = [sys.executable, "-m", "benchmarks.paced", url, str(rate)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def begin(self, count: int) -> None:
        """Has `count` requests sent; `end` waits for them."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()

    def end(self) -> float:
        """The requests a second that came about. RuntimeError where some failed."""
        assert self._process.stdout is not None
        seconds, sent, failed = map(float, self._process.stdout.readline().split())
        if failed:
            raise RuntimeError(f"{failed:.0f} requests failed")
        return sent / seconds

    def send(self, count: int) -> float:
        """Both."""
        self.begin(count)
        return self.end()


async def _drive(url: str, rate: float) -> None:
    address = urlsplit(url)
    free: asyncio.Queue[Any] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection(address.hostname, address.port))
    loop = asyncio.get_running_loop()
    number = failed = 0

    async def one(stream: Any, text: bytes) -> None:
        nonlocal failed
        try:
            status = await answer(stream, text)
        except (OSError, EOFError):  # the server closes what was idle for some seconds
            stream = await asyncio.open_connection(address.hostname, address.port)
            status = await answer(stream, text)
        failed += not 200 <= status < 300
        free.put_nowait(stream)

    async def answer(stream: Any, text: bytes) -> int:
        reader, writer = stream
        writer.write(text)
        return await status_of(reader)

    while line := await loop.run_in_executor(None, sys.stdin.readline):
        count, failed = int(line), 0
        began = due = time.monotonic()
        running = set()
        for _ in range(count):
            due += 1 / rate
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            method, path, body = MIX[number % len(MIX)]
            number += 1
            text = request(method, path.format(1 + number % 300), body)
            task = asyncio.create_task(one(await free.get(), text))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        sys.stdout.write(f"{time.monotonic() - began} {count} {failed}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_drive(sys.argv[1], float(sys.argv[2])))
