"""Attempts to call other services as they were recorded: each begin with its end, and which of them stand alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.events.external import EXTERNAL_ANSWER, EXTERNAL_BEGIN, EXTERNAL_END, AttemptOutcome

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["OUTCOMES", "Retry", "Send", "Sends"]

OUTCOMES = {
    0: "open",
    AttemptOutcome.SUCCEEDED: "succeeded",
    AttemptOutcome.FAILED: "failed",
    AttemptOutcome.TIMED_OUT: "timed_out",
    AttemptOutcome.CANCELLED: "cancelled",
}
_REFUSED = -1  # in place of an error: "HTTP" and the status
FIRST_REFUSAL = 400

Retry = tuple[int, int]  # group and number


@dataclass(slots=True)
class Send:
    """One attempt as it was recorded, and what is known of its end."""

    id: int
    chain: int
    retry: Retry
    service: str
    operation: str
    peer: str
    client: str
    timeout_ns: int
    fingerprint: int
    stack: int
    start_ns: int
    thread: int
    context: int
    call: int
    scope: int
    end_ns: int
    outcome: str
    status: int
    error: str
    shown: int = 0  # the stack to show, where it is not the one to compare

    @property
    def failed(self) -> bool:
        """Whether it ended, and not well."""
        return self.outcome not in ("succeeded", "open")


class Sends:
    """All attempts of a trace, in order of their begin. `plain` says which need not be compared with any other."""

    def __init__(self, trace: Trace) -> None:
        self._strings = trace.strings
        begins = self._begins = trace.probe_events(EXTERNAL_BEGIN)
        count = len(begins)
        lasts = np.array([process.end_ns for process in trace.processes], np.int64)
        self._end: NDArray[np.int64] = lasts[begins["process"]] if count else np.zeros(0, np.int64)
        self._outcome = np.zeros(count, np.int64)
        self._status = np.zeros(count, np.int64)
        self._error = np.zeros(count, np.int64)
        self._order: NDArray[np.intp] = np.argsort(begins["attempt"], kind="stable")
        self._answered(trace.probe_events(EXTERNAL_ANSWER))
        self._ended(trace.probe_events(EXTERNAL_END))
        self.plain = self._plain()

    def __len__(self) -> int:
        return len(self._begins)

    def _rows(self, attempts: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Which row each attempt has, and whether it has one."""
        ids = self._begins["attempt"][self._order]
        if not len(ids):
            return np.zeros(0, np.intp), np.zeros(len(attempts), bool)
        at = np.minimum(np.searchsorted(ids, attempts), len(ids) - 1)
        known = ids[at] == attempts
        return self._order[at[known]], known

    def _answered(self, answers: Any) -> None:
        """Whoever has the answer may leave its body: that is no failure."""
        rows, known = self._rows(answers["attempt"])
        status = answers["status"][known]
        http = np.array([text == "http" for text in self._strings], bool)[self._begins["service"][rows]]
        refused = http & (status >= FIRST_REFUSAL)
        self._end[rows] = answers["time_ns"][known]
        self._status[rows] = status
        self._outcome[rows] = np.where(refused, AttemptOutcome.FAILED, AttemptOutcome.SUCCEEDED)
        self._error[rows] = np.where(refused, _REFUSED, 0)

    def _ended(self, ends: Any) -> None:
        rows, known = self._rows(ends["attempt"])
        self._end[rows] = self._begins["time_ns"][rows] + ends["duration_ns"][known]
        for column, name in ((self._outcome, "outcome"), (self._status, "status"), (self._error, "error")):
            column[rows] = ends[name][known]

    def _plain(self) -> NDArray[np.bool_]:
        """Those that succeeded outside retries, and are like none that failed."""
        begins = self._begins
        smtp = np.array([text == "smtp" for text in self._strings], bool)[begins["service"]]
        heads = np.unique(begins["chain"])
        alone = (begins["chain"] == 0) & ~np.isin(begins["attempt"], heads) & (begins["group"] == 0) & ~smtp
        key = np.zeros(len(begins), np.uint64)
        for name in ("thread", "stack", "service", "operation", "peer", "fingerprint"):
            key = (key ^ begins[name].astype(np.int64).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        succeeded = self._outcome == AttemptOutcome.SUCCEEDED
        plain: NDArray[np.bool_] = alone & succeeded & ~np.isin(key, key[~succeeded])
        return plain

    def at(self, rows: NDArray[np.intp]) -> Iterator[Send]:
        """The attempts in some rows."""
        begins, strings = self._begins, self._strings
        numbers = [begins[name][rows].tolist() for name in ("attempt", "chain", "group", "number")]
        names = [
            [strings[index] for index in begins[name][rows].tolist()]
            for name in ("service", "operation", "peer", "client")
        ]
        rest = [
            begins[name][rows].tolist()
            for name in (
                "timeout_ns",
                "fingerprint",
                "stack",
                "time_ns",
                "thread",
                "context",
                "call",
                "scope",
            )
        ]
        ends = [column[rows].tolist() for column in (self._end, self._outcome, self._status, self._error)]
        for identity, chain, group, number, *fields, end, outcome, status, error in zip(
            *numbers, *names, *rest, *ends, strict=True
        ):
            text = f"HTTP {status}" if error == _REFUSED else strings[error]
            values: tuple[Any, ...] = (*fields, end, OUTCOMES.get(outcome, "failed"), status, text)
            yield Send(identity, chain, (group, number), *values)
