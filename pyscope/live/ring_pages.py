"""The ring of a process, mapped to be read only: which pages are new, or grew, since the last look.

The process does nothing for it. A look costs one pass over the pages' headers, and a copy of what changed.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pyscope.blocks import ClockPair, ProcessInfo
from pyscope.codec import Codec
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
    THREAD_NAME_BYTES,
)
from pyscope.live.chunks import Chunk, PageKey
from pyscope.ring import locked

__all__ = ["RingPages", "RingFigures"]

_FREE, _ACTIVE = 0, 1
_ALL_PAGES_EVERY = 16  # looks
_NEXT_PAGES = 64
_FIRST_RECORD = 64
# A page's header as words of 64 bits: magic and state, thread and OS id, sequence, base, context, order.
_HEAD_WORDS = 6
_STATE, _THREAD, _SEQUENCE, _BASE, _CONTEXT, _ORDER = range(6)
_NAME_AT = 8 * _HEAD_WORDS
_LOW = 0xFFFFFFFF


class RingFigures:
    """The counters in a ring's header: the latest clock pair, the table's size, and what was lost."""

    def __init__(self, values: tuple[int, ...]) -> None:
        self.table_used = values[0]
        self.latest = ClockPair(values[2], values[3], values[4])
        self.dropped, self.dropped_first_ticks, self.dropped_last_ticks = values[6:9]
        self.overwritten_pages, self.overwritten_until_ticks = values[9:11]
        self.meta_bytes = values[12]


class RingPages:
    """A ring file, mapped. `info` says whose it is.

    Raises OSError, CorruptRecording if `path` is no ring file, or VersionMismatch.
    """

    def __init__(self, path: str, codec: Codec) -> None:
        self.path = path
        self._codec = codec
        # A pipe that somebody laid into the folder of rings would be waited for.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
        try:
            self._map(path)
        except BaseException:
            os.close(self._fd)
            raise

    def _map(self, path: str) -> None:
        size = os.fstat(self._fd).st_size
        head = os.pread(self._fd, RING_HEADER_BYTES, 0)
        problem = f"the ring file {path} is damaged"
        if len(head) < RING_HEADER_BYTES:
            raise CorruptRecording(problem)
        magic, version, page_bytes, count, _, table_at, table_bytes, pages_at, _, info = (
            RING_HEADER.unpack_from(head)
        )
        if magic != RING_MAGIC:
            raise CorruptRecording(problem)
        if version != FORMAT_VERSION:
            raise VersionMismatch(
                f"the ring file {path} has format version {version}; this PyScope reads {FORMAT_VERSION}. "
                "Look at it with the version of PyScope that records it."
            )
        if page_bytes != PAGE_BYTES or table_at + table_bytes > size or pages_at + count * PAGE_BYTES > size:
            raise CorruptRecording(problem)
        self.info = ProcessInfo.unpack(info)
        self._table_at, self._table_bytes, self._table_read = table_at, table_bytes, 0
        self._table_first = b""
        self._mapping = mmap.mmap(self._fd, pages_at + count * PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)
        self._pages_at = pages_at
        self._heads: NDArray[np.uint64] = np.ndarray(
            (count, _HEAD_WORDS), np.uint64, self._mapping, pages_at, (PAGE_BYTES, 8)
        )
        words = (PAGE_BYTES - PAGE_HEADER.size) // 8
        self._words: NDArray[np.uint64] = np.ndarray(
            (count, words), np.uint64, self._mapping, pages_at + PAGE_HEADER.size, (PAGE_BYTES, 8)
        )
        self._seen = np.zeros((count, _HEAD_WORDS), np.uint64)
        self._all = np.arange(count)
        self._likely = self._all
        self._used = np.zeros(count, bool)  # at any look
        self._looks = 0
        self._filled = np.zeros(count, np.int64)  # words that were not zero at the last look

    @property
    def alive(self) -> bool:
        """Whether a living recorder holds the ring."""
        return locked(self._fd)

    def figures(self) -> RingFigures:
        """The header's counters as they stand, the clock pair whole."""
        for _ in range(100):
            values = RING_FIGURES.unpack_from(self._mapping, RING_HEADER.size)
            if values[5] % 2 == 0:
                break
        return RingFigures(values)

    def meta(self, figures: RingFigures) -> bytes:
        """The META text."""
        end = self._table_at + self._table_bytes
        return self._mapping[end - min(figures.meta_bytes, self._table_bytes) : end]

    def new_names(self, figures: RingFigures) -> bytes:
        """The table's records since the last call."""
        used = min(figures.table_used, self._table_bytes)
        first = self._mapping[self._table_at : self._table_at + min(used, _FIRST_RECORD)]
        if used < self._table_read or not first.startswith(self._table_first[: len(first)]):
            self._table_read = 0  # it was full, all of it in the file, and began anew
        self._table_first = first
        found = self._mapping[self._table_at + self._table_read : self._table_at + used]
        self._table_read = max(used, self._table_read)
        return found

    def changed(self) -> Iterator[Chunk]:
        """The pages that are new or grew since the last call, whole, in no order.

        A page that was recycled while it was copied is left out: by then it is in the recording's file.
        """
        everywhere = self._looks % _ALL_PAGES_EVERY == 0
        self._looks += 1
        where = self._all if everywhere else self._likely
        heads, seen = self._heads[where], self._seen[where]
        state = heads[:, _STATE] >> np.uint64(32)
        if everywhere:
            self._likely = self._guess(heads, state)
        else:
            self._used[where] |= state != _FREE
        known = (heads[:, _SEQUENCE] == seen[:, _SEQUENCE]) & (heads[:, _STATE] == seen[:, _STATE])
        known &= (heads[:, _BASE] == seen[:, _BASE]) & (heads[:, _THREAD] == seen[:, _THREAD])
        # A page that was seen full cannot change.
        for at in np.flatnonzero((state != _FREE) & (~known | (state == _ACTIVE))).tolist():
            index = int(where[at])
            filled = int(np.count_nonzero(self._words[index]))
            if filled == 0 or (known[at] and filled == self._filled[index]):
                continue
            chunk = self._copied(index, heads[at].tolist())
            if chunk is not None:
                self._seen[index] = heads[at]
                self._filled[index] = filled
                yield chunk

    def _guess(self, heads: NDArray[np.uint64], state: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Where the next pages will be: those in use, those that were and are taken again first, and fresh ones.

        Each header lies in a memory page of its own: to look at all of them costs half a millisecond. A page that this
        misses is seen some looks later, or in the file.
        """
        self._used |= state != _FREE
        likely = state == _ACTIVE
        if self.info.flight:
            likely |= self._used & (state == _FREE)
            likely[np.argsort(heads[:, _ORDER], kind="stable")[:_NEXT_PAGES]] = True  # overwritten next
        else:
            likely |= self._used
        likely[np.flatnonzero(~self._used)[:_NEXT_PAGES]] = True  # they are taken in order
        return np.flatnonzero(likely)

    def _copied(self, index: int, head: list[int]) -> Chunk | None:
        at = self._pages_at + index * PAGE_BYTES
        page = self._mapping[at : at + PAGE_BYTES]
        now = self._heads[index].tolist()
        same = all(now[word] == head[word] for word in (_THREAD, _SEQUENCE, _BASE))
        if not same or now[_STATE] >> 32 == _FREE or head[_STATE] & _LOW != PAGE_MAGIC:
            return None
        shift = self.info.time_shift & 63
        data, events = self._codec.encode_words(page[PAGE_HEADER.size :], head[_BASE], shift)
        name = page[_NAME_AT : _NAME_AT + THREAD_NAME_BYTES].split(b"\0", 1)[0].decode("utf-8", "replace")
        return Chunk(
            PageKey(head[_THREAD] & _LOW, head[_SEQUENCE]), head[_THREAD] >> 32, name, head[_BASE],
            head[_CONTEXT], shift, data, events, head[_STATE] >> 32 != _ACTIVE,
        )  # fmt: skip

    def close(self) -> None:
        """Gives the mapping up; nothing else may be called after it."""
        del self._heads, self._words
        self._mapping.close()
        os.close(self._fd)
