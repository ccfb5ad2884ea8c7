"""The calls of a recording from their events, in Python: the definitions are those of native/pairing.hpp."""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyscope.fallback.chunks import Event
from pyscope.fallback.source import Source
from pyscope.format import (
    CONTEXT_PAYLOAD,
    PROBE_HEAD,
    WORD_MASK,
    ContextKind,
    Kind,
    LossReason,
    PayloadType,
    signed64,
)

__all__ = ["pair_calls"]

RETURNED, RAISED, OPEN, CUT, CLOSED = range(5)
MISSING_PAGES = 100
DAMAGED_CHUNK = 101


@dataclass(slots=True)
class _Call:
    """A row of the calls in the making; `generator` if it can be suspended."""

    row: int
    code: int
    start: int
    depth: int
    outermost: bool
    self_ns: int = 0
    instance: int | None = None
    stack: list[_Call] | None = None  # where a generator runs
    suspended_at: int = 0
    closing: tuple[int, int] | None = None  # thread and event that threw GeneratorExit in
    self_before_closing: int = 0


@dataclass(slots=True)
class _Context:
    serial: int
    parent: int = 0
    kind: int = 0
    name: bytes = b""
    stack: list[_Call] = field(default_factory=list)
    switched_to: bool = False
    called: bool = False
    origin: _Call | None = None


@dataclass(slots=True)
class _Thread:
    index: int
    context: _Context
    own: _Context
    last: int | None = None
    events: int = 0


@dataclass(slots=True)
class _Item:
    """An event in the merged order."""

    event: Event
    page_context: int | None  # set on the first of a page


class _Pairing:
    def __init__(self, source: Source, number: int, result: _Result) -> None:
        self.source = source
        self.number = number
        self.result = result
        self.contexts: dict[int, _Context] = {}
        self.generators: dict[int, _Call] = {}
        self.ended: set[int] = set()
        self.orphans = 0
        self.first_row = len(result.rows)

    def run(self) -> None:
        by_thread: dict[int, list[dict[str, int]]] = {}
        for chunk in self.source.chunks():
            by_thread.setdefault(chunk["thread"], []).append(chunk)
        threads: list[tuple[_Thread, Iterator[_Item]]] = []
        heap: list[tuple[int, int, _Item]] = []
        for index, own_chunks in by_thread.items():
            own = _Context(0)
            thread = _Thread(index, own, own)
            items = self._items(index, own_chunks)
            threads.append((thread, items))
            first = next(items, None)
            if first is not None:
                heapq.heappush(heap, (first.event.ns, len(threads) - 1, first))
        while heap:
            _, i, item = heapq.heappop(heap)
            thread, items = threads[i]
            limit = heap[0][0] if heap else None
            following: _Item | None = item
            while following is not None and (limit is None or following.event.ns <= limit):
                self._take(thread, following)
                following = next(items, None)
            if following is not None:
                heapq.heappush(heap, (following.event.ns, i, following))
        self._finish([thread for thread, _ in threads])

    def _items(self, thread: int, pages: list[dict[str, int]]) -> Iterator[_Item]:
        expected, begun, held = 0, False, 0
        for chunk in pages:
            base = self.source.ns(chunk["base_ticks"])
            if chunk["sequence"] > expected and (begun or not self.source.given.flight):
                start = held if begun else int(self.source.given.start_unix_ns)
                self._lose(MISSING_PAGES, thread, chunk["sequence"] - expected, start, base)
            held = max(held, base) if begun else base
            begun = True
            expected = chunk["sequence"] + 1 & WORD_MASK
            events: list[Event] = []
            rest = 0
            if self.source.sound(chunk):
                events, rest = self.source.decode(chunk)
            for event in events:
                held = event.ns = max(held, event.ns)
            if len(events) < chunk["events"] or rest:
                self._lose(DAMAGED_CHUNK, thread, chunk["events"] - len(events), held, held)
            for i, event in enumerate(events):
                yield _Item(event, None if i else chunk["context"])

    def _lose(self, reason: int, thread: int, count: int, start: int, end: int) -> None:
        self.result.losses.append((reason, self.number, thread, count, min(start, end), end))

    # calls

    def _open(self, thread: _Thread, code: int, now: int, instance: int | None = None) -> _Call:
        context = thread.context
        stack = context.stack
        parent: _Call | None = stack[-1] if stack else None
        if parent is None:
            origin = context.origin
            lives = origin is not None and (not context.called or origin.row not in self.ended)
            if context.kind == ContextKind.GREENLET and lives:
                parent = origin
            context.called = True
        outermost = not any(c.code == code and (c.instance is None) == (instance is None) for c in stack)
        depth = parent.depth + 1 if parent else 0
        call = _Call(len(self.result.rows), code, now, depth, outermost, instance=instance, suspended_at=now)
        function = self.source.function(code)
        self.result.rows.append(
            [function, now, 0, 0, parent.row if parent else -1, depth, thread.index, context.serial, OPEN, -1]
        )
        self.result.totals[function][0] += 1
        return call

    def _end(self, call: _Call, now: int, outcome: int, exception: int = -1) -> None:
        row = self.result.rows[call.row]
        row[2], row[3], row[8], row[9] = now - call.start, call.self_ns, outcome, exception
        total = self.result.totals[row[0]]
        total[2] += call.self_ns
        if call.outermost:
            total[1] += now - call.start
        self.ended.add(call.row)
        if call.instance is not None:
            del self.generators[call.instance]

    def _cut(self, stack: list[_Call], now: int) -> None:
        top = stack.pop()
        top.stack = None
        self._end(top, now, CUT)

    def _suspend(self, generator: _Call, now: int) -> None:
        stack = generator.stack
        assert stack is not None
        while stack[-1] is not generator:
            self._cut(stack, now)
        stack.pop()
        generator.stack = None
        generator.closing = None

    def _take(self, thread: _Thread, item: _Item) -> None:
        event = item.event
        now, kind, code = event.ns, event.kind, event.code
        if item.page_context is not None:
            self._go_on_in(thread, item.page_context)
        stack = thread.context.stack
        if thread.last is not None and stack:
            stack[-1].self_ns += now - thread.last
        thread.last = now
        thread.events += 1
        if kind in (Kind.CALL, Kind.C_CALL):
            stack.append(self._open(thread, code, now))
        elif kind in (Kind.RETURN, Kind.C_RETURN):
            self._exit(stack, code, now, RETURNED)
        elif kind in (Kind.RAISE, Kind.C_RAISE):
            exception = self.source.exception(event.exception) if kind == Kind.RAISE else -1
            self._exit(stack, code, now, RAISED, exception)
        elif kind in (Kind.GEN_START, Kind.GEN_RESUME, Kind.GEN_THROW):
            self._enter_generator(thread, event)
        elif kind in (Kind.GEN_YIELD, Kind.GEN_RETURN, Kind.GEN_RAISE):
            self._leave_generator(thread, event)
        elif kind == Kind.SWITCH:
            self._go_on_in(thread, event.serial)
        elif kind == Kind.LOSS and code == LossReason.QUIETED:
            self._quiet(stack, event.count & WORD_MASK >> 32, now)
        elif kind == Kind.LOSS:
            self._lose(code, thread.index, event.count, event.first, now)
        elif kind == Kind.PAYLOAD and code == PayloadType.PROBE:
            self._note_probe(thread, event)
        elif (
            kind == Kind.PAYLOAD
            and code == PayloadType.CONTEXT
            and len(event.payload) >= CONTEXT_PAYLOAD.size
        ):
            serial, parent, context_kind = CONTEXT_PAYLOAD.unpack_from(event.payload)
            if serial:
                described = self._context(serial)
                described.parent, described.kind = parent, context_kind
                described.name = event.payload[CONTEXT_PAYLOAD.size :]

    def _note_probe(self, thread: _Thread, event: Event) -> None:
        data = event.payload
        if len(data) < PROBE_HEAD.size:
            return
        kind, numbers, text_bytes, _, scope = PROBE_HEAD.unpack_from(data)
        end = PROBE_HEAD.size + numbers * 8
        if len(data) < end + text_bytes:
            return
        stack = thread.context.stack
        row = _Probe(
            event.ns, self.number, thread.index, thread.context.serial, stack[-1].row if stack else -1,
            signed64(scope), struct.unpack_from(f"<{numbers}q", data, PROBE_HEAD.size), data[end : end + text_bytes],
        )  # fmt: skip
        self.result.probes.setdefault((kind, numbers), []).append(row)

    def _exit(self, stack: list[_Call], code: int, now: int, outcome: int, exception: int = -1) -> None:
        if not any(call.code == code and call.instance is None for call in stack):
            self.orphans += 1
            return
        while stack[-1].code != code or stack[-1].instance is not None:
            self._cut(stack, now)
        self._end(stack.pop(), now, outcome, exception)

    def _quiet(self, stack: list[_Call], code: int, now: int) -> None:
        """Ends the calls of a function whose exits will not be told; a generator waits from here."""
        quieted = [call for call in stack if call.code == code]
        stack[:] = [call for call in stack if call.code != code]
        for call in quieted:
            if call.instance is None:
                self._end(call, now, CUT)
            else:
                call.stack, call.closing, call.suspended_at = None, None, now

    # generators

    def _enter_generator(self, thread: _Thread, event: Event) -> None:
        now, stack = event.ns, thread.context.stack
        generator = self.generators.get(event.instance)
        if generator is not None and (event.kind == Kind.GEN_START or generator.code != event.code):
            if generator.stack is not None:
                self._suspend(generator, now)
                self._end(generator, now, CUT)
            else:
                self._end(generator, generator.suspended_at, CLOSED)
            generator = None
        if generator is None:
            generator = self._open(thread, event.code, now, event.instance)
            self.generators[event.instance] = generator
            if event.kind != Kind.GEN_START:
                self.result.begun_before.append(generator.row)
        elif generator.stack is not None:
            self._suspend(generator, now)
        closing = (
            event.kind == Kind.GEN_THROW
            and self.source.given.generator_exit >= 0
            and self.source.exception(event.exception) == self.source.given.generator_exit
        )
        generator.closing = (thread.index, thread.events) if closing else None
        generator.self_before_closing = generator.self_ns
        generator.stack = stack
        stack.append(generator)

    def _leave_generator(self, thread: _Thread, event: Event) -> None:
        now = event.ns
        generator = self.generators.get(event.instance)
        if (
            generator is None
            or generator.code != event.code
            or (event.kind == Kind.GEN_YIELD and generator.stack is None)
        ):
            self.orphans += 1
            return
        closing = generator.closing
        if generator.stack is not None:
            self._suspend(generator, now)
        exception = self.source.exception(event.exception)
        if event.kind == Kind.GEN_YIELD:
            generator.suspended_at = now
        elif event.kind == Kind.GEN_RETURN:
            self._end(generator, now, RETURNED)
        elif closing is None or exception != self.source.given.generator_exit:
            self._end(generator, now, RAISED, exception)
        elif closing == (thread.index, thread.events - 1):
            generator.self_ns = generator.self_before_closing
            self._end(generator, generator.suspended_at, CLOSED)
        else:
            self._end(generator, now, CLOSED)

    # contexts

    def _context(self, serial: int) -> _Context:
        return self.contexts.setdefault(serial, _Context(serial))

    def _go_on_in(self, thread: _Thread, serial: int) -> None:
        after = self._context(serial) if serial else thread.own
        before = thread.context
        if after is before:
            return
        if serial and not after.switched_to and after.parent == before.serial and before.stack:
            after.origin = before.stack[-1]
        after.switched_to = True
        thread.context = after

    def _finish(self, threads: list[_Thread]) -> None:
        times = [thread.last for thread in threads if thread.last is not None]
        end = max(times) if times else int(self.source.given.start_unix_ns)
        for generator in list(self.generators.values()):
            self._end(generator, end, OPEN)
        for context in [*(thread.own for thread in threads), *self.contexts.values()]:
            for call in context.stack:
                if call.instance is None:
                    self._end(call, end, OPEN)
        self.result.orphan_exits.append(self.orphans)
        self.result.last_ns.append(end)
        numbers = {0: 0}
        for serial in sorted(self.contexts):
            self.result.contexts.append((self.number, self.contexts[serial]))
            numbers[serial] = len(self.result.contexts)
        for row in self.result.rows[self.first_row :]:
            row[7] = numbers[row[7]]
        for rows in self.result.probes.values():
            for probe in rows:
                if probe.process == self.number:
                    probe.context = numbers[probe.context]


@dataclass(slots=True)
class _Probe:
    """An event of a probe; `context` is a serial until the process is done."""

    time_ns: int
    process: int
    thread: int
    context: int
    call: int
    scope: int
    numbers: tuple[int, ...]
    texts: bytes


@dataclass
class _Result:
    totals: list[list[int]]
    rows: list[list[int]] = field(default_factory=list)
    losses: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    probes: dict[tuple[int, int], list[_Probe]] = field(default_factory=dict)
    contexts: list[tuple[int, _Context]] = field(default_factory=list)
    begun_before: list[int] = field(default_factory=list)
    orphan_exits: list[int] = field(default_factory=list)
    last_ns: list[int] = field(default_factory=list)


_CALL_COLUMNS: tuple[tuple[str, type[Any]], ...] = (
    ("function", np.int32), ("start_ns", np.int64), ("duration_ns", np.int64), ("self_ns", np.int64),
    ("parent", np.int32), ("depth", np.int32), ("thread", np.int32), ("context", np.int32),
    ("outcome", np.uint8), ("exception", np.int32),
)  # fmt: skip


_PROBE_COLUMNS: tuple[tuple[str, type[Any]], ...] = (
    ("time_ns", np.int64), ("process", np.int32), ("thread", np.int32), ("context", np.int32), ("call", np.int32),
    ("scope", np.int64),
)  # fmt: skip


def _probe_columns(rows: list[_Probe]) -> dict[str, Any]:
    rows = sorted(rows, key=lambda row: row.time_ns)
    columns: dict[str, Any] = {
        name: np.array([getattr(row, name) for row in rows], dtype=dtype) for name, dtype in _PROBE_COLUMNS
    }
    numbers = np.array([row.numbers for row in rows], dtype=np.int64).reshape(len(rows), -1)
    columns["numbers"] = np.ascontiguousarray(numbers.T)
    columns["texts"] = b"".join(row.texts for row in rows)
    columns["text_bytes"] = np.array([len(row.texts) for row in rows], dtype=np.int64)
    return columns


def pair_calls(buffers: Sequence[Any], processes: Sequence[Any], functions: int) -> dict[str, Any]:
    """The calls of all processes, one after another; see pyscope/_codec.pyi."""
    result = _Result([[0, 0, 0] for _ in range(functions)])
    for number, process in enumerate(processes):
        _Pairing(Source(process, buffers), number, result).run()
    columns = {}
    for i, (name, dtype) in enumerate(_CALL_COLUMNS):
        columns[name] = np.array([row[i] for row in result.rows], dtype=dtype)
    ends = np.cumsum([len(context.name) for _, context in result.contexts], dtype=np.int64)
    found = result.contexts
    return {
        "columns": columns,
        "totals": {
            name: np.array([total[i] for total in result.totals], dtype=np.int64)
            for i, name in enumerate(("calls", "total_ns", "self_ns"))
        },
        "contexts": {
            "serial": np.array([context.serial for _, context in found], dtype=np.uint64),
            "parent": np.array([context.parent for _, context in found], dtype=np.uint64),
            "process": np.array([number for number, _ in found], dtype=np.int32),
            "kind": np.array([context.kind for _, context in found], dtype=np.uint8),
            "name_end": ends,
        },
        "context_names": b"".join(context.name for _, context in found),
        "losses": result.losses,
        "probes": {key: _probe_columns(result.probes[key]) for key in sorted(result.probes)},
        "begun_before": np.array(result.begun_before, dtype=np.int64),
        "orphan_exits": np.array(result.orphan_exits, dtype=np.int64),
        "last_ns": np.array(result.last_ns, dtype=np.int64),
    }
