"""What the page can have done: start and stop recording, write out the flight recorder, fetch the recording."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from pyscope import attach, recorder
from pyscope.errors import NotRecording, PyScopeError, RecorderError
from pyscope.live.source import Located, OwnSource, ProcessSource, Source

__all__ = ["Controls"]

_PIECE = 1 << 18


class Controls:
    """The controls of one dashboard. `settings`: those of `pyscope.start` with which it starts a flight recorder."""

    def __init__(self, source: Source, *, read_only: bool, settings: dict[str, Any] | None = None) -> None:
        self._source = source
        self._settings = {"mode": "flight", "probes": ["auto"], **(settings or {})}
        self.read_only = read_only

    def offered(self, described: dict[str, Any]) -> dict[str, bool]:
        """Which make sense now, as in a message of type "hello"."""
        own = isinstance(self._source, OwnSource) and not self.read_only
        recording = bool(described["recording"])
        flight = described["mode"] == "flight" and recording and not self.read_only
        return {
            "read_only": self.read_only,
            "start": own and not recording,
            "stop": own and recording,
            "dump": flight and isinstance(self._source, OwnSource | ProcessSource),
            # Of a flight recorder that has ended nothing is left to fetch.
            "download": bool(described["path"]) and (recording or not described["path"].endswith(".ring")),
        }

    def start(self) -> str:
        """Starts a flight recorder in this process; what was done, for people. Raises PyScopeError."""
        self._own()
        recording = recorder.start(**self._settings)
        return f"recording by {recording.backend}, the last {recording.settings.ring_mb} MiB are kept"

    def stop(self) -> str:
        """Stops the recording of this process. Raises PyScopeError."""
        self._own()
        recording = recorder.active()
        recorder.stop()
        path = recording.path if recording is not None else None
        return "stopped" if path is None else f"stopped; the recording is {path}"

    def dump(self) -> str:
        """Writes what the flight recorder holds into a new file, and says where. Raises PyScopeError."""
        return f"written to {self._dumped()}"

    def download(self, located: Located | None) -> tuple[str, Iterator[bytes]]:
        """A name for the recording, and its bytes. A flight recorder is dumped first. Raises PyScopeError."""
        if located is None:
            raise NotRecording("there is no recording to download")
        path = self._dumped() if located.ring else located.path
        try:
            file = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise NotRecording(f"the recording cannot be read: {error}") from None
        finally:
            if located.ring:  # at once: whoever fetches it may go away before the end
                shutil.rmtree(os.path.dirname(path), ignore_errors=True)

        def pieces() -> Iterator[bytes]:
            with file:
                while piece := file.read(_PIECE):
                    yield piece

        return os.path.basename(path), pieces()

    def _dumped(self) -> str:
        """The path of a new dump, in a new folder that is nobody else's: that for temporary files is shared."""
        try:
            folder = tempfile.mkdtemp(prefix="pyscope-")
        except OSError as error:
            raise RecorderError(f"there is no folder for the dump: {error}. Set TMPDIR to one.") from None
        stamp = time.strftime("%Y%m%d-%H%M%S")
        try:
            if isinstance(self._source, ProcessSource):
                path = os.path.join(folder, f"dump-{self._source.pid}-{stamp}.pyscope")
                attach.dump(self._source.pid, path)
                return path
            self._own()
            return recorder.dump(os.path.join(folder, f"dump-{os.getpid()}-{stamp}.pyscope"))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _own(self) -> None:
        if not isinstance(self._source, OwnSource):
            raise PyScopeError("only the program that the dashboard is mounted in can be started and stopped")
