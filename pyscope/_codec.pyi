"""The native codec (native/decode.cpp). All functions but encode_words release the GIL while they work."""

from collections.abc import Sequence
from typing import Any, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

class ProcessInput(Protocol):
    """One process to decode: see pyscope.naming.ProcessInput."""

    start_ticks: int
    start_unix_ns: int
    ns_per_tick: float
    chunks: NDArray[np.void]  # CHUNK_DTYPE, ordered by thread and sequence
    functions: NDArray[np.int32]  # by code id: index below the argument `functions`
    unnamed: int  # ... for other ids
    exceptions: NDArray[np.int32]  # by exception id: index in the trace, or -1
    generator_exit: int  # the index of GeneratorExit, or -1
    flight: bool

class ProbeColumns(TypedDict):
    """The probe events of one kind that have so many numbers, in order of time.

    numbers: one row of the table a number, one column an event. texts: of all events, one behind the other;
    text_bytes: the length of each event's.
    """

    time_ns: NDArray[np.int64]
    process: NDArray[np.int32]
    thread: NDArray[np.int32]
    context: NDArray[np.int32]
    call: NDArray[np.int32]
    scope: NDArray[np.int64]
    numbers: NDArray[np.int64]
    texts: bytes
    text_bytes: NDArray[np.int64]

class PairedCalls(TypedDict):
    """The result of `pair_calls`.

    columns: one array a column of `Trace.calls`. totals: calls, total_ns, self_ns by function. contexts:
    serial, parent (serial), process, kind, name_end (offset in context_names), in the numbering of the column
    `context` less 1. losses: (reason, process, thread, count, start_ns, end_ns). begun_before: rows of
    generators first seen when resumed. orphan_exits, last_ns: by process. probes: by kind and number of numbers.
    """

    columns: dict[str, NDArray[Any]]
    totals: dict[str, NDArray[np.int64]]
    contexts: dict[str, NDArray[Any]]
    context_names: bytes
    losses: list[tuple[int, int, int, int, int, int]]
    probes: dict[tuple[int, int], ProbeColumns]
    begun_before: NDArray[np.int64]
    orphan_exits: NDArray[np.int64]
    last_ns: NDArray[np.int64]

def encode_words(words: Buffer, base_ticks: int, time_shift: int) -> tuple[bytes, int]:
    """A page's words (uint64) up to the first zero word as the bytes of a chunk, and its events' number."""

def crc32(data: Buffer, before: int = 0) -> int:
    """CRC-32 with zlib's polynomial."""

def pair_calls(buffers: Sequence[Buffer], processes: Sequence[ProcessInput], functions: int) -> PairedCalls:
    """The calls of all processes, in order of start within each, process after process."""

def decode_events(
    buffers: Sequence[Buffer], processes: Sequence[ProcessInput], functions: int, workers: int = 0
) -> dict[str, NDArray[Any]]:
    """Columns time_ns, thread, context, kind, code. `workers` threads; 0: all cores."""
