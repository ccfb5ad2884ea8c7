"""TaskFlow as a child process: started, waited for, stopped; used by the demo, benchmarks and tests."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

LOG_TAIL_CHARACTERS: Final = 4000
POLL_SECONDS: Final = 0.02


class ServerFailed(Exception):
    """The server did not become ready; the message holds the end of its log."""


class ServerProcess:
    """`python -m taskflow serve` on a loopback port (0: a free one), as a context manager.

    It runs in `directory`, where its log and port go; its settings are `environment` over the caller's own.
    `launcher` is what runs `-m taskflow serve`: by default this interpreter, or for example
    `[python, "-m", "pyscope", "run", "-o", "run.pyscope"]`. On entry it waits up to `ready_seconds`
    and raises ServerFailed; on exit it sends SIGTERM, and kills what still runs `stop_seconds` later.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (sys.executable,),
        ready_seconds: float = 30.0,
        stop_seconds: float = 20.0,
        port: int = 0,
    ) -> None:
        directory = directory.absolute()
        self._directory = directory
        self.log = directory / "server.log"
        self.url = ""
        self._port = port
        self._port_file = directory / "server.port"
        self._environment = dict(environment or {})
        self._launcher = list(launcher)
        self._ready_seconds = ready_seconds
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; RuntimeError before the start."""
        return self._running().pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it accepts requests, or raise ServerFailed."""
        self._port_file.unlink(missing_ok=True)
        command = [
            *self._launcher, "-m", "taskflow", "serve", "--port", str(self._port), "--port-file", str(self._port_file)
        ]  # fmt: skip
        try:
            # A child has to be known before it can be stopped.
            with interrupts_deferred(), self.log.open("wb") as log:
                # A session of its own: Ctrl-C reaches it only through us, and its children can be killed.
                self._process = subprocess.Popen(
                    command,
                    cwd=self._directory,
                    env=importable(os.environ | self._environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int | None:
        """SIGTERM, then SIGKILL for the whole session if need be; the exit status, None if never started."""
        process = self._process
        if process is None:
            return None
        try:
            if process.poll() is None:
                process.terminate()
            process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return process.returncode

    def log_tail(self) -> str:
        """The end of what the server has written to its output."""
        try:
            return self.log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip()
        except FileNotFoundError:
            return ""

    def _wait_until_ready(self) -> None:
        process = self._running()
        deadline = time.monotonic() + self._ready_seconds
        while not self._port_file.exists():
            if process.poll() is not None:
                raise ServerFailed(f"the server ended with status {process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"the server was not ready after {self._ready_seconds:g} s:\n{self.log_tail()}"
                )
            time.sleep(POLL_SECONDS)
        self.url = f"http://127.0.0.1:{int(self._port_file.read_text())}"

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError("the server has not been started")
        return self._process


def importable(environment: dict[str, str]) -> dict[str, str]:
    """`environment` in which a child finds this very TaskFlow, wherever it is started."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {"PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back during a short step that must not stop halfway; raise them after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for missed in arrived:
        signal.raise_signal(missed)
