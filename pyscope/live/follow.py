"""Follows a recording while it is made: the rings of its processes, its file, and its children's parts.

Each look gives what is new. As a reader of a whole recording does, it takes the rings first and the file after them,
so that a page is in one of them at least; a page that is in both is taken once.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from pyscope import parts
from pyscope.blocks import ProcessInfo
from pyscope.codec import Codec
from pyscope.errors import RecordingError
from pyscope.format import BlockType, ProcessState
from pyscope.live.chunks import Chunk, PageKey
from pyscope.live.file_tail import FileTail, Piece
from pyscope.live.ring_pages import RingFigures, RingPages
from pyscope.process_record import ProcessBuilder, ProcessRecord

__all__ = ["FollowedProcess", "Follower"]

_HISTORY = 16 << 20  # bytes of segments that are read of what was recorded before
_CHILDREN_EVERY = 10  # looks


class FollowedProcess:
    """One process of the recording. `record`: what is known of it; `number`: its place among the processes."""

    def __init__(self, number: int, builder: ProcessBuilder) -> None:
        self.number = number
        self.record: ProcessRecord = builder.record
        self.builder = builder
        self.ring: RingPages | None = None
        self.figures: RingFigures | None = None
        self.place: tuple[FileTail, int] | None = None  # of its PROCESS block
        self.fresh: dict[PageKey, Chunk] = {}
        self.end_state = ""  # of a flight recorder that has ended: no file says how
        self.unseen_until_ns = 0  # of what it recorded before, not all was there, or read, when it was found
        self._complete: set[PageKey] = set()
        self._through: dict[int, int] = {}  # by thread: the last page that the file holds

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return not self.record.alive

    @property
    def state(self) -> str:
        """recording, stopped, recovered, killed or write_failed."""
        return self.end_state or self.record.state

    @property
    def ns_per_tick(self) -> float:
        """The tick's length between the start and the latest clock pair known."""
        if self.figures is not None:
            first, last = self.record.info.start, self.figures.latest
            if last.ticks > first.ticks and last.monotonic_ns > first.monotonic_ns:
                return min((last.monotonic_ns - first.monotonic_ns) / (last.ticks - first.ticks), 1e9)
        return self.record.ns_per_tick

    def unix_ns(self, ticks: int) -> int:
        """A reading of the recorder's clock as Unix time."""
        start = self.record.info.start
        return start.unix_ns + int((ticks - start.ticks) * self.ns_per_tick)

    def take(self, chunk: Chunk, *, from_file: bool) -> None:
        """Notes a page, unless all of it was seen before."""
        key = chunk.key
        if from_file:
            if key.sequence <= self._through.get(key.thread, -1):
                return
            self._through[key.thread] = key.sequence
            if key in self._complete:
                self._complete.remove(key)
                return
        elif self.place is not None:
            if key.sequence <= self._through.get(key.thread, -1):
                return
            if chunk.complete:
                self._complete.add(key)
        before = self.fresh.get(key)
        if before is None or before.events <= chunk.events:
            self.fresh[key] = chunk

    def look_at_ring(self) -> None:
        """Takes what the ring has that is new: pages, then names."""
        ring = self.ring
        if ring is None:
            return
        alive = ring.alive  # before the pages: what a process wrote before it died is there then
        for chunk in ring.changed():
            self.take(chunk, from_file=False)
        before, self.figures = self.figures, ring.figures()
        if before is None and self.figures.overwritten_pages:
            self.unseen_until_ns = self.unix_ns(self.figures.overwritten_until_ticks)
        names = ring.new_names(self.figures)
        if names:
            self.builder.table(names, whole=False)
        if self.record.meta is None and self.figures.meta_bytes:
            self.builder.meta(ring.meta(self.figures))
        if not alive:
            self.record.alive = False

    def look_at_summary(self) -> None:
        """Whether it was stopped meanwhile, by what its PROCESS block says."""
        if self.place is not None:
            tail, at = self.place
            self.record.summary = tail.summary(at) or self.record.summary

    def forget(self) -> None:
        """Gives up its names: nothing of it will be asked for any more."""
        record = self.record
        for table in (record.strings, record.codes, record.exceptions, record.locations, record.stacks):
            table.clear()
        self._complete.clear()

    def close(self) -> None:
        """Gives the ring up."""
        if self.ring is not None:
            self.ring.close()
            self.ring = None


class Follower:
    """Follows the recording `path`, or the ring file `path` of a process that has no recording file.

    `history`: bytes of what was recorded before that are read. Raises OSError, RecordingError (NotARecording,
    VersionMismatch, …).
    """

    def __init__(self, path: str, codec: Codec, *, ring: bool, history: int = _HISTORY) -> None:
        self.path = path
        self.processes: list[FollowedProcess] = []
        self._codec = codec
        self._by_id: dict[bytes, FollowedProcess] = {}
        self._tails: dict[str, FileTail] = {}
        self._current: dict[str, FollowedProcess | None] = {}
        self._strangers: set[str] = set()  # rings of other recordings, parts that cannot be read
        self._history = history
        self._looks = 0
        if ring:
            self._add_ring(path)
        else:
            self._tails[path] = FileTail(path)

    def look(self) -> list[FollowedProcess]:
        """The processes of which there is news, in their `fresh`: the caller takes that away."""
        if self._looks % _CHILDREN_EVERY == 0:
            self._find_children()
        self._looks += 1
        for process in self.processes:
            process.look_at_ring()
        known = len(self.processes)
        self._read_files()
        while known < len(self.processes):
            new, known = self.processes[known:], len(self.processes)
            for process in new:
                process.look_at_ring()
            self._read_files()
        self._history = 0
        for process in self.processes:
            self._end_if_over(process)
        return [process for process in self.processes if process.fresh]

    @property
    def alive(self) -> bool:
        """Whether any process still records."""
        return any(process.record.alive for process in self.processes)

    @property
    def replaced(self) -> bool:
        """Whether another recording stands at the path now."""
        tail = self._tails.get(self.path)
        return tail is not None and tail.replaced

    def close(self) -> None:
        """Gives up files and rings."""
        for process in self.processes:
            process.close()
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()

    # files

    def _read_files(self) -> None:
        for path, tail in list(self._tails.items()):
            for piece in tail.new(self._history):
                self._take(path, tail, piece)
            if path != self.path and tail.replaced:
                tail.close()  # joined to the recording
                del self._tails[path]

    def _take(self, path: str, tail: FileTail, piece: Piece) -> None:
        if piece.info is not None:
            process = self._by_id.get(piece.info.process_id)
            if process is None:
                process = self._add(piece.info)
                process.record.alive = True
            process.place = tail, piece.at
            process.record.summary = piece.summary
            self._current[path] = process
            if process.ring is None and process.record.state == "recording":
                self._open_ring(process)
            return
        process = self._current.get(path)
        if process is None:
            return
        if piece.type == BlockType.META and process.record.meta is None:
            process.builder.meta(piece.payload)
        elif piece.type == BlockType.TABLE:
            process.builder.table(piece.payload)
        if piece.chunks and tail.passed_over:
            tail.passed_over = False
            process.unseen_until_ns = process.unix_ns(piece.chunks[0].base_ticks)
        for chunk in piece.chunks:
            process.take(chunk, from_file=True)

    def _add(self, info: ProcessInfo) -> FollowedProcess:
        process = FollowedProcess(len(self.processes), ProcessBuilder(info, None, self._codec))
        self.processes.append(process)
        self._by_id[info.process_id] = process
        return process

    def _end_if_over(self, process: FollowedProcess) -> None:
        """Whether a process still records: its ring's lock tells, without a ring its file's."""
        record = process.record
        if self._looks % _CHILDREN_EVERY == 1:
            process.look_at_summary()
        if process.ring is None and process.place is not None and record.alive:
            record.alive = process.place[0].held
        if record.alive and record.summary is not None and record.summary.state != ProcessState.RECORDING:
            record.alive = record.summary.state == ProcessState.WRITE_FAILED and process.ring is not None
        if not record.alive and process.ring is not None:
            process.look_at_summary()
            process.look_at_ring()
            process.close()
            if process.place is None:  # who stops in order takes the ring along
                process.end_state = "killed" if os.path.exists(record.info.ring_path) else "stopped"

    # rings

    def _add_ring(self, path: str) -> FollowedProcess:
        ring = RingPages(path, self._codec)
        process = self._add(ring.info)
        process.ring = ring
        process.record.alive = True
        return process

    def _open_ring(self, process: FollowedProcess) -> None:
        path = process.record.info.ring_path
        if not path:
            return
        try:
            ring = RingPages(path, self._codec)
        except (OSError, ValueError, RecordingError):
            return
        if ring.info.process_id == process.record.info.process_id:
            process.ring = ring
        else:
            ring.close()

    # children

    def _find_children(self) -> None:
        for path in self._candidates():
            if path in self._strangers:
                continue
            try:
                if path.endswith(".part"):
                    if path not in self._tails:
                        self._tails[path] = FileTail(path)
                else:
                    self._join_ring(path)
            except FileNotFoundError:
                continue
            except (OSError, RecordingError):
                self._strangers.add(path)

    def _candidates(self) -> Iterator[str]:
        if self.path in self._tails:
            yield from parts.of(self.path)
            return
        folder = os.path.dirname(self.path)
        known = {process.record.info.ring_path for process in self.processes}
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), "pyscope-*.ring"))):
            if path not in known and path != self.path:
                yield path

    def _join_ring(self, path: str) -> None:
        """The ring of a child of a flight recorder, which is known by its recording's number."""
        ring = RingPages(path, self._codec)
        own = self.processes[0].record.info.recording_id
        if ring.info.recording_id != own or ring.info.process_id in self._by_id:
            self._strangers.add(path)
            ring.close()
            return
        process = self._add(ring.info)
        process.ring = ring
        process.record.alive = True
