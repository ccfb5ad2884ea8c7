"""One process's chunks in a recording, decoded: what the calls and the events of the codec's twin are made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyscope.fallback import chunks
from pyscope.fallback.chunks import Event
from pyscope.format import WORD_MASK, signed64

__all__ = ["Source"]

_MOST_NS = 1e17  # a chunk whose clock runs wild is held within some years


class Source:
    """One process's input, as `pyscope._codec` takes it, with the arithmetic of its clock and lookups."""

    def __init__(self, given: Any, buffers: Sequence[Any]) -> None:
        self.given = given
        self.views = [memoryview(buffer).cast("B") for buffer in buffers]
        self.functions = given.functions.tolist()
        self.exceptions = given.exceptions.tolist()

    def ns(self, ticks: int) -> int:
        elapsed = float(signed64(ticks - self.given.start_ticks)) * self.given.ns_per_tick
        return int(self.given.start_unix_ns) + int(min(max(elapsed, -_MOST_NS), _MOST_NS))

    def function(self, code: int) -> int:
        return self.functions[code] if code < len(self.functions) else int(self.given.unnamed)

    def exception(self, number: int) -> int:
        return self.exceptions[number] if number < len(self.exceptions) else -1

    def sound(self, chunk: Any) -> bool:
        size = len(self.views[chunk["buffer"]]) if chunk["buffer"] < len(self.views) else -1
        return bool(chunk["offset"] + chunk["encoded"] <= size and chunk["events"] <= chunk["encoded"] // 2)

    def decode(self, chunk: Any) -> tuple[list[Event], int]:
        """The chunk's events with their times in ns, held where they step back, and the bytes left over."""
        view = self.views[chunk["buffer"]][chunk["offset"] : chunk["offset"] + chunk["encoded"]]
        shift = chunk["time_shift"] & 63
        events, rest = chunks.decode_chunk(view, chunk["events"], chunk["base_ticks"], shift)
        held = self.ns(chunk["base_ticks"])
        for event in events:
            held = max(held, self.ns(event.time << shift & WORD_MASK))
            event.ns = held
            event.first = self.ns(event.first << shift & WORD_MASK)
        return events, rest

    def chunks(self) -> list[dict[str, int]]:
        rows: np.ndarray[Any, Any] = self.given.chunks
        names = rows.dtype.names or ()
        return [dict(zip(names, row, strict=True)) for row in rows.tolist()]
