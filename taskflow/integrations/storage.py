"""Files, wherever an fsspec URL points: a local folder by default, memory, or an object store."""

import errno
import os
import re
from pathlib import Path
from typing import Final
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from taskflow.errors import TaskFlowError
from taskflow.faults import FAILING_STORAGE
from taskflow.integrations.retries import DeliveryFailed, RetryPolicy
from taskflow.settings import Settings

LONGEST_NAME: Final = 200
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", re.ASCII)


class BadFileName(TaskFlowError, ValueError):
    """A name that is not a plain relative path, or would lead out of the storage."""


class FileMissing(TaskFlowError):
    """There is no file with that name."""


class StorageUnusable(TaskFlowError):
    """The storage URL needs something that is not installed, or cannot be opened."""


class FileStorage:
    """Reads and writes whole files under one root; its methods block, coroutines call them in a thread.

    Names are relative paths of letters, digits, `_`, `.` and `-`; no part begins with a dot. A write is
    atomic: readers see the old file or the new one, also if the writer is killed. What fails is tried again
    by the settings' retry policy. With the fault `failing_storage` every write fails, as on a full disk.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            self._files, self._root = fsspec.url_to_fs(settings.storage_url)
        except (ImportError, ValueError, OSError) as error:
            raise StorageUnusable(f"TASKFLOW_STORAGE_URL cannot be used: {error}") from error
        self._fails = FAILING_STORAGE.name in settings.faults
        policy = RetryPolicy.of(settings)
        self._write = policy.retrying_in_thread(self._attempt_to_write, _may_work_soon)
        self._read = policy.retrying_in_thread(self._attempt_to_read, _may_work_soon)

    @property
    def shared(self) -> bool:
        """Whether another process finds the same files here."""
        return "memory" not in self._files.protocol

    def write(self, name: str, content: bytes) -> None:
        """Store `content` under `name`, over what was there. BadFileName; DeliveryFailed after the retries."""
        path = self._path(name)
        try:
            self._write(path, content)
        except OSError as error:
            raise DeliveryFailed(f"{name} could not be stored: {error}") from error

    def read(self, name: str) -> bytes:
        """The content of a file. BadFileName; FileMissing; DeliveryFailed after the retries."""
        path = self._path(name)
        try:
            return self._read(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise FileMissing(f"There is no file {name}.") from error
        except OSError as error:
            raise DeliveryFailed(f"{name} could not be read: {error}") from error

    def names(self) -> list[str]:
        """The names of all files, in order."""
        found = [path[len(self._root) :].lstrip("/") for path in self._files.find(self._root)]
        return sorted(name for name in found if _NAME.fullmatch(name))

    def _path(self, name: str) -> str:
        if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
            raise BadFileName(f"{name[:LONGEST_NAME]!r} is not a name for a file here")
        path = f"{self._root.rstrip('/')}/{name}"
        # A symbolic link inside the folder must not lead out of it.
        if isinstance(self._files, LocalFileSystem) and not _within(Path(self._root), Path(path)):
            raise BadFileName(f"{name!r} leads out of the storage")
        return path

    def _attempt_to_write(self, path: str, content: bytes) -> None:
        if self._fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if isinstance(self._files, LocalFileSystem):
            _replace(Path(path), content)
        else:
            self._files.pipe_file(path, content)  # object stores show a file only once it is complete

    def _attempt_to_read(self, path: str) -> bytes:
        content: bytes = self._files.cat_file(path)
        return content


def _within(root: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _replace(path: Path, content: bytes) -> None:
    """Write beside the file, then rename over it; the dot keeps an unfinished one out of every listing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _may_work_soon(error: Exception) -> bool:
    return isinstance(error, OSError) and not isinstance(
        error, (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    )
