"""The rows of a trace: what it says of functions, threads, contexts, processes and losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

OUTCOMES = ("returned", "raised", "open", "cut", "closed")
"""What the column `outcome` means. open: not ended when the recording was; cut: its end was not seen, a
caller's was;
closed: a generator or coroutine that was closed while suspended."""

_CONTEXT_KINDS = ("thread", "task", "greenlet")


class Columns:
    """Columns of equal length: `columns["name"]` is a contiguous numpy array, `len(columns)` the rows."""

    __slots__ = ("_arrays",)

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._arrays = dict(arrays)

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self._arrays[name]
        except (KeyError, TypeError):
            raise KeyError(f"there is no column {name!r}; there are {', '.join(self._arrays)}") from None

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def keys(self) -> list[str]:
        """The columns' names."""
        return list(self._arrays)

    def __repr__(self) -> str:
        return f"<{len(self)} rows of {', '.join(self._arrays)}>"


@dataclass(frozen=True, slots=True)
class Function:
    """A function that ran. `calls`: how many; `total_ns`: of its outermost calls; `self_ns`: without callees.

    `arity`: parameters without self or cls. `kind`: "function", "generator", "coroutine", "async_generator"
    or "c_function". `unrecorded_calls`: an estimate of the calls beside `calls`, made while a budget had quieted the
    function.
    """

    module: str
    qualname: str
    file: str
    line: int
    calls: int
    total_ns: int
    self_ns: int
    arity: int
    kind: str
    unrecorded_calls: int = 0

    @property
    def estimated(self) -> bool:
        """Whether how often it was called is known by an estimate only: `calls + unrecorded_calls`."""
        return self.unrecorded_calls > 0

    @property
    def name(self) -> str:
        """The last part of the qualified name."""
        return self.qualname.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread: `process` is the index in `Trace.processes`, `os_tid` the operating system's id."""

    name: str
    process: int
    os_tid: int


@dataclass(frozen=True, slots=True)
class Context:
    """What a thread ran: `kind` "thread" (the thread itself), "task" (asyncio) or "greenlet".

    `parent` is the index in `Trace.contexts` of the context that made it, 0 for none. `process` as in Thread.
    """

    name: str
    kind: str
    parent: int
    process: int


@dataclass(frozen=True, slots=True)
class Location:
    """A line of a function of the traced program. `function` is its qualified name."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the recording.

    `state`: "recording", "stopped", "recovered" (killed; its ring was sealed later), "killed" or
    "write_failed". `events`, `file_bytes`: what the recording holds of it; `drain_cpu_ns`: CPU time of the
    recorder's own thread; `orphan_exits`: exits of calls that began unseen; `meta`: all settings as they were
    written.
    """

    pid: int
    parent_pid: int
    argv: tuple[str, ...]
    python: str
    backend: str
    backend_reason: str
    mode: str
    modules: tuple[str, ...] | None
    state: str
    start_ns: int
    end_ns: int
    events: int
    file_bytes: int
    ring_bytes: int
    drain_cpu_ns: int
    orphan_exits: int
    meta: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that the trace does not hold, between `start_ns` and `end_ns`.

    `reason`: ring_full, stack_guard, fork, fault, write_error, overwritten, duty_cycle, quieted (said by the
    recorder); missing_pages, damaged_chunk, damaged_block, damaged_summary, damaged_part, truncated,
    ring_gone (found on reading). `count`: events, 0 if unknown. `thread`, `process`: indexes, -1 if unknown.
    `pid`: 0 if unknown. Of a function that was quieted to keep within a budget `function` is its index in
    `Trace.functions` (-1: every function), `count` an estimate of the calls that were not recorded, and `low` to
    `high` its 95 % interval; from time to time it was recorded for a moment.
    """

    reason: str
    count: int
    start_ns: int
    end_ns: int
    thread: int
    process: int
    pid: int
    detail: str = ""
    function: int = -1
    low: int = 0
    high: int = 0


class Contexts(Sequence[Context]):
    """The contexts, made when they are asked for: a service has a million tasks."""

    def __init__(self, found: Mapping[str, NDArray[Any]], names: bytes) -> None:
        self._found = found
        self._names = names
        self._rows = {
            (int(process), int(serial)): i + 1
            for i, (process, serial) in enumerate(zip(found["process"], found["serial"], strict=True))
        }

    def __len__(self) -> int:
        return len(self._found["serial"]) + 1

    def of_kind(self, kind: str, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Of some contexts' indices, those of a kind (as in `Context.kind`); index 0 is of kind "thread"."""
        kinds = self._found["kind"]
        of = np.full(len(numbers), _CONTEXT_KINDS.index("thread"))
        numbered = numbers > 0
        of[numbered] = kinds[numbers[numbered] - 1]
        found: NDArray[np.int32] = numbers[of == _CONTEXT_KINDS.index(kind)]
        return found

    @overload
    def __getitem__(self, at: int) -> Context: ...
    @overload
    def __getitem__(self, at: slice) -> list[Context]: ...
    def __getitem__(self, at: int | slice) -> Context | list[Context]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        row = range(len(self))[at] - 1
        if row < 0:
            return Context("", "thread", 0, -1)
        found = self._found
        ends = found["name_end"]
        name = self._names[int(ends[row - 1]) if row else 0 : int(ends[row])].decode("utf-8", "replace")
        kind = int(found["kind"][row])
        process = int(found["process"][row])
        return Context(
            name,
            _CONTEXT_KINDS[kind] if kind < len(_CONTEXT_KINDS) else f"kind {kind}",
            self._rows.get((process, int(found["parent"][row])), 0),
            process,
        )
