"""Events of some types, kept over many slices: views that need all of them since the start read these as a trace's."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyscope.events import EventType
from pyscope.live.slices import Slice
from pyscope.probe_events import ProbeEvents

__all__ = ["KeptEvents"]


class KeptEvents:
    """The last `most` events of each of some types: `probe_events`, `strings` and `stack` as of a trace."""

    def __init__(self, types: tuple[EventType, ...], most: int = 5000) -> None:
        self._types = types
        self._most = most
        self._tables: dict[int, ProbeEvents] = {}
        self._latest: Slice | None = None

    def take(self, news: Slice) -> bool:
        """Takes a slice; whether there was anything of these types in it."""
        self._latest = news
        any_new = False
        for event in self._types:
            found = news.probe_events(event)
            if len(found):
                any_new = True
                before = self._tables.get(event.kind)
                self._tables[event.kind] = self._joined([found] if before is None else [before, found])
        return any_new

    def _joined(self, tables: list[ProbeEvents]) -> ProbeEvents:
        """In order of time: a slice has one thread's events after another's, and may come upon older ones."""
        order = np.argsort(np.concatenate([table["time_ns"] for table in tables]), kind="stable")[
            -self._most :
        ]
        columns: dict[str, Any] = {}
        for name in tables[0].keys():  # noqa: SIM118
            parts = [table[name] for table in tables]
            if isinstance(parts[0], list):
                values = [value for part in parts for value in part]
                columns[name] = [values[at] for at in order.tolist()]
            else:
                columns[name] = np.concatenate(parts)[order]
        return tables[-1].of_columns(columns)

    def probe_events(self, event: EventType) -> ProbeEvents:
        """As of a Trace."""
        table = self._tables.get(event.kind)
        if table is not None:
            return table
        assert self._latest is not None
        return self._latest.probe_events(event)

    @property
    def strings(self) -> list[str]:
        """As of a Trace."""
        return self._latest.strings if self._latest is not None else [""]

    def stack(self, number: int) -> Any:
        """As of a Trace."""
        return self._latest.stack(number) if self._latest is not None else ()
