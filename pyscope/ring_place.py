"""Where the ring of a process lies, and how large it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from pyscope import config, memory_limit

__all__ = ["RingPlace", "budget_bytes", "considered", "folders", "size_bytes"]


SHM = "/dev/shm"
_SPARE = 1.25  # what must be free there, in rings: it is the memory of all


def budget_bytes(settings: config.Settings, *, child: bool) -> int:
    """Bytes that the recorder may use. A child's are a quarter: programs that fork tend to fork often."""
    return (max(1, settings.ring_mb // 4) if child else settings.ring_mb) << 20


def size_bytes(settings: config.Settings, *, child: bool) -> int:
    """The ring file's size: a 32nd of the budget is left to what the recorder needs beside its ring."""
    budget = budget_bytes(settings, child=child)
    return budget - budget // 32


def folders(settings: config.Settings, path: str | None, size: int, refusals: list[str]) -> Iterator[str]:
    """Where the ring may lie, best first: tmpfs, whose pages no disk ever stalls; then beside the recording."""
    if settings.ring_dir is not None:
        yield os.path.abspath(settings.ring_dir)
        return
    if os.path.isdir(SHM) and os.access(SHM, os.W_OK):
        free = _free(SHM)
        if free > size * _SPARE:
            yield SHM
        else:
            refusals.append(f"{SHM}: {free >> 20} MiB free")
    yield os.path.dirname(path) if path is not None else os.environ.get("TMPDIR", "/tmp")


class RingPlace(NamedTuple):
    """Where a ring would lie. `problem`: why it cannot, in words; "" if it fits."""

    folder: str
    free_bytes: int
    fits: bool
    problem: str


def considered(settings: config.Settings, path: str | None) -> list[RingPlace]:
    """The folders considered for the ring of the recording `path`, in order, with their free space in bytes.

    The first that fits is taken; those before it are told too, each with its problem.
    """
    size = size_bytes(settings, child=False)
    places = [_place(folder, size) for folder in folders(settings, path, size, [])]
    if settings.ring_dir is None and places[0].folder != SHM:
        places.insert(0, _place(SHM, int(size * _SPARE)))
    return places


def _place(folder: str, size: int) -> RingPlace:
    free, problem = 0, ""
    try:
        free = _free(folder)
    except OSError as error:
        problem = error.strerror or str(error)
    else:
        if not os.access(folder, os.W_OK | os.X_OK):
            problem = "it cannot be written"
        elif free < size:
            problem = "no room"
        elif 0 <= _largest_file() < size:
            problem = f"files may have {_largest_file()} bytes only (ulimit -f)"
    return RingPlace(folder, free, not problem, problem)


def _free(folder: str) -> int:
    """Bytes; of shared memory no more than the memory that the container may take, beyond which it were killed."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    left = memory_limit.left_bytes() if folder == SHM else None
    return free if left is None else min(free, left)


def _largest_file() -> int:
    """Bytes that a file of this process may have; negative if there is no limit."""
    import resource

    return resource.getrlimit(resource.RLIMIT_FSIZE)[0]
