"""What probes told since the last look: the new events of pages that are read again as they grow.

A page is decoded whole each time, which is cheap and needs no state inside the codec; of each type of event so many are
left out as were seen in that page before.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyscope.codec import Codec
from pyscope.events import EventType
from pyscope.live.chunks import Chunk, PageKey
from pyscope.live.follow import FollowedProcess
from pyscope.live.names import GrowingNames
from pyscope.naming import ProcessInput
from pyscope.probe_events import ProbeEvents
from pyscope.process_record import CHUNK_DTYPE
from pyscope.rows import Contexts, Thread

__all__ = ["Slice", "Slicer"]

_NONE = np.zeros(0, np.int32)
_COLUMNS = ("time_ns", "process", "thread", "context", "scope")


class Slice:
    """New events, read as those of a `pyscope.trace.Trace`: `probe_events`, `threads`, `contexts`, `strings`, `stack`.

    Each page counts as a thread of its own, so the same thread may be listed twice. The call around an event is not
    known (-1). `events`, `calls`: how many events of any kind, and begun calls among them, came. `pids`: by process.
    """

    def __init__(
        self,
        threads: list[Thread],
        contexts: Contexts,
        names: GrowingNames,
        found: dict[tuple[int, int], Any],
        skipped: dict[tuple[int, int], list[int]],
        pids: list[int],
    ) -> None:
        self.threads = threads
        self.contexts = contexts
        self.pids = pids
        self.events = 0
        self.calls = 0
        self._names = names
        self._found = found
        self._skipped = skipped
        self._tables: dict[int, ProbeEvents] = {}

    def probe_events(self, event: EventType) -> ProbeEvents:
        """As of a Trace."""
        table = self._tables.get(event.kind)
        if table is None:
            key = event.kind, len(event.numbers)
            found = self._found.get(key)
            if found is not None and key in self._skipped:
                found = _without(found, self._skipped[key])
            if found is None:
                table = _empty(event)
            else:
                found["call"] = np.full(len(found["time_ns"]), -1, np.int32)
                table = ProbeEvents(event, found, self._names)
            self._tables[event.kind] = table
        return table

    @property
    def strings(self) -> list[str]:
        """As of a Trace."""
        return self._names.strings

    def stack(self, number: int) -> Any:
        """As of a Trace."""
        return self._names.stack(number)


class Slicer:
    """Makes slices; remembers of each page that may still grow what was seen of it."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._names = GrowingNames()
        self._known = 0
        self._seen: dict[tuple[int, PageKey], tuple[dict[tuple[int, int], int], int, int]] = {}

    def slice(self, processes: list[FollowedProcess], changed: dict[int, list[Chunk]]) -> Slice:
        """The news in `changed`, chunks by the number of their process."""
        for process in processes[self._known :]:
            self._names.add(process.record)
        self._known = len(processes)
        self._names.update()
        threads: list[Thread] = []
        pages: list[tuple[int, Chunk]] = []
        buffers: list[bytes] = []
        inputs = []
        numbers = []
        for process in processes:
            if not changed.get(process.number):
                continue  # a service may have had thousands of children
            numbers.append(process.number)
            rows = []
            for chunk in sorted(changed.get(process.number, ()), key=lambda chunk: chunk.key):
                rows.append(
                    (0, chunk.key.sequence, chunk.base_ticks, chunk.context, len(buffers), len(chunk.data),
                     chunk.events, len(threads), chunk.time_shift, 0)
                )  # fmt: skip
                buffers.append(chunk.data)
                threads.append(Thread(chunk.name, process.number, chunk.os_tid))
                pages.append((process.number, chunk))
            inputs.append(_input(process, np.array(rows, CHUNK_DTYPE)))
        paired = self._codec.pair_calls(buffers, inputs, 1)
        pids = [process.record.info.pid for process in processes]
        contexts = Contexts(paired["contexts"], paired["context_names"])
        skipped: dict[tuple[int, int], list[int]] = {}
        of_inputs = np.array(numbers, np.int32)
        for table in paired["probes"].values():
            table["process"] = of_inputs[table["process"]]
        found = Slice(threads, contexts, self._names, paired["probes"], skipped, pids)
        calls = np.bincount(paired["columns"]["thread"], minlength=len(pages)).tolist()
        told = {
            key: np.bincount(table["thread"], minlength=len(pages)).tolist()
            for key, table in paired["probes"].items()
        }
        for at, (number, chunk) in enumerate(pages):
            before, events, called = self._seen.pop((number, chunk.key), ({}, 0, 0))
            found.events += max(0, chunk.events - events)
            found.calls += max(0, calls[at] - called)
            for key, count in before.items():
                if count:
                    skipped.setdefault(key, [0] * len(pages))[at] = count
            if not chunk.complete:
                counts = {key: column[at] for key, column in told.items() if column[at]}
                self._seen[number, chunk.key] = counts, chunk.events, calls[at]
        return found

    def forget(self, number: int) -> None:
        """A process has ended: its pages do not grow."""
        for key in [key for key in self._seen if key[0] == number]:
            del self._seen[key]


_no_names = GrowingNames()


@functools.cache
def _empty(event: EventType) -> ProbeEvents:
    return ProbeEvents(event, None, _no_names)


def _input(process: FollowedProcess, chunks: NDArray[np.void]) -> ProcessInput:
    info = process.record.info
    return ProcessInput(
        start_ticks=info.start.ticks,
        start_unix_ns=min(max(info.start.unix_ns, -(1 << 62)), 1 << 62),
        ns_per_tick=process.ns_per_tick,
        chunks=chunks,
        functions=_NONE,
        unnamed=0,
        exceptions=_NONE,
        generator_exit=-1,
        flight=True,  # pages before these are not missing
    )


def _without(table: Any, skipped: list[int]) -> dict[str, Any] | None:
    """The rows of a table but for the first so many of each page, which were seen before; None if that is all."""
    pages = table["thread"]
    if sum(skipped) == len(pages):
        return None
    keep = np.ones(len(pages), bool)
    for page, count in enumerate(skipped):
        if count:
            keep[np.flatnonzero(pages == page)[:count]] = False
    rest = dict(table)
    for name in (*_COLUMNS, "call", "text_bytes"):
        rest[name] = table[name][keep]
    rest["numbers"] = table["numbers"][:, keep]
    ends = np.cumsum(table["text_bytes"])
    texts = table["texts"]
    if len(texts):
        sizes = table["text_bytes"]
        rest["texts"] = b"".join(
            texts[int(ends[row] - sizes[row]) : int(ends[row])] for row in np.flatnonzero(keep).tolist()
        )
    return rest
