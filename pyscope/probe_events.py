"""The events of probes in a trace, as columns and as records."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pyscope.events import COMMON, EventType
from pyscope.format import TEXT_HEAD
from pyscope.process_record import ProcessRecord
from pyscope.rows import Location

__all__ = ["ProbeEvents", "ProbeNames"]

_DTYPES = {"time_ns": np.int64, "scope": np.int64}


class Names(Protocol):
    """Where strings and stacks are found by their numbers."""

    strings: list[str]

    def stack(self, number: int) -> tuple[Location, ...]: ...

    def through(self, what: str, processes: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[np.int64]: ...


class ProbeNames:
    """The strings and stacks of all processes of a recording, numbered through. Number 0 of each is "none"."""

    def __init__(self, processes: Sequence[ProcessRecord]) -> None:
        self.strings: list[str] = [""]
        self._stacks: list[tuple[int, Location]] = [(0, Location("", 0, ""))]  # caller, innermost
        self._string_of: list[NDArray[np.int64]] = []
        self._stack_of: list[NDArray[np.int64]] = []
        self._unfolded: dict[int, tuple[Location, ...]] = {0: ()}
        numbers = {"": 0}
        places: dict[tuple[int, Location], int] = {}
        for record in processes:
            lookup = np.zeros(max(record.strings, default=0) + 1, np.int64)
            for identity, text in record.strings.items():
                lookup[identity] = numbers.setdefault(text, len(numbers))
            self._string_of.append(lookup)
            stacks = np.zeros(max(record.stacks, default=0) + 1, np.int64)
            for identity, (caller, location) in sorted(record.stacks.items()):
                file, function, line = record.locations.get(location, (0, 0, 0))
                texts = record.strings
                node = (int(stacks[caller]), Location(texts.get(file, "?"), line, texts.get(function, "?")))
                if node not in places:
                    places[node] = len(self._stacks)
                    self._stacks.append(node)
                stacks[identity] = places[node]
            self._stack_of.append(stacks)
        self.strings = list(numbers)

    def stack(self, number: int) -> tuple[Location, ...]:
        """The locations of a stack, innermost first."""
        found = self._unfolded.get(number)
        if found is None:
            path = []
            node = number
            while node:
                node, location = self._stacks[node]
                path.append(location)
            found = tuple(path)
            self._unfolded[number] = found
        return found

    def through(self, what: str, processes: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids of a process's own table as numbers of the trace."""
        lookups = self._string_of if what == "string" else self._stack_of
        out = np.zeros(len(ids), np.int64)
        for process, lookup in enumerate(lookups):
            mine = processes == process
            own = ids[mine]
            out[mine] = np.where((own > 0) & (own < len(lookup)), lookup[np.clip(own, 0, len(lookup) - 1)], 0)
        return out


class ProbeEvents:
    """The events of one type, in order of time: `events["duration_ns"]` is a column, `len(events)` the rows.

    Columns: those of `pyscope.events.COMMON`, and the type's fields: numbers as they were emitted (int64), `:string`
    fields as indexes in `Trace.strings`, `:stack` fields as arguments of `Trace.stack`, `:text` fields as lists of str.
    """

    def __init__(self, event: EventType, found: Mapping[str, Any] | None, names: Names) -> None:
        self.type = event
        self._names = names
        self._order: tuple[str, ...] = (*COMMON, *event.numbers, *event.texts)
        self._columns: dict[str, Any] = {}
        # Ids of the processes' own tables: numbered through when they are asked for.
        self._own: dict[str, NDArray[np.int64]] = {}
        if found is None:
            for name in COMMON:
                self._columns[name] = np.zeros(0, _DTYPES.get(name, np.int32))
            self._columns |= {name: np.zeros(0, np.int64) for name in event.numbers}
            self._columns |= {name: [] for name in event.texts}
            return
        for name in COMMON:
            self._columns[name] = found[name]
        for name, values in zip(event.numbers, found["numbers"], strict=True):
            (self._columns if event.fields[name] == "number" else self._own)[name] = values
        if event.texts:
            self._columns |= _texts(event.texts, found["texts"], found["text_bytes"].tolist())

    def of_columns(self, columns: dict[str, Any]) -> ProbeEvents:
        """Other events of the same type and numbering of names."""
        found = ProbeEvents(self.type, None, self._names)
        found._columns, found._order = columns, tuple(columns)
        return found

    def __len__(self) -> int:
        return len(self._columns["time_ns"])

    def __getitem__(self, name: str) -> Any:
        column = self._columns.get(name)
        if column is None:
            ids = self._own.get(name)
            if ids is None:
                raise KeyError(
                    f"{self.type.name} events have no {name!r}; they have {', '.join(self._order)}"
                )
            column = self._names.through(self.type.fields[name], self._columns["process"], ids)
            self._columns[name] = column
        return column

    def keys(self) -> list[str]:
        """The columns' names."""
        return list(self._order)

    def records(self, rows: NDArray[Any] | Sequence[int] | None = None) -> Iterator[Any]:
        """Named tuples of all fields, strings, stacks (tuples of Location) and texts resolved.

        rows: of these rows only.
        """
        names = self._order
        if not len(self):
            return iter(())
        columns = [self._resolved(name, rows) for name in names]
        return map(_record(self.type.name, names)._make, zip(*columns, strict=True))

    def tuples(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """These fields of all events, resolved as in `records`."""
        if not len(self):
            return iter(())
        return zip(*(self._resolved(name, None) for name in names), strict=True)

    def _resolved(self, name: str, rows: NDArray[Any] | Sequence[int] | None) -> list[Any]:
        column = self[name]
        if isinstance(column, list):
            return column if rows is None else [column[row] for row in rows]
        values = (column if rows is None else column[np.asarray(rows, np.intp)]).tolist()
        what = self.type.fields.get(name)
        if what == "string":
            strings = self._names.strings
            return [strings[value] for value in values]
        if what == "stack":
            stack = self._names.stack
            return [stack(value) for value in values]
        return list(values)

    def __repr__(self) -> str:
        return f"<{len(self)} {self.type.name} events: {', '.join(self._order)}>"


@functools.cache
def _record(name: str, fields: tuple[str, ...]) -> Any:
    """The type of an event's records; to make one takes a millisecond."""
    return namedtuple(name, fields)


def _texts(names: tuple[str, ...], data: bytes, sizes: list[int]) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {name: [] for name in names}
    for end, size in zip(accumulate(sizes), sizes, strict=True):
        at = end - size
        for name in names:
            text = b""
            if at + TEXT_HEAD.size <= end:
                [length] = TEXT_HEAD.unpack_from(data, at)
                at += TEXT_HEAD.size
                text = data[at : min(at + length, end)]
                at += length
            columns[name].append(text.decode("utf-8", "ignore"))
    return columns
