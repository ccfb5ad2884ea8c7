"""Shared by the tests of the reading side: words of threads, by hand or at random; a process to decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from pyscope.fallback import codec as twin
from pyscope.fallback.writer import Page
from pyscope.format import EXCEPTION_BITS, OPERANDS, ContextKind, Kind
from pyscope.naming import ProcessInput
from pyscope.process_record import CHUNK_DTYPE

# A busy machine is no reason to fail.
settings.register_profile("unhurried", deadline=None, max_examples=60)
settings.load_profile("unhurried")

BASE = 1_000_000
EPOCH = 1_700_000_000_000_000_000
GENERATOR_EXIT = 1
VALUE_ERROR = 2


def operand(instance: int, exception: int = 0) -> int:
    """An INSTANCE operand word."""
    return instance << EXCEPTION_BITS | exception


@dataclass
class Stream:
    """A thread's pages in the making: one event a tick unless `at` says when."""

    thread: int = 0
    now: int = BASE
    pages: list[Page] = field(default_factory=list)

    def page(self, context: int = 0) -> Stream:
        """Begins the next page."""
        self.pages.append(Page(self.now, context))
        return self

    def add(self, kind: Kind, code: int = 0, *operands: int, at: int | None = None) -> Stream:
        """Appends an event, 10 ticks after the one before or at BASE + `at`."""
        self.now = self.now + 10 if at is None else BASE + at
        if not self.pages:
            self.pages.append(Page(min(self.now, BASE)))
        self.pages[-1].event(self.now, kind, code, *operands)
        return self

    def describe(self, serial: int, kind: ContextKind, name: str, parent: int = 0) -> Stream:
        """Appends the payload that names a context."""
        self.now += 10
        if not self.pages:
            self.page()
        self.pages[-1].describe_context(self.now, serial, parent, kind, name)
        return self


def process(
    streams: Sequence[Stream], *, shift: int = 0, functions: int = 8, drop: Sequence[tuple[int, int]] = (),
    flight: bool = False, ns_per_tick: float = 1.0,
) -> tuple[list[bytes], ProcessInput]:  # fmt: skip
    """A buffer and a process of these threads; `drop` leaves out pages, as (thread, sequence)."""
    buffer = bytearray()
    rows = []
    for stream in streams:
        for sequence, page in enumerate(stream.pages):
            words = np.array(page.words, np.uint64)
            data, events = twin.encode_words(words, page.base_ticks, shift)
            if (stream.thread, sequence) not in drop:
                rows.append((len(buffer), sequence, page.base_ticks, page.context, 0, len(data), events,
                             stream.thread, shift, 0))  # fmt: skip
            buffer += data
    return [bytes(buffer)], describe_process(
        rows, functions=functions, flight=flight, ns_per_tick=ns_per_tick
    )


def describe_process(
    rows: Sequence[tuple[int, ...]], *, functions: int = 8, flight: bool = False, ns_per_tick: float = 1.0
) -> ProcessInput:
    """A process of these chunks whose code ids 0.. are functions 0.. and whose exception ids likewise."""
    return ProcessInput(
        start_ticks=BASE,
        start_unix_ns=EPOCH,
        ns_per_tick=ns_per_tick,
        chunks=np.array(list(rows), CHUNK_DTYPE),
        functions=np.arange(functions, dtype=np.int32),
        unnamed=functions,
        exceptions=np.array([-1, 0, 1, 2], np.int32),
        generator_exit=0,
        flight=flight,
    )


def pair(codec: Any, streams: Sequence[Stream], **options: Any) -> dict[str, Any]:
    """The result of pair_calls for one process of these threads."""
    buffers, given = process(streams, **options)
    result: dict[str, Any] = codec.pair_calls(buffers, [given], len(given.functions) + 1)
    return result


def rows(result: dict[str, Any]) -> list[dict[str, int]]:
    """The calls as dicts, times relative to EPOCH."""
    columns = {name: column.tolist() for name, column in result["columns"].items()}
    found = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for row in found:
        row["start_ns"] -= EPOCH
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two results are equal to the last array, types of the arrays included."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, list):
        return len(a) == len(b) and sorted(a) == sorted(b)
    return bool(a == b)


# --- at random -----------------------------------------------------------------------------------

_KINDS = [Kind(k) for k in range(1, 16) if k != Kind.REBASE]


@st.composite
def word_lists(draw: st.DrawFn, most: int = 60) -> list[int]:
    """A page's words, half sensible and half nonsense."""
    words: list[int] = []
    for _ in range(draw(st.integers(0, most))):
        kind = draw(st.integers(0, 18) | st.sampled_from(_KINDS))
        code = draw(st.integers(0, 5) | st.integers(0, (1 << 23) - 1))
        words.append(kind | code << 5 | draw(st.integers(0, 500) | st.integers(0, (1 << 36) - 1)) << 28)
        words += draw(st.lists(st.integers(0, 40) | st.integers(0, (1 << 64) - 1), max_size=3))
    return words


@st.composite
def streams(draw: st.DrawFn, threads: int = 3, most: int = 60, codes: int = 5) -> list[Stream]:
    """Threads whose events are of every kind, in an order that need not make sense."""
    found = []
    for thread in range(draw(st.integers(1, threads))):
        stream = Stream(thread, now=BASE + draw(st.integers(0, 300)))
        stream.page(draw(st.integers(0, 3)))
        for _ in range(draw(st.integers(0, most))):
            if draw(st.integers(0, 15)) == 0:
                stream.page(draw(st.integers(0, 3)))
            stream.now += draw(st.integers(0, 40))
            kind = draw(st.sampled_from(_KINDS) | st.sampled_from((Kind.CALL, Kind.RETURN)))
            code = draw(st.integers(0, codes - 1))
            operands: list[int] = []
            if kind == Kind.SWITCH:
                operands = [draw(st.integers(0, 3))]
                code = 0
            elif kind == Kind.LOSS:
                operands = [draw(st.integers(0, 9)), stream.now - draw(st.integers(0, 50))]
                code = 1
            elif OPERANDS[kind]:
                operands = [operand(draw(st.integers(0, 4)), draw(st.integers(0, 4)))]
            stream.pages[-1].event(stream.now, kind, code, *operands)
            if draw(st.integers(0, 20)) == 0:
                stream.describe(draw(st.integers(0, 3)), draw(st.sampled_from(ContextKind)), "name")
        found.append(stream)
    return found


@st.composite
def programs(draw: st.DrawFn, most: int = 80, codes: int = 5) -> list[Stream]:
    """A thread of properly nested calls, some of which raise or are left open."""
    stream = Stream().page()
    stack: list[int] = []
    for _ in range(draw(st.integers(0, most))):
        stream.now += draw(st.integers(0, 40))
        if stack and draw(st.booleans()):
            code = stack.pop()
            if draw(st.integers(0, 3)) == 0:
                stream.add(Kind.RAISE, code, VALUE_ERROR)
            else:
                stream.add(Kind.RETURN, code)
        else:
            stack.append(draw(st.integers(0, codes - 1)))
            stream.add(Kind.CALL, stack[-1])
        if draw(st.integers(0, 15)) == 0:
            stream.page()
    return [stream]
