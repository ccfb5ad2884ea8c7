"""The last seconds of a recording, kept encoded and bounded, from which a trace can be made at any time."""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict
from dataclasses import dataclass

import numpy as np

from pyscope.blocks import ClockPair
from pyscope.codec import Codec
from pyscope.format import LossReason
from pyscope.live.chunks import Chunk, PageKey
from pyscope.live.follow import FollowedProcess
from pyscope.process_record import CHUNK_DTYPE, Missing, ProcessRecord
from pyscope.recording import Recording
from pyscope.trace import Trace

__all__ = ["Snapshot", "Window"]

MOST_BYTES = 16 << 20
_CHUNK_BYTES = 250  # what a chunk takes beside its data


@dataclass(slots=True)
class _Kept:
    chunk: Chunk
    first_ns: int  # its page's begin
    last_ns: int  # when it was last read


class Window:
    """Chunks of all processes, the oldest given up first. The feed's thread alone calls this."""

    def __init__(self, codec: Codec, most_bytes: int = MOST_BYTES) -> None:
        self._codec = codec
        self._most = most_bytes
        self._bytes = 0
        self._chunks_of: Counter[int] = Counter()
        self._kept: OrderedDict[tuple[int, PageKey], _Kept] = OrderedDict()
        self._cut_ns = 0  # all from then on is kept; 0: nothing was given up

    def take(self, process: FollowedProcess, chunks: list[Chunk], now_ns: int) -> None:
        """Keeps chunks of a process; a page that grew replaces what was kept of it."""
        for chunk in sorted(chunks, key=lambda chunk: chunk.base_ticks):
            key = process.number, chunk.key
            before = self._kept.pop(key, None)
            if before is None:
                self._chunks_of[process.number] += 1
            else:
                self._bytes -= len(before.chunk.data) + _CHUNK_BYTES
            first = process.unix_ns(chunk.base_ticks) if before is None else before.first_ns
            self._kept[key] = _Kept(chunk, first, now_ns)
            self._bytes += len(chunk.data) + _CHUNK_BYTES
        while self._bytes > self._most and len(self._kept) > 1:
            (number, _), old = self._kept.popitem(last=False)
            self._chunks_of[number] -= 1
            self._bytes -= len(old.chunk.data) + _CHUNK_BYTES
            self._cut_ns = max(self._cut_ns, old.first_ns, next(iter(self._kept.values())).first_ns)

    def holds(self, number: int) -> bool:
        """Whether anything of a process is kept."""
        return self._chunks_of.get(number, 0) > 0

    def snapshot(
        self, path: str, processes: list[FollowedProcess], from_ns: int = 0, to_ns: int = 1 << 62
    ) -> Snapshot:
        """What is kept of the pages that hold anything between two times; its trace can be made in another thread."""
        chosen = [
            (number, kept.chunk)
            for (number, _), kept in self._kept.items()
            if kept.last_ns >= from_ns and kept.first_ns <= to_ns
        ]
        records = []
        for process in processes:
            own = [chunk for number, chunk in chosen if number == process.number]
            if own or process.number == 0:
                records.append((_frozen(process), own))
        since = max([self._cut_ns, *(process.unseen_until_ns for process in processes)])
        return Snapshot(path, records, self._codec, since)


def _frozen(process: FollowedProcess) -> ProcessRecord:
    """A copy of what is known of a process: its tables grow on."""
    record = process.record
    start2 = record.info.start2
    missing: list[Missing] = []
    figures = process.figures
    if figures is not None:
        start2 = figures.latest if figures.latest.ticks > start2.ticks else start2
        if figures.dropped:
            first, last = figures.dropped_first_ticks, figures.dropped_last_ticks
            missing.append(Missing(LossReason.RING_FULL.name.lower(), figures.dropped, first, last))
    return dataclasses.replace(
        record,
        info=dataclasses.replace(
            record.info, flight=True, start2=ClockPair(start2.ticks, start2.monotonic_ns, start2.unix_ns)
        ),
        strings=dict(record.strings),
        codes=dict(record.codes),
        exceptions=dict(record.exceptions),
        locations=dict(record.locations),
        stacks=dict(record.stacks),
        missing=missing,
    )


@dataclass(slots=True)
class Snapshot:
    """What a trace is made of: the processes' tables and their chunks.

    `since_ns`: of before that time not all is kept; 0 where everything is, from the begin.
    """

    path: str
    records: list[tuple[ProcessRecord, list[Chunk]]]
    codec: Codec
    since_ns: int

    def trace(self) -> Trace:
        """The trace. Older pages are taken to be overwritten, as in a flight recorder."""
        buffers: list[bytes] = []
        processes = []
        for record, chunks in self.records:
            rows = []
            names: dict[int, tuple[str, int]] = {}
            for chunk in sorted(chunks, key=lambda chunk: chunk.key):
                key = chunk.key
                rows.append(
                    (0, key.sequence, chunk.base_ticks, chunk.context, len(buffers), len(chunk.data),
                     chunk.events, key.thread, chunk.time_shift, 0)
                )  # fmt: skip
                buffers.append(chunk.data)
                names[key.thread] = chunk.name, chunk.os_tid
            processes.append(
                dataclasses.replace(record, chunks=np.array(rows, CHUNK_DTYPE), thread_names=names)
            )
        return Trace(Recording(self.path, buffers, processes), self.codec)
