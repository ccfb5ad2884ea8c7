"""A copy of a ring file: the pages that a living or killed process had not handed on yet."""

from __future__ import annotations

import os
import stat
import struct
import sys
from dataclasses import dataclass

from pyscope.blocks import ClockPair, ProcessInfo
from pyscope.errors import CorruptRecording, VersionMismatch
from pyscope.format import (
    FORMAT_VERSION,
    PAGE_BYTES,
    PAGE_HEADER,
    PAGE_MAGIC,
    RING_FIGURES,
    RING_HEADER,
    RING_HEADER_BYTES,
    RING_MAGIC,
)

_FREE = 0


@dataclass(frozen=True, slots=True)
class RingPage:
    """One page in use: its header's fields and its words (little-endian uint64, zero from the end on)."""

    thread: int
    os_tid: int
    sequence: int
    base_ticks: int
    context: int
    name: bytes
    words: bytes


@dataclass(frozen=True, slots=True)
class RingCopy:
    """What a ring held at one moment. `latest` is the last clock pair; `alive` whether its process lives."""

    info: ProcessInfo
    pages: list[RingPage]
    table: bytes
    meta: bytes
    latest: ClockPair
    dropped: int
    dropped_first_ticks: int
    dropped_last_ticks: int
    overwritten_pages: int
    overwritten_until_ticks: int
    alive: bool


def locked(fd: int) -> bool:
    """Whether another open file description holds the lock by which a living recorder is known."""
    if sys.platform == "linux":
        import fcntl

        query = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        try:
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query)
        except OSError:
            return False
        return bool(struct.unpack_from("@h", answer)[0] != fcntl.F_UNLCK)
    return False


def copy_ring(path: str) -> RingCopy:
    """Copies the ring file `path`, which its process may be writing to.

    Raises OSError, CorruptRecording if it is no ring file, or VersionMismatch.
    """
    if not stat.S_ISREG(
        os.stat(path).st_mode
    ):  # a pipe would be waited for; a recording says what is opened here
        raise CorruptRecording(f"{path} is no ring file")
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        return _copy(fd, path)
    finally:
        os.close(fd)


def _copy(fd: int, path: str) -> RingCopy:
    size = os.fstat(fd).st_size
    head = os.pread(fd, RING_HEADER_BYTES, 0)
    problem = f"the ring file {path} is damaged; load its recording, which holds what was handed on"
    if len(head) < RING_HEADER_BYTES:
        raise CorruptRecording(problem)
    magic, version, page_bytes, pages, _, table_at, table_bytes, pages_at, _, info = RING_HEADER.unpack_from(
        head
    )
    if magic != RING_MAGIC:
        raise CorruptRecording(problem)
    if version != FORMAT_VERSION:
        raise VersionMismatch(
            f"the ring file {path} has format version {version}; this PyScope reads {FORMAT_VERSION}. "
            "Read it with the version of PyScope that wrote it."
        )
    if page_bytes != PAGE_BYTES or table_at + table_bytes > size or pages_at + pages * PAGE_BYTES > size:
        raise CorruptRecording(problem)
    alive = locked(fd)
    places = range(pages_at, pages_at + pages * PAGE_BYTES, PAGE_BYTES)
    copied = [page for at in places if (page := _page(fd, at)) is not None]
    if alive:
        copied += _overtaken(fd, places, copied)
    # After the pages: what they name is in the table by then (or in the file, which is read later still).
    figures = _figures(fd)
    used, meta_bytes = min(figures[0], table_bytes), min(figures[12], table_bytes)
    return RingCopy(
        info=ProcessInfo.unpack(info),
        pages=copied,
        table=os.pread(fd, used, table_at),
        meta=os.pread(fd, meta_bytes, table_at + table_bytes - meta_bytes),
        latest=ClockPair(figures[2], figures[3], figures[4]),
        dropped=figures[6],
        dropped_first_ticks=figures[7],
        dropped_last_ticks=figures[8],
        overwritten_pages=figures[9],
        overwritten_until_ticks=figures[10],
        alive=alive,
    )


def _overtaken(fd: int, places: range, copied: list[RingPage]) -> list[RingPage]:
    """Pages begun behind the back of the first pass, of threads whose next page it met: without them there were a gap.

    All of them were begun before that pass ended, so a second one finds each, unless it is in the file by then.
    """
    newest: dict[int, int] = {}
    for page in copied:
        newest[page.thread] = max(page.sequence, newest.get(page.thread, 0))
    known = {(page.thread, page.sequence) for page in copied}
    found = []
    for at in places:
        magic, state, thread, _, sequence, *_ = PAGE_HEADER.unpack(os.pread(fd, PAGE_HEADER.size, at))
        if magic != PAGE_MAGIC or state == _FREE or sequence >= newest.get(thread, 0):
            continue
        if (thread, sequence) in known:
            continue
        late = _page(fd, at)
        if late is not None and late.sequence < newest.get(late.thread, 0):
            found.append(late)
    return found


def _page(fd: int, at: int) -> RingPage | None:
    """A page in use, or None if it is free or was recycled while it was copied."""
    data = os.pread(fd, PAGE_BYTES, at)
    if len(data) < PAGE_BYTES:
        return None
    magic, state, thread, tid, sequence, base, context, _, name, _, _ = PAGE_HEADER.unpack_from(data)
    if magic != PAGE_MAGIC or state == _FREE:
        return None
    again = PAGE_HEADER.unpack(os.pread(fd, PAGE_HEADER.size, at))
    if again[1] == _FREE or (again[2], again[4], again[5]) != (thread, sequence, base):
        return None
    return RingPage(thread, tid, sequence, base, context, name, data[PAGE_HEADER.size :])


def _figures(fd: int) -> tuple[int, ...]:
    """The counters of the header, its clock pair whole."""
    offset = RING_HEADER.size
    for _ in range(100):
        figures = RING_FIGURES.unpack(os.pread(fd, RING_FIGURES.size, offset))
        if figures[5] % 2 == 0:
            break
    return figures
