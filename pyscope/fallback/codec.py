"""The pure-Python twin of `pyscope._codec`: the same functions with the same results, simple and slow.

It reads recordings where the extension cannot be built, and is the oracle of the tests. The definitions
it follows are those of native/codec.hpp, native/pairing.hpp and native/event_columns.hpp.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyscope.fallback import chunks
from pyscope.fallback.pairing import pair_calls
from pyscope.fallback.source import Source
from pyscope.format import CONTEXT_PAYLOAD, Kind, PayloadType

__all__ = ["crc32", "decode_events", "encode_words", "pair_calls"]


def crc32(data: Any, before: int = 0) -> int:
    """CRC-32 with zlib's polynomial; `before` is the checksum of the bytes that precede."""
    return zlib.crc32(data, before)


def encode_words(words: Any, base_ticks: int, time_shift: int) -> tuple[bytes, int]:
    """A page's words (uint64 in anything bytes-like) as the bytes of a chunk, and its events' number."""
    view = memoryview(words).cast("B")
    if len(view) % 8:
        raise ValueError("words: wrong item size")
    return chunks.encode_words(view.cast("Q").tolist(), base_ticks, time_shift & 63)


def decode_events(
    buffers: Sequence[Any], processes: Sequence[Any], functions: int, workers: int = 0
) -> dict[str, np.ndarray[Any, Any]]:
    """The events of all processes, thread by thread, in order of time within each; see pyscope/_codec.pyi."""
    rows: list[tuple[int, int, int, int, int]] = []
    base = 0
    for process in processes:
        source = Source(process, buffers)
        serials: set[int] = set()
        own: list[tuple[int, int, int, int, int]] = []
        held, last_thread = 0, -1
        for chunk in source.chunks():
            if not source.sound(chunk):
                continue
            events, _ = source.decode(chunk)
            start = source.ns(chunk["base_ticks"])
            held = max(held, start) if chunk["thread"] == last_thread else start
            last_thread = chunk["thread"]
            context = chunk["context"]
            if events:
                serials.add(context)
            for event in events:
                held = max(held, event.ns)
                if event.kind == Kind.SWITCH:
                    context = event.serial
                    serials.add(context)
                if (
                    event.kind == Kind.PAYLOAD
                    and event.code == PayloadType.CONTEXT
                    and len(event.payload) >= 17
                ):
                    serials.add(CONTEXT_PAYLOAD.unpack_from(event.payload)[0])
                code = source.function(event.code) if event.kind <= Kind.C_RAISE else event.code
                own.append((held, chunk["thread"], context, event.kind, code))
        serials.discard(0)
        numbers = {0: 0} | {serial: base + 1 + i for i, serial in enumerate(sorted(serials))}
        base += len(serials)
        rows += [(time, thread, numbers[context], kind, code) for time, thread, context, kind, code in own]
    dtypes = (("time_ns", np.int64), ("thread", np.int32), ("context", np.int32), ("kind", np.uint8),
              ("code", np.int32))  # fmt: skip
    return {name: np.array([row[i] for row in rows], dtype=dtype) for i, (name, dtype) in enumerate(dtypes)}
