"""A recording's file that is still being written: its new blocks, each once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pyscope import blocks
from pyscope.blocks import Block, ProcessInfo, Summary
from pyscope.errors import NotARecording, VersionMismatch
from pyscope.format import (
    BLOCK_HEADER,
    BLOCK_MAGIC,
    CHUNK_HEADER,
    FORMAT_VERSION,
    PROCESS_INFO,
    SUMMARY_BYTES,
    BlockType,
    padded,
)
from pyscope.live.chunks import Chunk, PageKey
from pyscope.ring import locked

__all__ = ["FileTail", "Piece"]

_STEP = 8 << 20  # bytes read at a time
_HEAD_BYTES = 2 << 20  # of a long recording are read in any case: how the program started
_PATIENCE = 40  # looks at a block that is not whole and does not grow, before it counts as damaged


@dataclass(frozen=True, slots=True)
class Piece:
    """A block: of a PROCESS its info and summary, of META and TABLE the payload, of EVENTS the chunks."""

    type: int
    at: int
    payload: bytes = b""
    info: ProcessInfo | None = None
    summary: Summary | None = None
    chunks: tuple[Chunk, ...] = ()


class FileTail:
    """Follows the file at `path`. Raises OSError, NotARecording, or VersionMismatch."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._at = 0
        self._patience = 0
        self._size = 0  # of the file at the last look at a block that was not whole
        self.passed_over = False  # segments have been left out; whoever takes the next one resets it
        try:
            self._check()
        except BaseException:
            os.close(self._fd)
            raise

    def _check(self) -> None:
        head = os.pread(self._fd, BLOCK_HEADER.size, 0)
        if len(head) < BLOCK_HEADER.size or BLOCK_HEADER.unpack(head)[0] != BLOCK_MAGIC:
            raise NotARecording(
                f"{self.path} is not a recording of PyScope. Give the file that `pyscope run -o` wrote, "
                "or the id of a process that records."
            )
        version = BLOCK_HEADER.unpack(head)[2]
        if version != FORMAT_VERSION:
            raise VersionMismatch(
                f"the recording {self.path} has format version {version}; this PyScope reads version "
                f"{FORMAT_VERSION}. Look at it with the version of PyScope that wrote it, or record anew."
            )

    @property
    def replaced(self) -> bool:
        """Whether another file stands at the path now, or none."""
        try:
            there = os.stat(self.path)
        except OSError:
            return True
        own = os.fstat(self._fd)
        return (there.st_ino, there.st_dev) != (own.st_ino, own.st_dev) or there.st_size < self._at

    def new(self, skip: int = 0) -> Iterator[Piece]:
        """The blocks that came since the last call.

        skip: of segments, only those among the first 2 MB and the last `skip` bytes; 0 takes all. A file of hours need
        not be read to see what happens now.
        """
        keep_from = os.fstat(self._fd).st_size - skip if skip else 0
        while True:
            passing = _HEAD_BYTES < self._at < keep_from
            if passing and self._pass_over():
                continue
            data = os.pread(self._fd, BLOCK_HEADER.size if passing else _STEP, self._at)
            if len(data) >= BLOCK_HEADER.size:
                needed = BLOCK_HEADER.size + BLOCK_HEADER.unpack_from(data)[3]
                if len(data) < needed <= 1 << 30:
                    data = os.pread(self._fd, needed, self._at)
            if not data:
                return
            before = self._at
            yield from self._pieces(data)
            if self._at == before:
                return

    def _pass_over(self) -> bool:
        """Whether the next block is a segment; then it is left out."""
        head = os.pread(self._fd, BLOCK_HEADER.size, self._at)
        if len(head) < BLOCK_HEADER.size:
            return False
        magic, kind, _, length, *_ = BLOCK_HEADER.unpack(head)
        if magic != BLOCK_MAGIC or kind != BlockType.EVENTS:
            return False
        self._at += padded(BLOCK_HEADER.size + length)
        self.passed_over = True
        return True

    def _pieces(self, data: bytes) -> Iterator[Piece]:
        base = self._at
        for found in blocks.scan(data):
            if not isinstance(found, Block):
                size = os.fstat(self._fd).st_size
                if size > self._size:
                    self._size, self._patience = size, 0
                if base + found.at + found.size >= size and self._patience < _PATIENCE:
                    self._patience += 1  # it is being written just now
                    return
                if found.reason == "truncated" and found.at:
                    return  # the rest of it comes with the next read
                self._at = base + found.at + found.size
                continue
            self._patience = 0
            self._at = base + padded(found.start + found.size)
            yield _piece(data, found, base)

    @property
    def held(self) -> bool:
        """Whether a living recorder holds the file's lock."""
        return locked(self._fd)

    def summary(self, at: int) -> Summary | None:
        """What the PROCESS block at `at` says by now; it is rewritten when the process stops."""
        data = os.pread(self._fd, SUMMARY_BYTES, at + BLOCK_HEADER.size + PROCESS_INFO.size)
        return Summary.unpack(data) if len(data) == SUMMARY_BYTES else None

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def _piece(data: bytes, block: Block, base: int) -> Piece:
    payload = data[block.start : block.start + block.size]
    at = base + block.at
    if block.type == BlockType.PROCESS:
        split = PROCESS_INFO.size
        info = ProcessInfo.unpack(payload[:split])
        return Piece(
            block.type, at, info=info, summary=Summary.unpack(payload[split : split + SUMMARY_BYTES])
        )
    if block.type == BlockType.EVENTS:
        return Piece(block.type, at, chunks=tuple(_chunks(payload)))
    return Piece(block.type, at, payload)


def _chunks(payload: bytes) -> Iterator[Chunk]:
    at, size = 0, len(payload)
    while size - at >= CHUNK_HEADER.size:
        encoded, events, thread, tid, sequence, base, context, shift, _, name = CHUNK_HEADER.unpack_from(
            payload, at
        )
        at += CHUNK_HEADER.size
        if encoded > size - at or shift > 63:
            return
        text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
        data = payload[at : at + encoded]
        yield Chunk(PageKey(thread, sequence), tid, text, base, context, shift, data, events, complete=True)
        at += padded(encoded)
