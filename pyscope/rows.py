"""The rows of a trace: what it says of functions, threads, contexts, processes and losses."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

OUTCOMES = ("returned", "raised", "open", "cut", "closed")
"""What the column `outcome` means. open: not ended when the recording was; cut: its end was not seen, a
caller's was;
closed: a generator or coroutine that was closed while suspended."""

_DEEPEST = 1000  # of contexts around one: a damaged recording may hold a circle
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

    def __len__(self) -> int:
        return len(self._found["serial"]) + 1

    def name(self, number: int) -> str:
        """The name of one, by its index."""
        ends = self._found["name_end"]
        start = int(ends[number - 2]) if number > 1 else 0
        return self._names[start : int(ends[number - 1])].decode("utf-8", "replace") if number > 0 else ""

    def of_kind(self, kind: str, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """Of each of some contexts' indices whether it is of a kind (as in `Context.kind`)."""
        found: NDArray[np.bool_] = self._kinds[numbers] == _CONTEXT_KINDS.index(kind)
        return found

    def around(self, kind: str, numbers: NDArray[Any]) -> NDArray[np.int64]:
        """Of each of some contexts' indices the first that is not of a kind: itself, or one that it began in; 0 for
        none."""
        found = np.array(numbers, np.int64)
        for _ in range(_DEEPEST):
            inside = self.of_kind(kind, found)
            if not inside.any():
                return found
            found[inside] = self._parents[found[inside]]
        found[self.of_kind(kind, found)] = 0
        return found

    @functools.cached_property
    def _kinds(self) -> NDArray[Any]:
        return np.concatenate(([_CONTEXT_KINDS.index("thread")], self._found["kind"]))

    @functools.cached_property
    def _parents(self) -> NDArray[np.int64]:
        """By index the index of the context that it began in. Within a process they stand in order of their serials."""
        process, serial, parent = (self._found[name] for name in ("process", "serial", "parent"))
        found = np.zeros(len(self), np.int64)
        starts = np.flatnonzero(np.diff(process, prepend=-1)).tolist()
        for start, end in pairwise([*starts, len(process)]):
            own, wanted = serial[start:end], parent[start:end]
            at = np.searchsorted(own, wanted)
            known = own[np.minimum(at, len(own) - 1)] == wanted
            found[start + 1 : end + 1] = np.where(known, start + 1 + at, 0)
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
        kind = int(found["kind"][row])
        process = int(found["process"][row])
        return Context(
            self.name(row + 1),
            _CONTEXT_KINDS[kind] if kind < len(_CONTEXT_KINDS) else f"kind {kind}",
            int(self._parents[row + 1]),
            process,
        )
