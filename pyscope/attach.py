"""Reaches the flight recorders of other processes: their rings are found in their memory maps, and copied.

The processes do nothing for it, not even notice: one that hangs can be dumped as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from pyscope import backends, parts
from pyscope.errors import NotRecording, RecorderError

__all__ = ["Dumped", "MappedRing", "dump", "mapped_ring"]

# Mapped by its own recorder: a reader of it has no right to write.
_MAPPED = re.compile(r"\S+ rw-s \S+ (\S+) (\d+) +(/.*/pyscope-\d+-\d+-[0-9a-f]+\.ring)( \(deleted\))?")


@dataclass(frozen=True, slots=True)
class MappedRing:
    """The ring that a living process records into: `path` as this process can open it, `meta` its recording's META."""

    pid: int
    path: str
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dumped:
    """What `dump` copied of one process: the `pages` that were in use, with their `events`."""

    pid: int
    pages: int
    events: int


def mapped_ring(pid: int) -> MappedRing | None:
    """The ring of the process `pid`, or None if it is not being recorded by a native backend.

    Raises NotRecording if there is no such process, RecorderError if this user may not look into it, the ring's file
    was deleted, or there is no /proc.
    """
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
            found = [match for line in file if (match := _MAPPED.fullmatch(line.rstrip("\n")))]
    except (FileNotFoundError, ProcessLookupError):
        if not os.path.exists("/proc/self/maps"):
            raise RecorderError(
                f"process {pid} cannot be looked into: /proc is not there. Mount it (mount -t proc proc /proc)."
            ) from None
        raise NotRecording(
            f"there is no process {pid}. If it was recorded and died, pyscope doctor tells where its ring is left, "
            "and pyscope recover completes its recording."
        ) from None
    except PermissionError:
        raise RecorderError(f"process {pid} {_owner(pid)}: run this as that user, or as root") from None
    for match in found:
        device, inode, path, deleted = match.groups()
        if deleted:
            raise RecorderError(
                f"the ring of process {pid} was deleted ({path}): what it holds cannot be reached. Start the process "
                "again, and leave the *.ring files to PyScope."
            )
        # In a container the path may be another file here, or none; its root is reached through /proc.
        for seen in (path, f"/proc/{pid}/root{path}"):
            with contextlib.suppress(OSError):
                status = os.stat(seen)
                if (f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}", str(status.st_ino)) == (
                    device,
                    inode,
                ):
                    return MappedRing(pid, seen, _meta(seen))
        raise RecorderError(
            f"the ring of process {pid} ({path}) cannot be opened: run this as its user, or as root"
        )
    return None


def dump(pid: int, path: str | os.PathLike[str], *, children: bool = True) -> list[Dumped]:
    """Writes what the flight recorder of the process `pid` holds to `path`; the process goes on recording.

    `children`: those of its descendants that record too come into the same recording, as for a server with workers; and
    what killed ones have left.
    A recording at `path` is replaced, once the new one is whole. Returns a row for each process. Raises
    NotRecording if none of them is being recorded, RecorderError if they may not be read, do not record in flight mode,
    or the recording cannot be written.
    """
    target = os.path.realpath(os.fspath(path))
    parts.check_replaceable(target)
    rings = _rings(pid, children)
    native = backends.required()
    rows: list[Dumped] = []
    unfinished = f"{target}.{os.getpid()}.new"
    part = f"{unfinished}.part"
    try:
        for ring in rings:
            try:
                pages, events = native.dump_other(ring.path, part if rows else unfinished)
            except OSError as error:
                if not os.path.exists(ring.path):  # it ended meanwhile
                    continue
                raise RecorderError(f"the dump {target} could not be written: {error}") from error
            if rows:
                parts.append(unfinished, part)
            rows.append(Dumped(ring.pid, pages, events))
        if not rows:
            raise NotRecording(f"process {pid} ended while it was looked at")
        os.replace(unfinished, target)
    except OSError as error:
        raise RecorderError(f"the dump {target} could not be written: {error}") from error
    finally:
        for left in (unfinished, part):
            with contextlib.suppress(OSError):
                os.unlink(left)
    return rows


def _rings(pid: int, children: bool) -> Sequence[MappedRing]:
    """The rings in flight mode of a process and of its descendants, its own first."""
    family = [pid]
    if children:
        with contextlib.suppress(psutil.Error):
            family += [child.pid for child in psutil.Process(pid).children(recursive=True)]
    found = [mapped_ring(pid)]
    for child in family[1:]:
        with contextlib.suppress(NotRecording, RecorderError):  # one that ended, or became another user's
            found.append(mapped_ring(child))
    rings = [ring for ring in found if ring is not None]
    flight = [ring for ring in rings if ring.meta.get("mode") == "flight"]
    if flight:
        return [*flight, *(_of_the_dead(flight[0]) if children else ())]
    if rings:
        raise RecorderError(
            f"process {rings[0].pid} records in stream mode, all of it into {rings[0].meta.get('path')}: open that "
            "file, which can be read at any time. A dump is of a flight recorder (--mode flight)."
        )
    raise NotRecording(
        f"process {pid} is not being recorded"
        f"{' and no child of it is' if children else ''}: start it with pyscope run --mode flight, or call "
        "pyscope.start(mode='flight') in it. (The pure-Python backend has no ring to dump.)"
    )


def _of_the_dead(ring: MappedRing) -> Iterator[MappedRing]:
    """The rings that killed processes of the same recording have left beside a living one's."""
    recording = ring.meta.get("recording")
    for path, meta in parts.rings_of_the_dead(os.path.dirname(ring.path), "*"):
        if recording and meta.get("recording") == recording and meta.get("mode") == "flight":
            yield MappedRing(parts.pid_of(path), path, meta)


def _owner(pid: int) -> str:
    """Whose a process is that this one may not look into."""
    with contextlib.suppress(psutil.Error, KeyError):
        return f"belongs to the user {psutil.Process(pid).username()}"
    return "is another user's"


def _meta(ring_path: str) -> dict[str, Any]:
    native = backends.native()
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        found = json.loads(native.ring_meta(ring_path)) if native is not None else None
        if isinstance(found, dict):
            return found
    return {}
