"""What a recording says of one process: its tables of names, the places of its events, and what is missing."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyscope.blocks import ClockPair, ProcessInfo, Summary
from pyscope.codec import Codec
from pyscope.format import (
    CHUNK_HEADER,
    CODE_MASK,
    CODE_RECORD,
    EXCEPTION_MASK,
    EXCEPTION_RECORD,
    LOCATION_RECORD,
    QUIETING_RECORD,
    RECORD_HEADER,
    STACK_RECORD,
    STRING_RECORD,
    LossReason,
    ProcessState,
    RecordType,
    padded,
)
from pyscope.ring import RingCopy

_FAR = 1 << 62  # nanoseconds: a time beyond is damage, and no column could hold it
MOST_IDS = 1 << 24  # of strings, of stacks: they are numbered through, so that a higher one is damage

__all__ = ["CHUNK_DTYPE", "Code", "Missing", "ProcessBuilder", "ProcessRecord", "Quieting"]

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
        found = self.info.start.unix_ns + int((ticks - self.info.start.ticks) * self.ns_per_tick)
        return max(-_FAR, min(found, _FAR))


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
            if number <= MOST_IDS:
                record.strings[number] = text.decode("utf-8", "replace")
            else:
                self.lose("damaged_block", f"a string of number {number}")
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
            if caller < number <= MOST_IDS:
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
