"""The blocks of a recording file, found and checked; damaged stretches are skipped and told."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from pyscope.errors import VersionMismatch
from pyscope.format import (
    BLOCK_HEADER,
    BLOCK_MAGIC,
    CLOCK_PAIR,
    FORMAT_VERSION,
    HEADER_CRC_AT,
    LOSS_ROW,
    PROCESS_BLOCK_BYTES,
    PROCESS_INFO,
    SUMMARY,
    SUMMARY_BYTES,
    SUMMARY_LOSSES,
    BlockType,
    padded,
)

_MAGIC = struct.pack("<I", BLOCK_MAGIC)


@dataclass(frozen=True, slots=True)
class Block:
    """A whole block: its `type`, where its header begins, its payload's place."""

    type: int
    at: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of the file that say nothing: `reason` is "damaged_block" or "truncated"."""

    at: int
    size: int
    reason: str
    detail: str


def scan(data: bytes) -> Iterator[Block | Damage]:
    """The blocks of a file in order, each checked against its checksum.

    Raises VersionMismatch if the first block has another version.
    """
    at, size = 0, len(data)
    while at < size:
        found = _header(data, at)
        if found is None:
            following = _next_header(data, at + 8)
            reason = "damaged_block" if following < size or size - at >= BLOCK_HEADER.size else "truncated"
            yield Damage(at, following - at, reason, "no valid block header")
            at = following
            continue
        kind, length, crc = found
        start, end = at + BLOCK_HEADER.size, at + BLOCK_HEADER.size + length
        if end > size:
            yield Damage(at, size - at, "truncated", f"{end - size} bytes of the last block are missing")
            return
        checked = PROCESS_INFO.size if kind == BlockType.PROCESS else length
        if kind == BlockType.PROCESS and length != PROCESS_BLOCK_BYTES - BLOCK_HEADER.size:
            yield Damage(at, end - at, "damaged_block", "a PROCESS block of a wrong size")
        elif zlib.crc32(memoryview(data)[start : start + checked]) != crc:
            name = BlockType(kind).name if kind in BlockType._value2member_map_ else f"type {kind}"
            yield Damage(at, end - at, "damaged_block", f"the checksum of a block ({name}) is wrong")
        else:
            yield Block(kind, at, start, length)
        at += padded(end - at)


def _header(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Type, length and checksum if there is a valid header at `at`."""
    if at + BLOCK_HEADER.size > len(data):
        return None
    magic, kind, version, length, crc, header_crc, _ = BLOCK_HEADER.unpack_from(data, at)
    if magic != BLOCK_MAGIC or zlib.crc32(data[at : at + HEADER_CRC_AT]) != header_crc:
        return None
    if version != FORMAT_VERSION:
        if at == 0:
            raise VersionMismatch(
                f"the recording has format version {version}; this PyScope reads version {FORMAT_VERSION}. "
                "Read it with the version of PyScope that wrote it, or record anew."
            )
        return None
    return kind, length, crc


def _next_header(data: bytes, at: int) -> int:
    """The next place with a valid header, or the file's end."""
    at = padded(at)
    while (at := data.find(_MAGIC, at)) >= 0:
        if at % 8 == 0 and _header(data, at) is not None:
            return at
        at += 1
    return len(data)


# --- PROCESS -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClockPair:
    """Two simultaneous readings: the recorder's ticks and both clocks in ns."""

    ticks: int
    monotonic_ns: int
    unix_ns: int

    @classmethod
    def unpack(cls, data: bytes) -> ClockPair:
        """From the bytes of native/recording.hpp's ClockPair."""
        return cls(*CLOCK_PAIR.unpack(data))


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What is known of a process from the start of its recording."""

    recording_id: bytes
    process_id: bytes
    pid: int
    parent_pid: int
    clock_kind: int
    time_shift: int
    start: ClockPair
    start2: ClockPair
    flight: bool
    ring_path: str

    @classmethod
    def unpack(cls, data: bytes) -> ProcessInfo:
        """From the bytes of native/recording.hpp's ProcessInfo."""
        recording, process, pid, parent, clock, shift, start, start2, flight, _, ring = PROCESS_INFO.unpack(
            data
        )
        path = ring.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        return cls(recording, process, pid, parent, clock, shift, ClockPair.unpack(start),
                   ClockPair.unpack(start2), bool(flight), path)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SummaryLoss:
    """A loss as the recorder counted it: `reason` of LossReason, `count` 0 if unknown."""

    reason: int
    count: int
    first_ticks: int
    last_ticks: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What the recorder wrote at the stop; all zero before."""

    state: int
    end: ClockPair
    file_bytes: int
    events: int
    drain_cpu_ns: int
    error: int
    lost_pages: int
    losses: tuple[SummaryLoss, ...]

    @classmethod
    def unpack(cls, data: bytes) -> Summary | None:
        """From the bytes of native/recording.hpp's Summary; None if they are damaged."""
        crc, state, end, file_bytes, events, cpu, error, pages, used, _ = SUMMARY.unpack_from(data)
        if any(data[:SUMMARY_BYTES]) and zlib.crc32(data[4:SUMMARY_BYTES]) != crc:
            return None
        rows = []
        for i in range(min(used, SUMMARY_LOSSES)):
            reason, _, count, first, last = LOSS_ROW.unpack_from(data, SUMMARY.size + i * LOSS_ROW.size)
            rows.append(SummaryLoss(reason, count, first, last))
        return cls(state, ClockPair.unpack(end), file_bytes, events, cpu, error, pages, tuple(rows))
