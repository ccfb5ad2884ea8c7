"""Opens a recording: its file, the ring of a process that still lives or was killed, and its children's
parts.

What comes out is bytes to decode, tables of names, and a list of everything that is missing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from pyscope import blocks, parts
from pyscope.blocks import Block, Damage, ProcessInfo, Summary
from pyscope.codec import Codec
from pyscope.errors import CorruptRecording, NotARecording, RecordingError, RecordingNotFound, VersionMismatch
from pyscope.format import (
    BLOCK_MAGIC,
    PROCESS_INFO,
    RING_MAGIC,
    SUMMARY_BYTES,
    BlockType,
    ProcessState,
)
from pyscope.process_record import Missing, ProcessBuilder, ProcessRecord
from pyscope.ring import RingCopy, copy_ring, locked


@dataclass(slots=True)
class Recording:
    """The processes of a recording and the buffers that their chunks lie in."""

    path: str
    buffers: list[bytes]
    processes: list[ProcessRecord]
    missing: list[Missing] = field(default_factory=list)  # of no known process


def open_recording(path: str | os.PathLike[str], codec: Codec) -> Recording:
    """Opens the recording (or the ring file) at `path`, with the parts `<path>.*.part` of child processes.

    A recording in progress opens as it stands. Raises RecordingNotFound, NotARecording, CorruptRecording,
    VersionMismatch, or RecordingError where the file cannot be read.
    """
    path = os.fspath(path)
    if _is_ring(path):
        return _from_ring(path, codec)
    # Parts first: one that its parent joins meanwhile is then read twice, not missed.
    recording = Recording(path, [], [])
    read = []
    for part in parts.of(path):
        try:
            read.append((part, *_read(part)))
        except RecordingNotFound:
            continue
        except RecordingError as error:
            recording.missing.append(Missing("damaged_part", detail=f"{os.path.basename(part)}: {error}"))
    files = [(path, *_read(path)), *read]
    seen: set[bytes] = set()
    for name, data, rings, alive in files:
        known = len(recording.missing)
        try:
            _File(recording, name, data, rings, alive, codec, seen).read()
        except RecordingError as error:
            if name == path:
                raise
            del recording.missing[known:]
            recording.missing.append(Missing("damaged_part", detail=f"{os.path.basename(name)}: {error}"))
    return recording


def _is_ring(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise RecordingNotFound(
            f"there is no recording at {path}: check the path, or record one first."
        ) from None
    except IsADirectoryError:
        raise RecordingError(f"{path} is a folder: name a recording in it, as in {path}/*.pyscope.") from None
    except OSError as error:
        raise RecordingError(
            f"the recording {path} cannot be read: {error.strerror or error}. Check the path and its rights."
        ) from error
    if int.from_bytes(head, "little") == RING_MAGIC:
        return True
    if len(head) < 4 or int.from_bytes(head[:4], "little") != BLOCK_MAGIC:
        raise NotARecording(
            f"{path} is not a recording of PyScope. Give the file that `pyscope run -o` wrote."
        )
    return False


def _read(path: str) -> tuple[bytes, dict[bytes, RingCopy | str], bool]:
    """A file's bytes, the rings of its processes by process id (or why there is none), whether it is locked.

    The file is read after the rings, so that a page is in one of them at least.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
            rings: dict[bytes, RingCopy | str] = {}
            for info in _ring_owners(data):
                try:
                    ring = copy_ring(info.ring_path)
                except FileNotFoundError:
                    rings[info.process_id] = f"the ring file {info.ring_path} is gone"
                except (OSError, ValueError, CorruptRecording, VersionMismatch) as error:
                    rings[info.process_id] = str(error)
                else:
                    if ring.info.process_id == info.process_id:
                        rings[info.process_id] = ring
                    else:
                        rings[info.process_id] = f"{info.ring_path} is another process's ring now"
            if rings:
                file.seek(0)
                data = file.read()
            return data, rings, locked(file.fileno())
    except FileNotFoundError:
        raise RecordingNotFound(
            f"there is no recording at {path}: check the path, or record one first."
        ) from None
    except OSError as error:
        raise RecordingError(
            f"the recording {path} cannot be read: {error}. Check the path and its rights."
        ) from error


def _ring_owners(data: bytes) -> list[ProcessInfo]:
    """The processes of a file whose ring may hold more: those that were not stopped in order."""
    owners = []
    for found in blocks.scan(data):
        if isinstance(found, Block) and found.type == BlockType.PROCESS:
            info, summary = _process(data, found)
            if info.ring_path and (summary is None or _unfinished(summary)):
                owners.append(info)
    return owners


def _unfinished(summary: Summary) -> bool:
    return summary.state in (ProcessState.RECORDING, ProcessState.WRITE_FAILED)


def _process(data: bytes, block: Block) -> tuple[ProcessInfo, Summary | None]:
    at = block.start + PROCESS_INFO.size
    return ProcessInfo.unpack(data[block.start : at]), Summary.unpack(data[at : at + SUMMARY_BYTES])


class _File:
    """Reads one file's blocks into a Recording."""

    def __init__(
        self, recording: Recording, path: str, data: bytes, rings: dict[bytes, RingCopy | str],
        alive: bool, codec: Codec, seen: set[bytes],
    ) -> None:  # fmt: skip
        self.recording = recording
        self.path = path
        self.data = data
        self.rings = rings
        self.alive = alive
        self.codec = codec
        self.seen = seen
        self.buffer = len(recording.buffers)
        self.current: ProcessBuilder | None = None
        self.skipping = False  # the process was read from another file already
        self.began = 0  # where the current process's blocks begin

    def read(self) -> None:
        """All blocks. Raises CorruptRecording if there is no process at all."""
        self.recording.buffers.append(self.data)
        found_any = False
        for found in blocks.scan(self.data):
            if isinstance(found, Damage):
                self._damage(found)
            elif found.type == BlockType.PROCESS:
                self._end(found.at)
                self._begin(found)
                found_any = True
            elif not self.skipping:
                self._take(found)
        self._end(len(self.data))
        if not found_any:
            raise CorruptRecording(
                f"{self.path} is damaged at its beginning: the process it belongs to cannot be told. "
                "Restore the file from a copy; the rest is of no use without it."
            )

    def _begin(self, block: Block) -> None:
        info, summary = _process(self.data, block)
        self.skipping = any(info.process_id) and info.process_id in self.seen
        if self.skipping:
            return
        self.seen.add(info.process_id)
        self.began = block.at
        self.current = ProcessBuilder(info, summary, self.codec)
        if summary is None:
            self.current.lose("damaged_summary", "the summary of the process is damaged")

    def _end(self, at: int) -> None:
        """The current process's blocks end here."""
        if self.current is None:
            return
        builder, self.current = self.current, None
        record, summary = builder.record, builder.record.summary
        unfinished = summary is None or _unfinished(summary)
        record.file_bytes = at - self.began
        if summary and summary.file_bytes:
            if summary.file_bytes > record.file_bytes:
                missing = summary.file_bytes - record.file_bytes
                builder.lose("truncated", f"the last {missing} bytes of the process are missing")
            record.file_bytes = min(record.file_bytes, summary.file_bytes)
        record.alive = self.alive and unfinished
        ring = self.rings.get(record.info.process_id)
        if isinstance(ring, RingCopy) and unfinished:
            record.alive = ring.alive
            self.recording.buffers.append(builder.ring(ring, len(self.recording.buffers)))
        elif isinstance(ring, str) and unfinished:
            builder.lose("ring_gone", f"{ring}: what had not reached the file is lost")
        builder.finish()
        self.recording.processes.append(record)

    def _belongs(self, at: int) -> bool:
        """Whether what is at `at` is the current process's; behind its end it is of a lost PROCESS block."""
        if self.current is None:
            return False
        summary = self.current.record.summary
        return not (summary and summary.file_bytes and at >= self.began + summary.file_bytes)

    def _damage(self, damage: Damage) -> None:
        if self.skipping:
            return
        detail = f"{damage.size} bytes at {damage.at}: {damage.detail}"
        if self.current is None or not self._belongs(damage.at):
            self.recording.missing.append(Missing(damage.reason, detail=detail))
        elif damage.reason != "truncated" or self._torn_is_lost():
            self.current.lose(damage.reason, detail)

    def _torn_is_lost(self) -> bool:
        """Whether a torn last block is a loss: not while it is being written, nor when the ring has its
        pages.

        Nor where the summary knows how long the process's blocks are: then the size tells.
        """
        assert self.current is not None
        summary, info = self.current.record.summary, self.current.record.info
        if summary is not None and not _unfinished(summary):
            return not summary.file_bytes
        return not self.alive and not isinstance(self.rings.get(info.process_id), RingCopy)

    def _take(self, block: Block) -> None:
        current = self.current
        if current and block.type == BlockType.META and current.record.meta is not None:
            self._end(block.at)  # a second META: the PROCESS block before it was lost
            current = None
        if current is None or not self._belongs(block.at):
            detail = f"the process of the block at {block.at} is lost"
            self.recording.missing.append(Missing("damaged_block", detail=detail))
            return
        payload = memoryview(self.data)[block.start : block.start + block.size]
        if block.type == BlockType.META:
            current.meta(payload)
        elif block.type == BlockType.TABLE:
            current.table(payload)
        elif block.type == BlockType.EVENTS:
            current.events(payload, self.buffer, block.start)
        else:
            current.lose("damaged_block", f"the block at {block.at} has the unknown type {block.type}")


def _from_ring(path: str, codec: Codec) -> Recording:
    """A ring file without its recording: the pages that had not been handed on."""
    try:
        ring = copy_ring(path)
    except OSError as error:
        raise RecordingError(f"the ring file {path} cannot be read: {error}. Check its rights.") from error
    builder = ProcessBuilder(ring.info, None, codec)
    buffer = builder.ring(ring, 0)
    builder.finish()
    builder.record.alive = ring.alive
    return Recording(path, [buffer], [builder.record])
