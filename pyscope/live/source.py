"""Where a dashboard finds what it shows: a file, a folder, a process, or the program that it is mounted in."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from pyscope import attach
from pyscope.errors import NotRecording, RecordingError, RecordingNotFound
from pyscope.format import RING_MAGIC

__all__ = ["FileSource", "FolderSource", "Located", "OwnSource", "ProcessSource", "Source", "source_of"]

Kind: TypeAlias = Literal["process", "recording", "self"]


@dataclass(frozen=True, slots=True)
class Located:
    """A recording file, or the ring of a process that has none."""

    path: str
    ring: bool


class Source(Protocol):
    """Where to look. `name` is what people call it."""

    kind: Kind
    name: str

    def locate(self) -> Located | None:
        """What to read now; None while there is nothing yet. Raises PyScopeError with a message for people."""

    def waiting(self) -> str:
        """Why there is nothing yet, for people."""


class FileSource:
    """A recording, or a ring file."""

    kind: Kind = "recording"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.name = os.path.basename(self.path)

    def locate(self) -> Located | None:
        """The file. Raises RecordingError where it cannot be read."""
        try:
            with open(self.path, "rb") as file:
                head = file.read(8)
        except FileNotFoundError:
            raise RecordingNotFound(
                f"there is no recording at {self.path}: check the path, or record one first."
            ) from None
        except OSError as error:
            raise RecordingError(f"the recording {self.path} cannot be read: {error}") from error
        return Located(self.path, int.from_bytes(head, "little") == RING_MAGIC)

    def waiting(self) -> str:
        """Why there is nothing yet."""
        return f"waiting for a recording at {self.path}"


class FolderSource:
    """The newest recording of a folder."""

    kind: Kind = "recording"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.name = os.path.basename(self.path)

    def locate(self) -> Located | None:
        """The recording that was begun last, as far as the files' times tell."""
        found = []
        for path in glob.glob(os.path.join(glob.escape(self.path), "*.pyscope")):
            try:
                found.append((os.stat(path).st_mtime_ns, path))
            except OSError:
                continue
        if not found:
            raise RecordingNotFound(
                f"there is no recording in {self.path}: nothing there ends in .pyscope. Record one with "
                "`pyscope run -o FILE.pyscope …`, or name another folder."
            )
        return Located(max(found)[1], False)

    def waiting(self) -> str:
        """Why there is nothing yet."""
        return f"waiting for a recording in {self.path}"


class ProcessSource:
    """Another process that records itself."""

    kind: Kind = "process"

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.name = f"process {pid}"

    def locate(self) -> Located | None:
        """Its recording's file; in flight mode its ring. Raises NotRecording, or RecorderError where it may not be
        read."""
        ring = attach.mapped_ring(self.pid)
        if ring is None:
            raise NotRecording(
                f"process {self.pid} is not being recorded: start it with `pyscope run`, or name its recording's file."
            )
        path = ring.meta.get("path")
        if ring.meta.get("mode") == "stream" and isinstance(path, str) and os.path.exists(path):
            return Located(path, False)
        return Located(ring.path, True)

    def waiting(self) -> str:
        """Why there is nothing yet."""
        return f"waiting for process {self.pid} to be recorded"


class OwnSource:
    """The recording of this very process, whatever started it."""

    kind: Kind = "self"

    def __init__(self) -> None:
        self.name = f"process {os.getpid()}"

    def locate(self) -> Located | None:
        """The recording in progress, or None."""
        from pyscope import recorder

        recording = recorder.active()
        if recording is None or not recording.active:
            return None
        if recording.settings.mode == "flight" and recording.ring_path is not None:
            return Located(recording.ring_path, True)
        return None if recording.path is None else Located(recording.path, False)

    def waiting(self) -> str:
        """Why there is nothing yet."""
        return "nothing is being recorded in this process"


def source_of(target: str) -> Source:
    """What a person means by FILE, DIR or PID. Raises RecordingError if there is no such thing."""
    if target.isdecimal() and not os.path.exists(target):
        return ProcessSource(int(target))
    return FolderSource(target) if os.path.isdir(target) else FileSource(target)
