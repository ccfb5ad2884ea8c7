"""A TaskFlow server that is told from here what to do before and after a block, by commands to `benchmarks.served`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.served import CONTROL_SOCKET
from benchmarks.workload import ServedWorkload
from taskflow.process import ServerProcess

ANSWER_SECONDS: Final = 300
LAUNCHER: Final = (sys.executable, "-m", "benchmarks.served")


class Control:
    """The commands to a server that is started under `LAUNCHER`, with `environment` over its own, in `meeting`'s block.
    `on`, `mark` and `off` are `served.Meter`'s.

    Raises RuntimeError when a command fails or the server has ended.
    """

    def __init__(self, directory: Path) -> None:
        self._address = str(directory / "control")
        self.environment = {CONTROL_SOCKET: self._address}

    @contextlib.contextmanager
    def meeting(self, server: ServerProcess) -> Iterator[None]:
        """The server is to be started in the block, and is there for commands after it."""
        self._server = server
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen(1)
            yield
            self._connection, _ = listener.accept()
        self._connection.settimeout(ANSWER_SECONDS)

    def close(self) -> None:
        """No more commands."""
        self._connection.close()

    def on(self, name: str) -> None:
        """Turn the variant on in the server."""
        self._command(f"on {name}")

    def mark(self) -> None:
        """Begin to measure."""
        self._command("mark")

    def off(self) -> dict[str, float]:
        """What the server used since the mark, and the variant's own figures; it is off afterwards."""
        figures: dict[str, float] = self._command("off")
        return figures

    def _command(self, text: str) -> Any:
        self._connection.sendall(text.encode() + b"\n")
        os.kill(self._server.pid, signal.SIGUSR1)
        answer = b""
        while not answer.endswith(b"\n"):
            part = self._connection.recv(4096)
            if not part:
                raise RuntimeError(f"the server has ended:\n{self._server.log_tail()}")
            answer += part
        value = json.loads(answer)
        if value and "error" in value:
            raise RuntimeError(f"the server could not {text}: {value['error']}")
        return value


class ControlledServer(Control):
    """The server with its `workload`, as a context manager."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.workload = ServedWorkload(directory, LAUNCHER, self.environment)

    def __enter__(self) -> Self:
        with self.meeting(self.workload.server):
            self.workload.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        self.workload.__exit__(*exception)
