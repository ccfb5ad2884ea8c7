"""Strings and stacks of living processes, numbered through as they grow."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyscope.process_record import ProcessRecord
from pyscope.rows import Location

__all__ = ["GrowingNames"]


class _Lookup:
    """A table from ids of a process to numbers here, that grows."""

    def __init__(self) -> None:
        self.table = np.zeros(256, np.int64)
        self.handled = 0

    def put(self, identity: int, number: int) -> None:
        if identity >= len(self.table):
            grown = np.zeros(max(identity + 1, 2 * len(self.table)), np.int64)
            grown[: len(self.table)] = self.table
            self.table = grown
        self.table[identity] = number


def _number(lookup: _Lookup, identity: int) -> int:
    return int(lookup.table[identity]) if 0 < identity < len(lookup.table) else 0


class GrowingNames:
    """As `pyscope.probe_events.ProbeNames`, which makes its tables once; `update` takes what is new.

    Processes have to be added in the order of their numbers. Number 0 of each table is "none".
    """

    def __init__(self) -> None:
        self.strings: list[str] = [""]
        self._numbers = {"": 0}
        self._records: list[ProcessRecord] = []
        self._strings: list[_Lookup] = []
        self._stacks: list[_Lookup] = []
        self._nodes: list[tuple[int, Location]] = [(0, Location("", 0, ""))]
        self._places: dict[tuple[int, Location], int] = {}

    def add(self, record: ProcessRecord) -> None:
        """A process, whose names `update` follows."""
        self._records.append(record)
        self._strings.append(_Lookup())
        self._stacks.append(_Lookup())

    def update(self) -> None:
        """Takes the names that came since the last call."""
        for record, strings, stacks in zip(self._records, self._strings, self._stacks, strict=True):
            if len(record.strings) > strings.handled:
                for identity, text in islice(record.strings.items(), strings.handled, None):
                    number = self._numbers.setdefault(text, len(self._numbers))
                    if number == len(self.strings):
                        self.strings.append(text)
                    strings.put(identity, number)
                strings.handled = len(record.strings)
            if len(record.stacks) > stacks.handled:
                for identity, (caller, location) in islice(record.stacks.items(), stacks.handled, None):
                    stacks.put(identity, self._node(record, int(stacks.table[caller]), location))
                stacks.handled = len(record.stacks)

    def _node(self, record: ProcessRecord, caller: int, location: int) -> int:
        file, function, line = record.locations.get(location, (0, 0, 0))
        texts = record.strings
        node = caller, Location(texts.get(file, "?"), line, texts.get(function, "?"))
        if node not in self._places:
            self._places[node] = len(self._nodes)
            self._nodes.append(node)
        return self._places[node]

    def stack(self, number: int) -> tuple[Location, ...]:
        """The locations of a stack, innermost first."""
        path = []
        while number:
            number, location = self._nodes[number]
            path.append(location)
        return tuple(path)

    def through(self, what: str, processes: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids of a process's own table as numbers here."""
        lookups = self._strings if what == "string" else self._stacks
        if len(ids) < 8:
            return np.array(
                [_number(lookups[at], own) for at, own in zip(processes.tolist(), ids.tolist(), strict=True)],
                np.int64,
            )
        out = np.zeros(len(ids), np.int64)
        for process, lookup in enumerate(lookups):
            mine = processes == process
            own = ids[mine]
            inside = (own > 0) & (own < len(lookup.table))
            out[mine] = np.where(inside, lookup.table[np.clip(own, 0, len(lookup.table) - 1)], 0)
        return out
