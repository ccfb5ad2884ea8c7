"""Writes a recording in plain Python: the twin of the native recorder's file, without a ring.

Blocks go to the file as they are made, so what was handed over survives a kill. A living writer is known by a
lock on the file, which the kernel drops at its death.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from pyscope.errors import RecorderError
from pyscope.fallback.chunks import encode_words
from pyscope.format import (
    BLOCK_HEADER,
    BLOCK_MAGIC,
    CHUNK_HEADER,
    CLOCK_MONOTONIC,
    CLOCK_PAIR,
    CODE_MASK,
    CODE_RECORD,
    CONTEXT_PAYLOAD,
    EXCEPTION_MASK,
    EXCEPTION_RECORD,
    FORMAT_VERSION,
    HEADER_CRC_AT,
    KIND_BITS,
    LOCATION_RECORD,
    LOSS_ROW,
    MAX_PAYLOAD,
    PAGE_WORDS,
    PROBE_HEAD,
    PROCESS_BLOCK_BYTES,
    PROCESS_INFO,
    STACK_RECORD,
    STRING_RECORD,
    SUMMARY,
    SUMMARY_LOSSES,
    TEXT_HEAD,
    TIME_BITS,
    TIME_SHIFT,
    WORD_MASK,
    BlockType,
    ContextKind,
    Kind,
    PayloadType,
    ProcessState,
    RecordType,
    padded,
    signed64,
)

Pair = tuple[int, int, int]


def read_clock() -> Pair:
    """A clock pair whose ticks are those of time.monotonic_ns()."""
    now = time.monotonic_ns()
    return now, now, time.time_ns()


class RecordingWriter:
    """One process's recording at `path`, replaced if it exists; `close` ends it.

    Parameters: `meta`, the JSON of the META block; `clock`, gives (ticks, monotonic ns, Unix ns);
    `time_shift`: times are kept in units of 2^time_shift ticks. Raises RecorderError where the file cannot be
    written. Threads may share a writer.
    """

    def __init__(
        self, path: str | os.PathLike[str], meta: Mapping[str, Any] | None = None, *, pid: int | None = None,
        parent_pid: int | None = None, recording_id: bytes | None = None, process_id: bytes | None = None,
        time_shift: int = 0, flight: bool = False, clock: Callable[[], Pair] = read_clock,
    ) -> None:  # fmt: skip
        self.path = os.fspath(path)
        self.clock = clock
        self.time_shift = time_shift
        self.events = 0
        self.bytes = 0
        self.failed: OSError | None = None
        self._lock = threading.RLock()
        self._strings: dict[str, int] = {}
        self._codes = 0
        self._exceptions: dict[str, int] = {}
        self._locations: dict[tuple[str, str, int], int] = {}
        self._stacks: dict[tuple[int, int], int] = {}
        self._table = bytearray()
        self._sequences: dict[int, int] = {}
        self._losses: list[tuple[int, int, int, int]] = []
        try:
            self._fd = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600
            )
        except OSError as error:
            raise RecorderError(f"the recording {self.path} cannot be created: {error}") from error
        self._hold()
        start = clock()
        start2 = clock()
        info = PROCESS_INFO.pack(
            recording_id or os.urandom(16), process_id or os.urandom(16), pid or os.getpid(),
            os.getppid() if parent_pid is None else parent_pid, CLOCK_MONOTONIC, time_shift,
            CLOCK_PAIR.pack(*start), CLOCK_PAIR.pack(*start2), flight, 0, b"",
        )  # fmt: skip
        rest = PROCESS_BLOCK_BYTES - BLOCK_HEADER.size - len(info)
        self._put(_header(BlockType.PROCESS, len(info) + rest, zlib.crc32(info)) + info + bytes(rest))
        self._block(BlockType.META, json.dumps(dict(meta or {})).encode())
        if self.failed is not None:
            os.close(self._fd)
            raise RecorderError(f"the recording {self.path} cannot be written: {self.failed}")

    # names

    def string(self, text: str) -> int:
        """The id of a string in the recording's table."""
        with self._lock:
            number = self._strings.get(text)
            if number is None:
                number = self._strings[text] = len(self._strings) + 1
                data = text.encode("utf-8", "replace")
                size = padded(STRING_RECORD.size + len(data))
                record = STRING_RECORD.pack(size, RecordType.STRING, 0, number, len(data)) + data
                self._table += record.ljust(size, b"\0")
            return number

    def code(
        self, module: str, qualname: str, file: str = "", line: int = 0, arity: int = 0, flags: int = 0
    ) -> int:
        """A new code id; 0 ("unnamed") when there are no more. `flags` of pyscope.format.CodeFlag."""
        with self._lock:
            if self._codes == CODE_MASK:
                return 0
            self._codes += 1
            names = self.string(module), self.string(qualname), self.string(file)
            self._table += CODE_RECORD.pack(
                CODE_RECORD.size,
                RecordType.CODE,
                0,
                self._codes,
                *names,
                line & 0xFFFFFFFF,
                min(arity, 0xFFFF),
                flags,
            )
            return self._codes

    def exception(self, name: str) -> int:
        """The id of an exception type, given as "module.QualName"; 0 when there are no more."""
        with self._lock:
            number = self._exceptions.get(name)
            if number is None:
                if len(self._exceptions) == EXCEPTION_MASK:
                    return 0
                number = self._exceptions[name] = len(self._exceptions) + 1
                text = self.string(name)
                self._table += EXCEPTION_RECORD.pack(
                    EXCEPTION_RECORD.size, RecordType.EXCEPTION, 0, number, text
                )
            return number

    def location(self, file: str, function: str, line: int) -> int:
        """The id of a line of a function."""
        with self._lock:
            key = (file, function, line)
            number = self._locations.get(key)
            if number is None:
                number = self._locations[key] = len(self._locations) + 1
                names = self.string(file), self.string(function)
                self._table += LOCATION_RECORD.pack(
                    LOCATION_RECORD.size, RecordType.LOCATION, 0, number, *names, max(0, line)
                )
            return number

    def stack(self, caller: int, location: int) -> int:
        """The id of a calling context: `location`, called from the stack `caller` (0: none)."""
        with self._lock:
            number = self._stacks.get((caller, location))
            if number is None:
                number = self._stacks[caller, location] = len(self._stacks) + 1
                self._table += STACK_RECORD.pack(
                    STACK_RECORD.size, RecordType.STACK, 0, number, caller, location, 0
                )
            return number

    # events

    def chunk(
        self, thread: int, words: Sequence[int], *, base_ticks: int, context: int = 0, name: str = "",
        os_tid: int = 0, sequence: int | None = None,
    ) -> None:  # fmt: skip
        """One page of a thread's words, and the names interned since the last, to the file.

        At most PAGE_WORDS words; `context` is the serial at the page's start, `sequence` the page's number
        (the next by
        default). `Page` makes the words.
        """
        with self._lock:
            if sequence is None:
                sequence = self._sequences.get(thread, 0)
            self._sequences[thread] = sequence + 1
            data, events = encode_words(words, base_ticks, self.time_shift)
            if not events:
                return
            header = CHUNK_HEADER.pack(
                len(data), events, thread, os_tid, sequence, base_ticks, context, self.time_shift, 0,
                name.encode("utf-8", "replace")[:47],
            )  # fmt: skip
            self.flush()
            if self._block(BlockType.EVENTS, (header + data).ljust(padded(len(header) + len(data)), b"\0")):
                self.events += events

    def flush(self) -> None:
        """Names interned since the last block go to the file."""
        with self._lock:
            if self._table and self._block(BlockType.TABLE, bytes(self._table)):
                self._table.clear()

    def lost(self, reason: int, count: int, first_ticks: int, last_ticks: int) -> None:
        """Notes a loss for the summary: `reason` of LossReason, `count` events (0: unknown)."""
        with self._lock:
            if len(self._losses) < SUMMARY_LOSSES:
                self._losses.append((reason, count, first_ticks, last_ticks))

    def close(self, state: int = ProcessState.STOPPED) -> None:
        """Writes the summary and closes the file. A second close does nothing."""
        with self._lock:
            if self._fd < 0:
                return
            self.flush()
            error = self.failed.errno or 0 if self.failed else 0
            rows = b"".join(LOSS_ROW.pack(row[0], 0, *row[1:]) for row in self._losses)
            summary = SUMMARY.pack(
                0, ProcessState.WRITE_FAILED if self.failed else state, CLOCK_PAIR.pack(*self.clock()),
                self.bytes, self.events, 0, error, 0, len(self._losses), 0,
            ) + rows.ljust(SUMMARY_LOSSES * LOSS_ROW.size, b"\0")  # fmt: skip
            summary = struct.pack("<I", zlib.crc32(summary[4:])) + summary[4:]
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, summary, BLOCK_HEADER.size + PROCESS_INFO.size)
            os.close(self._fd)
            self._fd = -1

    def abandon(self) -> None:
        """In the child of a fork: lets go of the file without writing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    # bytes

    def _block(self, kind: BlockType, payload: bytes) -> bool:
        block = _header(kind, len(payload), zlib.crc32(payload)) + payload
        return self._put(block.ljust(padded(len(block)), b"\0"))

    def _put(self, data: bytes) -> bool:
        """Appends; False after a failure, with the file as it was before."""
        if self.failed is not None or self._fd < 0:
            return False
        written = 0
        try:
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self.bytes + written)
        except OSError as error:
            self.failed = error
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.bytes)
            return False
        self.bytes += len(data)
        return True

    def _hold(self) -> None:
        """Locks the file, so that a reader can tell a living writer from a dead one."""
        if sys.platform == "linux":
            import fcntl

            lock = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, lock)


def _header(kind: BlockType, length: int, crc: int) -> bytes:
    head = BLOCK_HEADER.pack(BLOCK_MAGIC, kind, FORMAT_VERSION, length, crc, 0, 0)[:HEADER_CRC_AT]
    return head + struct.pack("<II", zlib.crc32(head), 0)


class Page:
    """The words of one thread's page in the making. Times are absolute ticks.

    Attributes: `words`, `base_ticks` (of the first event), `context` (serial at its start).
    """

    def __init__(self, base_ticks: int, context: int = 0) -> None:
        self.words: list[int] = []
        self.base_ticks = self._base = base_ticks
        self.context = context

    def room(self, words: int = 3) -> bool:
        """Whether an event of so many words fits still."""
        return len(self.words) + words + 2 <= PAGE_WORDS

    def event(self, ticks: int, kind: int, code: int = 0, *operands: int) -> None:
        """Appends an event with its operand words (see native/event.hpp)."""
        if not 0 <= ticks - self._base < 1 << TIME_BITS:
            self.words += [Kind.REBASE, ticks]
            self._base = ticks
        self.words.append(kind | code << KIND_BITS | ticks - self._base << TIME_SHIFT)
        self.words += operands

    def probe(self, ticks: int, kind: int, scope: int, numbers: Sequence[int], texts: Sequence[str]) -> None:
        """Appends an event of a probe; see struct ProbeHead of native/event.hpp."""
        body = b"".join(struct.pack("<q", signed64(number)) for number in numbers)
        room = MAX_PAYLOAD - PROBE_HEAD.size - len(body) - TEXT_HEAD.size * len(texts)
        written = bytearray()
        for text in texts:
            data = text.encode("utf-8", "replace")[:room]
            room -= len(data)
            written += TEXT_HEAD.pack(len(data)) + data
        data = (
            PROBE_HEAD.pack(kind, len(numbers), len(written), len(texts), scope & WORD_MASK) + body + written
        )
        self._payload(ticks, PayloadType.PROBE, data)

    def describe_context(self, ticks: int, serial: int, parent: int, kind: ContextKind, name: str) -> None:
        """Appends the payload that names a context."""
        data = CONTEXT_PAYLOAD.pack(serial, parent, kind) + name.encode("utf-8", "replace")[:1024]
        self._payload(ticks, PayloadType.CONTEXT, data)

    def _payload(self, ticks: int, kind: PayloadType, data: bytes) -> None:
        words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
        self.event(ticks, Kind.PAYLOAD, kind, len(data), *words)
