"""The launcher of a TaskFlow that can be measured: on SIGUSR1 it carries out one command and answers.

`python -m benchmarks.served -m taskflow serve …`. The commands come over the Unix socket that the
environment names, one line each: "on VARIANT", "mark", "off"; so that variants alternate inside one
server process.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import runpy
import signal
import socket
import sys
import time
from typing import Any, Final

from benchmarks import draining

CONTROL_SOCKET: Final = "BENCHMARK_CONTROL_SOCKET"


class Meter:
    """One variant at a time: on, mark the begin of the measured part, off with what it cost."""

    def __init__(self) -> None:
        self._off: Any = None
        self._began = 0

    def on(self, name: str) -> None:
        """Turn the variant on."""
        from benchmarks import variants

        self._off = variants.switch(name)()

    def mark(self) -> None:
        """Begin to measure, once the drain thread has caught up with the warming-up.

        After a full collection: what a recorder's start has allocated would bring the program's own next one forward,
        which takes a tenth of a block's time. A service that is recorded for hours starts once.
        """
        draining.catch_up()
        gc.collect()
        self._began = time.process_time_ns()

    def off(self) -> dict[str, float]:
        """CPU seconds of this process since the mark, all threads; then turn the variant off."""
        used = time.process_time_ns() - self._began
        used += draining.catch_up()
        return {"cpu_seconds": used / 1e9, **self._off()}


def _obey(connection: socket.socket, meter: Meter) -> None:
    words = connection.recv(4096).decode().strip().split(" ", 1)
    answer: Any
    try:
        if words[0] == "on":
            answer = meter.on(words[1])
        else:
            answer = meter.mark() if words[0] == "mark" else meter.off()
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    connection.sendall(json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Listen for commands and run the module as `python -m` would."""
    address = os.environ.get(CONTROL_SOCKET)
    if address:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        meter = Meter()
        signal.signal(signal.SIGUSR1, lambda *_: _obey(connection, meter))
    if importlib.util.find_spec("pyscope") is None:
        raise SystemExit("pyscope cannot be imported here")
    assert sys.argv[1] == "-m"
    module = sys.argv[2]
    sys.argv[:] = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
