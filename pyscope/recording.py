"""Opens a recording: its file, the ring of a process that still lives or was killed, and its children's
parts.

What comes out is bytes to decode, tables of names, and a list of everything that is missing.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyscope import blocks
from pyscope.blocks import Block, ClockPair, Damage, ProcessInfo, Summary
from pyscope.codec import Codec
from pyscope.errors import CorruptRecording, NotARecording, RecordingError, RecordingNotFound, VersionMismatch
from pyscope.format import (
    BLOCK_MAGIC,
    CHUNK_HEADER,
    CODE_MASK,
    CODE_RECORD,
    EXCEPTION_MASK,
    EXCEPTION_RECORD,
    LOCATION_RECORD,
    PROCESS_INFO,
    QUIETING_RECORD,
    RECORD_HEADER,
    RING_MAGIC,
    STACK_RECORD,
    STRING_RECORD,
    SUMMARY_BYTES,
    BlockType,
    LossReason,
    ProcessState,
    RecordType,
    padded,
)
from pyscope.ring import RingCopy, copy_ring, locked

# struct Chunk of native/columns.hpp.
CHUNK_DTYPE = np.dtype(
    [("offset", "<u8"), ("sequence", "<u8"), ("base_ticks", "<u8"), ("context", "<u8"), ("buffer", "<u4"),
     ("encoded", "<u4"), ("events", "<u4"), ("thread", "<u4"), ("time_shift", "<u4"), ("reserved", "<u4")]
)  # fmt: skip


class Code(NamedTuple):
    """A code record, its names as string ids."""

    module: int
    qualname: int
    file: int
    line: int
    arity: int
    flags: int


@dataclass(frozen=True, slots=True)
class Missing:
    """Something lost, as the reader found it: `count` events (0: unknown) between two readings of the clock.

    Without `first_ticks` it lies anywhere in the process's time.
    """

    reason: str
    count: int = 0
    first_ticks: int | None = None
    last_ticks: int | None = None
    detail: str = ""


class Quieting(NamedTuple):
    """What a function was called while the governor had quieted it: an estimate and its 95 % interval.

    `code` 0: every function. Times are readings of the recorder's clock.
    """

    code: int
    first_ticks: int
    last_ticks: int
    calls: int
    low: int
    high: int
    windows: int


@dataclass(slots=True)
class ProcessRecord:
    """All that a recording says of one process. `thread_names`: (name, OS id) by the thread's number."""

    info: ProcessInfo
    summary: Summary | None = None
    ring: RingCopy | None = None
    meta: dict[str, Any] | None = None
    strings: dict[int, str] = field(default_factory=dict)
    codes: dict[int, Code] = field(default_factory=dict)
    exceptions: dict[int, int] = field(default_factory=dict)
    locations: dict[int, tuple[int, int, int]] = field(
        default_factory=dict
    )  # file, function (string ids), line
    stacks: dict[int, tuple[int, int]] = field(default_factory=dict)  # caller, location
    quietings: dict[int, Quieting] = field(default_factory=dict)
    chunks: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, CHUNK_DTYPE))
    thread_names: dict[int, tuple[str, int]] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    file_bytes: int = 0
    alive: bool = False

    @property
    def state(self) -> str:
        """recording, stopped, recovered, killed or write_failed."""
        ended: dict[int, str] = {
            ProcessState.STOPPED: "stopped",
            ProcessState.RECOVERED: "recovered",
            ProcessState.WRITE_FAILED: "write_failed",
        }
        state = self.summary.state if self.summary else int(ProcessState.RECORDING)
        return ended.get(state, "recording" if self.alive else "killed")

    @property
    def latest(self) -> ClockPair:
        """The latest clock pair that is of use."""
        pairs = [self.info.start2]
        if self.summary:
            pairs.append(self.summary.end)
        if self.ring:
            pairs.append(self.ring.latest)
        usable = [
            p
            for p in pairs
            if p.ticks > self.info.start.ticks and p.monotonic_ns > self.info.start.monotonic_ns
        ]
        return max(usable, key=lambda pair: pair.ticks, default=self.info.start)

    @property
    def ns_per_tick(self) -> float:
        """The tick's length between the first and the latest clock pair; 1 if there is one only."""
        first, last = self.info.start, self.latest
        if last.ticks <= first.ticks:
            return 1.0
        return min((last.monotonic_ns - first.monotonic_ns) / (last.ticks - first.ticks), 1e9)

    def unix_ns(self, ticks: int) -> int:
        """A reading of the recorder's clock as Unix time."""
        return self.info.start.unix_ns + int((ticks - self.info.start.ticks) * self.ns_per_tick)


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
    parts = []
    for part in sorted(glob.glob(f"{glob.escape(path)}.*.part")):
        try:
            parts.append((part, *_read(part)))
        except RecordingNotFound:
            continue
        except RecordingError as error:
            recording.missing.append(Missing("damaged_part", detail=f"{os.path.basename(part)}: {error}"))
    files = [(path, *_read(path)), *parts]
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
    except OSError as error:
        raise RecordingError(
            f"the recording {path} cannot be read: {error}. Check the path and its rights."
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


class ProcessBuilder:
    """Gathers what blocks and the ring say of one process."""

    def __init__(self, info: ProcessInfo, summary: Summary | None, codec: Codec) -> None:
        self.record = ProcessRecord(info, summary)
        self.codec = codec
        self._chunks: list[tuple[int, ...]] = []
        self._names: dict[int, tuple[int, str, int]] = {}  # by thread: sequence, name, OS id

    def lose(self, reason: str, detail: str) -> None:
        """Notes something missing of which the time is not known."""
        self.record.missing.append(Missing(reason, detail=detail))

    def meta(self, payload: memoryview | bytes) -> None:
        """Takes the META block."""
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(bytes(payload))
            self.record.meta = found if isinstance(found, dict) else {}
        if self.record.meta is None:
            self.record.meta = {}

    def table(self, payload: memoryview | bytes, *, whole: bool = True) -> None:
        """Takes records of the interned table; `whole` if a torn one is a loss."""
        at, size = 0, len(payload)
        while at < size:
            length = 0
            if size - at >= RECORD_HEADER.size:
                length, kind, _ = RECORD_HEADER.unpack_from(payload, at)
            if length < RECORD_HEADER.size or length % 8 or length > size - at:
                if whole:
                    self.lose("damaged_block", f"{size - at} bytes of names are malformed")
                return
            self._table_record(kind, payload[at : at + length])
            at += length

    def _table_record(self, kind: int, data: memoryview | bytes) -> None:
        record, size = self.record, len(data)
        if kind == RecordType.STRING and size >= STRING_RECORD.size:
            *_, number, length = STRING_RECORD.unpack_from(data)
            text = bytes(data[STRING_RECORD.size : STRING_RECORD.size + length])
            record.strings[number] = text.decode("utf-8", "replace")
        elif kind == RecordType.CODE and size >= CODE_RECORD.size:
            _, _, _, number, *fields = CODE_RECORD.unpack_from(data)
            if number <= CODE_MASK:
                record.codes[number] = Code(*fields)
        elif kind == RecordType.EXCEPTION and size >= EXCEPTION_RECORD.size:
            *_, number, name = EXCEPTION_RECORD.unpack_from(data)
            if number <= EXCEPTION_MASK:
                record.exceptions[number] = name
        elif kind == RecordType.LOCATION and size >= LOCATION_RECORD.size:
            _, _, _, number, file, function, line = LOCATION_RECORD.unpack_from(data)
            record.locations[number] = (file, function, line)
        elif kind == RecordType.STACK and size >= STACK_RECORD.size:
            _, _, _, number, caller, location, _ = STACK_RECORD.unpack_from(data)
            if caller < number:
                record.stacks[number] = (caller, location)
        elif kind == RecordType.QUIETING and size >= QUIETING_RECORD.size:
            _, _, _, number, *fields, _ = QUIETING_RECORD.unpack_from(data)
            record.quietings[number] = Quieting(*fields)

    def events(self, payload: memoryview, buffer: int, start: int) -> None:
        """Takes a segment whose payload lies at `start` of the buffer."""
        at, size = 0, len(payload)
        while at < size:
            header = CHUNK_HEADER.unpack_from(payload, at) if size - at >= CHUNK_HEADER.size else None
            if header is None or header[0] > size - at - CHUNK_HEADER.size or header[7] > 63:
                self.lose("damaged_block", f"{size - at} bytes of a segment are malformed")
                return
            encoded, events, thread, tid, sequence, base, context, shift, _, name = header
            at += CHUNK_HEADER.size
            self._chunk(
                (start + at, sequence, base, context, buffer, encoded, events, thread, shift, 0), tid, name
            )
            at += padded(encoded)

    def _chunk(self, chunk: tuple[int, ...], os_tid: int, name: bytes) -> None:
        self._chunks.append(chunk)
        thread, sequence = chunk[7], chunk[1]
        known = self._names.get(thread)
        text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
        if known is None or (sequence >= known[0] and text):
            self._names[thread] = (sequence, text, os_tid)

    def ring(self, ring: RingCopy, buffer: int) -> bytes:
        """Takes a ring; returns the buffer that its pages, encoded, lie in."""
        self.record.ring = ring
        self.table(ring.table, whole=not ring.alive)
        if self.record.meta is None and ring.meta:
            self.meta(ring.meta)
        encoded = bytearray()
        shift = self.record.info.time_shift & 63
        for page in ring.pages:
            data, events = self.codec.encode_words(page.words, page.base_ticks, shift)
            place = (len(encoded), page.sequence, page.base_ticks, page.context, buffer, len(data), events)
            self._chunk((*place, page.thread, shift, 0), page.os_tid, page.name)
            encoded += data
        if ring.dropped:
            self.record.missing.append(
                Missing(
                    LossReason.RING_FULL.name.lower(),
                    ring.dropped,
                    ring.dropped_first_ticks,
                    ring.dropped_last_ticks,
                )
            )
        if ring.overwritten_pages:
            first, last = self.record.info.start.ticks, ring.overwritten_until_ticks
            detail = f"{ring.overwritten_pages} pages"
            self.record.missing.append(Missing(LossReason.OVERWRITTEN.name.lower(), 0, first, last, detail))
        return bytes(encoded)

    def finish(self) -> None:
        """Orders the chunks by thread and sequence; of a page that is there twice the fuller is taken."""
        record = self.record
        chunks = np.array(self._chunks, CHUNK_DTYPE)
        order = np.lexsort((-chunks["events"].astype(np.int64), chunks["sequence"], chunks["thread"]))
        chunks = chunks[order]
        again = (np.diff(chunks["sequence"]) == 0) & (np.diff(chunks["thread"].astype(np.int64)) == 0)
        record.chunks = chunks[np.concatenate(([True], ~again))] if len(chunks) else chunks
        record.thread_names = {thread: (name, tid) for thread, (_, name, tid) in sorted(self._names.items())}
        if record.summary is None:
            return
        for loss in record.summary.losses:
            known = loss.reason in LossReason._value2member_map_
            reason = LossReason(loss.reason).name.lower() if known else f"reason_{loss.reason}"
            record.missing.append(Missing(reason, loss.count, loss.first_ticks, loss.last_ticks))
        if record.summary.state == ProcessState.WRITE_FAILED or record.summary.lost_pages:
            error = record.summary.error
            detail = f"{record.summary.lost_pages} pages could not be written"
            if error:
                detail += f": {os.strerror(error)}" if error < 4096 else f": error {error}"
            record.missing.append(Missing(LossReason.WRITE_ERROR.name.lower(), detail=detail))


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
