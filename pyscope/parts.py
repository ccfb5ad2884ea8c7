"""The parts of a recording that other processes leave: joined at the stop, sealed after a death."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyscope import backends, config
from pyscope.errors import ConfigError, NotARecording, RecorderError, RecordingNotFound

__all__ = ["Recovered", "append", "check_replaceable", "join", "of", "recover", "seal_left_behind"]

# The head of a PROCESS block (native/recording.hpp).
MAGIC = struct.pack("<IH", 0x31425350, 1)
INFO = struct.Struct("<16s16sIIII")
BLOCK_HEADER = 24
RING_PATH = slice(BLOCK_HEADER + INFO.size + 2 * 24 + 8, BLOCK_HEADER + INFO.size + 2 * 24 + 8 + 1024)
INFO_BYTES = INFO.size + 2 * 24 + 8 + 1024
STATE = struct.Struct("<4xI")  # of the summary behind the info, past its checksum
STOPPED, RECOVERED = 1, 2


@dataclass(frozen=True, slots=True)
class Recovered:
    """What `recover` found of one process: `pages` sealed with their `events`; `dropped` events the process had
    no room for; `problem`, in words, if it could not be sealed."""

    path: str
    pid: int
    pages: int
    events: int
    dropped: int
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Head:
    recording_id: bytes
    process_id: bytes
    pid: int
    ring_path: str
    finished: bool  # a dump, or stopped in order: nothing of it is in a ring


def _head(path: str) -> _Head | None:
    """The first process of a recording, or None if the file is none."""
    try:
        with open(path, "rb") as file:
            data = file.read(8192)
    except OSError:
        return None
    if len(data) < RING_PATH.stop + STATE.size or not data.startswith(MAGIC):
        return None
    recording_id, process_id, pid, _, _, _ = INFO.unpack_from(data, BLOCK_HEADER)
    ring = data[RING_PATH].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    finished = STATE.unpack_from(data, BLOCK_HEADER + INFO_BYTES)[0] in (STOPPED, RECOVERED)
    return _Head(recording_id, process_id, pid, ring, finished)


def belongs_to(path: str, process_id: bytes) -> bool:
    """Whether the file at `path` is the recording of this very run of a process, as far as may be looked."""
    try:
        os.close(os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)))
    except PermissionError:  # it was begun by root, whose rights the process has given up
        return True
    except OSError:
        return False
    head = _head(path)
    return head is not None and head.process_id == process_id


def _owner_alive(ring_path: str) -> bool:
    native = backends.native()
    return native is not None and bool(native.owner_alive(ring_path))


def check_replaceable(path: str) -> None:
    """Raises RecorderError if a recording must not be written to `path`: a foreign file, or one in progress."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise RecorderError(f"there is no folder {folder}. Make it, or choose another path.")
    if not os.path.exists(path):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RecorderError(f"{folder} cannot be written. Choose another path.")
        return
    if os.path.isdir(path):
        raise RecorderError(f"{path} is a folder. Name a file in it.")
    if not os.path.isfile(path):
        raise RecorderError(f"{path} is a device, a pipe or a socket. Name a file.")
    if not os.access(path, os.W_OK):
        raise RecorderError(f"{path} cannot be written. Choose another path.")
    if os.path.getsize(path) == 0:
        return
    head = _head(path)
    if head is None:
        raise RecorderError(
            f"{path} exists and is not a recording; it is not overwritten. Choose another path."
        )
    if head.ring_path and not head.finished and os.path.exists(head.ring_path):
        if _owner_alive(head.ring_path):
            raise RecorderError(f"process {head.pid} is recording into {path} just now. Choose another path.")
        raise RecorderError(
            f"{path} is the recording of process {head.pid}, which died; its last events are still in memory. "
            f"Run: pyscope recover {path}, then move or delete it, or choose another path."
        )
    for part in of(path):  # of the recording that is about to be replaced
        left = _head(part)
        if left is not None and os.path.exists(left.ring_path) and not _own_ring_saved(part, left):
            continue
        os.unlink(part)


def _own_ring_saved(part: str, head: _Head) -> bool:
    """Whether the ring that a part names was of the same process, which is dead, and is sealed into the part now."""
    return not _owner_alive(head.ring_path) and _seal(part, head).problem is None


def of(path: str) -> list[str]:
    """The parts that lie beside a recording. A damaged file may be one; another recording's, and what somebody else has
    laid into a folder that is everybody's, is none: it does not know the recording's id."""
    found = [part for part in glob.glob(f"{glob.escape(path)}.*.part") if _is_file(part)]
    whole = _head(path) if found else None
    if whole is None:
        return sorted(found)
    heads = ((part, _head(part)) for part in found)
    return sorted(part for part, head in heads if head is None or head.recording_id == whole.recording_id)


def _is_file(path: str) -> bool:
    """Neither a link nor a pipe, which would be waited for."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def join(path: str) -> list[str]:
    """Appends the parts of children that have ended to the recording. Returns what went wrong, in words; parts of
    living children stay, and are read with the recording all the same."""
    problems = [
        f"the ring of process {row.pid} could not be saved: {row.problem}"
        for row in _save_killed(path, parts_only=True)
        if row.problem
    ]
    for part in of(path):
        head = _head(part)
        if head is None:
            continue
        if head.ring_path and os.path.exists(head.ring_path):
            if _owner_alive(head.ring_path):
                continue
            result = _seal(part, head)
            if result.problem:
                problems.append(
                    f"the part {part} of process {head.pid} could not be sealed: {result.problem}"
                )
                continue
        try:
            append(path, part)
        except OSError as error:
            problems.append(f"the part {part} could not be joined and stays beside the recording: {error}")
    return problems


def append(path: str, part: str) -> None:
    """Moves the blocks of `part` to the end of the recording. Raises OSError; the recording is as it was then."""
    with open(path, "r+b") as target, open(part, "rb") as source:
        end = target.seek(0, os.SEEK_END)
        try:
            target.write(b"\0" * (-end % 8))
            shutil.copyfileobj(source, target, 1 << 20)
        except OSError:
            target.truncate(end)
            raise
    os.unlink(part)


def _seal(path: str, head: _Head) -> Recovered:
    native = backends.native()
    if native is None:
        return Recovered(path, head.pid, 0, 0, 0, "the native recorder is not installed here")
    try:
        pages, events, dropped = native.adopt(path, head.ring_path)
    except (OSError, RuntimeError) as error:  # RuntimeError: it is another process's ring
        return Recovered(path, head.pid, 0, 0, 0, str(error))
    return Recovered(path, head.pid, pages, events, dropped)


def _claim(ring: str) -> int:
    """Locks the ring of a dead process until what is returned is closed: meanwhile it is as a living one's to others.

    Of two that write into the recording at a time, each would write over the other. Raises OSError where it is
    locked, or gone.
    """
    import fcntl

    fd = os.open(ring, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
        if os.fstat(fd).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "another process has saved it", ring)
    except BlockingIOError:
        os.close(fd)
        raise BlockingIOError(errno.EAGAIN, "another process saves it just now", ring) from None
    except OSError:
        os.close(fd)
        raise
    return fd


def recover(path: str | os.PathLike[str]) -> list[Recovered]:
    """Seals what dead processes left in their rings into the recording, and joins the parts of its children.

    `path` is a recording, or a folder whose recordings (`*.pyscope`) are all recovered; that of a killed flight
    recorder, which would have been written at its stop, is written now. Returns a row for each process that had left a
    ring; processes that are alive are left alone. Nothing is lost if it fails: the ring stays. Raises
    RecordingNotFound, NotARecording.
    """
    target = os.fspath(path)
    saved = _save_killed(target)
    if not os.path.exists(target):
        if saved:
            return saved
        raise RecordingNotFound(f"there is nothing at {target}")
    if os.path.isdir(target):
        found = sorted(glob.glob(os.path.join(glob.escape(target), "*.pyscope")))
        return saved + [row for file in found if _head(file) is not None for row in recover(file)]
    if _head(target) is None:
        raise NotARecording(f"{target} is not a recording of PyScope")
    return saved + list(_recover_file(target))


def _recover_file(path: str) -> Iterator[Recovered]:
    alive = False
    for file in [path, *of(path)]:
        head = _head(file)
        if head is None or not head.ring_path or not os.path.exists(head.ring_path):
            continue
        if _owner_alive(head.ring_path):
            alive = alive or file == path
            continue
        yield _seal(file, head)
    if not alive:
        for problem in join(path):
            yield Recovered(path, 0, 0, 0, 0, problem)


def rings_of_the_dead(folder: str, user: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rings that killed processes of a user (its id; "*": of all) have left in a folder, each with its META.

    {} is that of a ring which was not begun.
    """
    native = backends.native()
    if native is None:
        return
    for ring in sorted(glob.glob(os.path.join(glob.escape(folder), f"pyscope-{user}-*.ring"))):
        with contextlib.suppress(OSError, ValueError):
            if not (_is_file(ring) if user == "*" else _own(ring)) or native.owner_alive(ring):
                continue
            meta = json.loads(native.ring_meta(ring)) if os.path.getsize(ring) else {}
            if isinstance(meta, dict):
                yield ring, meta


def _own(path: str) -> bool:
    """Whether a file is this user's: the folder of rings is everybody's, and what one says is written where it says."""
    status = os.lstat(path)
    return stat.S_ISREG(status.st_mode) and status.st_uid in (os.getuid(), os.geteuid())


def unbegun(folder: str, user: str) -> Iterator[str]:
    """The files of rings that processes which were killed while they made them have left in a folder."""
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), f"pyscope-{user}-*.ring.new"))):
        with contextlib.suppress(OSError):
            if time.time() - os.stat(path).st_mtime > 60:  # a younger one may be in the making
                yield path


def _delete_unbegun(folder: str) -> None:
    for path in unbegun(folder, str(os.getuid())):
        with contextlib.suppress(OSError):
            os.unlink(path)


def keep_ring(ring: str) -> str | None:
    """Gives a ring another name, by which it outlives its recorder's stop as one of a killed process; None if not."""
    kept = f"{ring.rpartition('-')[0]}-{os.urandom(6).hex()}.ring"
    try:
        os.link(ring, kept)
    except OSError:
        return None
    return kept


def pid_of(ring: str) -> int:
    """Of the process that made a ring, which is in the ring's name."""
    return int(os.path.basename(ring).split("-")[2])


def _ring_dir() -> str | None:
    """Where the settings of the environment and of the project put rings."""
    try:
        return config.resolve().ring_dir
    except ConfigError:
        return None


def _save_killed(target: str, *, parts_only: bool = False) -> list[Recovered]:
    """Writes the recordings that killed flight recorders were to leave at `target` or as parts of it (or, if it is a
    folder, in it), from their rings."""
    native = backends.native()
    if native is None:
        return []
    target = os.path.abspath(target)
    head = None if os.path.isdir(target) else _head(target)
    folders = {"/dev/shm", target if os.path.isdir(target) else os.path.dirname(target)}
    # A recording that is there says where its rings are; one that was never written cannot.
    ring_dir = os.environ.get("PYSCOPE_RING_DIR") if parts_only else _ring_dir()
    folders |= {folder for folder in (ring_dir, os.environ.get("TMPDIR", "/tmp")) if folder}
    if head is not None and head.ring_path:
        folders.add(os.path.dirname(head.ring_path))
    rows = []
    for folder in sorted(folders):
        if not parts_only:
            _delete_unbegun(folder)
        for ring, meta in rings_of_the_dead(folder, str(os.getuid())):
            with contextlib.suppress(OSError, ValueError):
                path = _path_within(target, meta, parts_only)
                if path is None:
                    continue
                pid = pid_of(ring)
                claim = -1
                try:
                    claim = _claim(ring)
                    check_replaceable(path)
                    pages, events = native.dump_other(ring, path)
                    os.unlink(ring)
                except (OSError, RecorderError) as error:
                    rows.append(Recovered(path, pid, 0, 0, 0, str(error)))
                    continue
                finally:
                    if claim >= 0:
                        os.close(claim)
                rows.append(Recovered(path, pid, pages, events, 0))
        if not parts_only:
            rows += _of_others(folder, target)
    return rows


def _path_within(target: str, meta: dict[str, Any], parts_only: bool) -> str | None:
    """Where a killed flight recorder was to leave its recording, if that is `target`, in it, or a part of it."""
    path = meta.get("path")
    if meta.get("mode") != "flight" or not isinstance(path, str):
        return None
    part = path.startswith(f"{target}.") and path.endswith(".part")
    return path if part or (not parts_only and target in (path, os.path.dirname(path))) else None


def _of_others(folder: str, target: str) -> Iterator[Recovered]:
    """What belongs to `target` and is left alone: other users' rings that may be read, as root may."""
    for ring, meta in rings_of_the_dead(folder, "*"):
        with contextlib.suppress(OSError, ValueError):
            if not _own(ring) and _path_within(target, meta, False) is not None:
                problem = f"left alone: the ring is of user {os.lstat(ring).st_uid}, and what a ring says is written "
                problem += f"where it says. Read it with: pyscope report {ring}"
                yield Recovered(ring, pid_of(ring), 0, 0, 0, problem)


def seal_left_behind(folder: str) -> None:
    """Seals the rings that this user's killed processes left in `folder` into their recordings.

    So a service that is killed and restarted again and again does not fill the memory with rings. Where there is no
    recording for a ring, it stays for an hour: that of a flight recorder, which `pyscope.load` reads, or one whose file
    has been moved or lies in another container.
    """
    _delete_unbegun(folder)
    for ring, meta in rings_of_the_dead(folder, str(os.getuid())):
        with contextlib.suppress(OSError, ValueError):
            path = meta.get("path")
            head = _head(path) if path else None
            replaced = head is not None and head.ring_path != ring
            if path and head is not None and not replaced:
                _seal(path, head)
            elif (replaced and meta.get("mode") != "flight") or time.time() - os.stat(ring).st_mtime > 3600:
                os.unlink(ring)
