"""A TaskFlow server whose variants are switched from here, by commands to `benchmarks.served`."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.served import CONTROL_SOCKET
from benchmarks.workload import ServedWorkload

ANSWER_SECONDS: Final = 300


class ControlledServer:
    """The server with its `workload`, as a context manager; `on`, `mark` and `off` are `served.Meter`'s.

    Raises RuntimeError when a command fails or the server has ended.
    """

    def __init__(self, directory: Path) -> None:
        self._address = str(directory / "control")
        launcher = (sys.executable, "-m", "benchmarks.served")
        self.workload = ServedWorkload(directory, launcher, {CONTROL_SOCKET: self._address})

    def __enter__(self) -> Self:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen(1)
            self.workload.__enter__()
            self._connection, _ = listener.accept()
        self._connection.settimeout(ANSWER_SECONDS)
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()
        self.workload.__exit__(*exception)

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
        os.kill(self.workload.server.pid, signal.SIGUSR1)
        answer = b""
        while not answer.endswith(b"\n"):
            part = self._connection.recv(4096)
            if not part:
                raise RuntimeError(f"the server has ended:\n{self.workload.server.log_tail()}")
            answer += part
        value = json.loads(answer)
        if value and "error" in value:
            raise RuntimeError(f"the server could not {text}: {value['error']}")
        return value
