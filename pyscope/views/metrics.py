"""Figures over time: requests, their latency and errors, CPU, memory, mailboxes, and what the recorder took in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.analysis import resources
from pyscope.findings import ProcessResources, ResourceMetrics, Sample
from pyscope.views.source import process_name
from pyscope.views.values import NAME, ms, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["EVENT_NS", "MOST_SAMPLES", "fitting_step", "message", "samples", "whole"]

MOST_SAMPLES = 600
EVENT_NS = 45.0
"""What an event costs the program that is recorded, in nanoseconds: `python -m benchmarks` measures it."""

_MOST_PROCESSES = 20
_MOST_MAILBOXES = 50
_MOST_EVENTS = 20_000_000  # beyond, the begins and ends of calls stand for all events
_PERCENTILES = (50, 90, 99)


def message(trace: Trace, step_ms: float | None = None, *, since_ms: float | None = None) -> dict[str, Any]:
    """The samples of a trace; without `step_ms` in steps that fit its length. `whole` is one of all its time."""
    return {
        "type": "metrics",
        "samples": samples(trace, step_ms or fitting_step(trace), since_ms=since_ms),
        "whole": whole(trace),
    }


def whole(trace: Trace) -> dict[str, Any] | None:
    """One sample of all the trace's time, with its begin as `start_ms`; None if it has none.

    CPU is the mean, memory the last.
    """
    start, end = trace.start_ns, trace.end_ns
    if end <= start:
        return None
    found = _between(trace, np.array([start - 1, end], np.int64))[0] | {"start_ms": ms(start)}
    used = resources.find(trace)
    if used.cpu_usage_samples:  # processes came and went: their means and last values do not add up
        found["cpu_percent"] = round(float(np.mean([s.value for s in used.cpu_usage_samples])), 2)
        found["memory_bytes"] = int(used.memory_samples[-1].value)
        found["peak_memory_bytes"] = int(max(used.peak_memory, *(s.value for s in used.memory_samples)))
    return found


def fitting_step(trace: Trace) -> float:
    """A round number of milliseconds that makes at most 300 steps of the trace."""
    duration = trace.duration_ns / 1e6
    for step in (100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000, 600_000):
        if duration <= 300 * step:
            return float(step)
    return duration / 300


def samples(trace: Trace, step_ms: float, *, since_ms: float | None = None) -> list[dict[str, Any]]:
    """One sample for each step, the last one whole or begun; `at_ms` is the step's end.

    Rates are a second's; requests count in the step in which they end: those of kind "request", or all kinds where
    there is none. `cpu_percent` is of one CPU, added up over the processes. `mailboxes` are the longest of the step;
    `processes` are those with the most memory, at most 20 of `process_count`; `lost_events` and `peak_memory_bytes` are
    so far; `overhead_percent`, of one CPU, is reckoned from the events (EVENT_NS) and the CPU time of the recorder's
    own thread. What is not known is None. At most MOST_SAMPLES: the last ones. Raises ValueError for a step that is not
    positive.
    """
    if not step_ms > 0:
        raise ValueError(f"step_ms is {step_ms}; it must be more than 0")
    edges = _edges(trace, max(1, int(step_ms * 1e6)), since_ms)
    return _between(trace, edges) if len(edges) > 1 else []


def _between(trace: Trace, edges: NDArray[np.int64]) -> list[dict[str, Any]]:
    """A sample for each step: from behind an edge to the next one, that included."""
    step_ms = (int(edges[1]) - int(edges[0])) / 1e6
    columns = _requests(trace, edges, step_ms)
    columns |= _rates(trace, edges, step_ms)
    columns |= _resources(trace, edges)
    columns["at_ms"] = [ms(edge) for edge in edges[1:].tolist()]
    return [{name: values[at] for name, values in columns.items()} for at in range(len(edges) - 1)]


def _edges(trace: Trace, step: int, since_ms: float | None) -> NDArray[np.int64]:
    """Multiples of the step, so that samples of one process made one after another fit together."""
    start, end = trace.start_ns, trace.end_ns
    if since_ms is not None:
        start = max(start, int(since_ms * 1e6))
    last = -(-end // step)
    first = max(start // step, last - MOST_SAMPLES)
    return np.arange(first, max(first, last) + 1, dtype=np.int64) * step


def _bins(edges: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.intp]:
    """The step of each time, -1 for none. A step begins after its first edge and ends with its second."""
    at = np.searchsorted(edges, times, side="left") - 1
    return np.where(at < len(edges) - 1, at, -1)


def _counted(edges: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many times fall into each step; for very many times, without a search for each."""
    step = int(edges[1] - edges[0])
    at = (times - int(edges[0]) - 1) // step
    inside = at[(at >= 0) & (at < len(edges) - 1)]
    return np.bincount(inside, minlength=len(edges) - 1).astype(np.int64)


def _requests(trace: Trace, edges: NDArray[np.int64], step_ms: float) -> dict[str, list[Any]]:
    scopes = trace.scopes
    count = len(edges) - 1
    ended = np.array([outcome != "open" for outcome in scopes["outcome"]], bool)
    kinds = np.array([kind == "request" for kind in scopes["kind"]], bool)
    rows = np.flatnonzero(ended & (kinds if kinds.any() else True))
    at = _bins(edges, scopes["end_ns"][rows])
    rows, at = rows[at >= 0], at[at >= 0]
    failed = (scopes["status"][rows] >= 500) | np.array(
        [scopes["outcome"][row] == "raised" for row in rows.tolist()], bool
    )
    done = np.bincount(at, minlength=count)
    duration = scopes["end_ns"][rows] - scopes["start_ns"][rows]
    duration = duration[np.lexsort((duration, at))]
    first = np.cumsum(done) - done
    columns: dict[str, list[Any]] = {
        "throughput": _rate(done, step_ms),
        "errors_per_s": _rate(np.bincount(at[failed], minlength=count), step_ms),
    }
    for percent in _PERCENTILES:
        rank = first + np.maximum(np.ceil(done * percent / 100).astype(np.int64) - 1, 0)
        columns[f"p{percent}_ms"] = [
            ms(duration[row]) if some else None
            for row, some in zip(rank.tolist(), done.tolist(), strict=True)
        ]
    return columns


def _rate(counts: NDArray[Any], step_ms: float) -> list[float]:
    return [round(count * 1000.0 / step_ms, 3) for count in counts.tolist()]


def _rates(trace: Trace, edges: NDArray[np.int64], step_ms: float) -> dict[str, list[Any]]:
    calls = trace.calls
    begun = _counted(edges, calls["start_ns"])
    if sum(process.events for process in trace.processes) <= _MOST_EVENTS:
        events = _counted(edges, trace.events["time_ns"])
    else:
        events = begun + _counted(edges, calls["start_ns"] + calls["duration_ns"])
    losses = sorted((loss.end_ns, loss.count) for loss in trace.losses)
    lost = np.cumsum([0, *(count for _, count in losses)])
    known = np.searchsorted(np.array([end for end, _ in losses], np.int64), edges[1:], side="right")
    own = sum(process.drain_cpu_ns for process in trace.processes) / max(1, trace.duration_ns)
    return {
        "events_per_s": _rate(events, step_ms),
        "overhead_percent": [
            round(100 * (own + many * EVENT_NS / (step_ms * 1e6)), 3) for many in events.tolist()
        ],
        "calls_per_s": _rate(begun, step_ms),
        "lost_events": lost[known].tolist(),
    }


# --- what was used ---------------------------------------------------------------------------------


def _resources(trace: Trace, edges: NDArray[np.int64]) -> dict[str, list[Any]]:
    count = len(edges) - 1
    found = resources.find(trace)
    processes = [one for key, one in found.by_process.items() if isinstance(key, int)]
    processes.sort(key=lambda one: -one.peak_memory)
    names = {process.pid: process_name(process) for process in trace.processes}
    cpu = np.full(count, np.nan)
    memory = np.full(count, np.nan)
    rows: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    alive = np.zeros(count, np.int64)
    for number, one in enumerate(processes):
        of_cpu = _levels(one.cpu_usage_samples, edges, mean=True)
        of_memory = _levels(one.memory_samples, edges)
        cpu = np.where(np.isnan(cpu), of_cpu, cpu + np.nan_to_num(of_cpu))
        memory = np.where(np.isnan(memory), of_memory, memory + np.nan_to_num(of_memory))
        alive += ~np.isnan(of_memory)
        if number < _MOST_PROCESSES:
            _note(rows, one, text(names.get(one.pid, one.name), NAME), of_cpu, of_memory)
    peak = _peaks(found, edges)
    mailboxes = [one for key, one in found.by_process.items() if isinstance(key, str)]
    return {
        "cpu_percent": [None if np.isnan(value) else round(value, 2) for value in cpu.tolist()],
        "memory_bytes": [None if np.isnan(value) else int(value) for value in memory.tolist()],
        "peak_memory_bytes": peak,
        "mailboxes": _mailboxes(mailboxes, edges),
        "processes": rows,
        "process_count": alive.tolist(),
    }


def _peaks(found: ResourceMetrics, edges: NDArray[np.int64]) -> list[int | None]:
    """The most memory until each step's end: of the samples, and at the last of them what the kernel says."""
    samples = found.memory_samples
    if not samples:
        return [None] * (len(edges) - 1)
    most = np.maximum.accumulate(np.array([sample.value for sample in samples], np.float64))
    most[-1] = max(most[-1], found.peak_memory)
    at = (
        np.searchsorted(np.array([sample.time_ns for sample in samples], np.int64), edges[1:], side="right")
        - 1
    )
    return [int(most[row]) if row >= 0 else None for row in at.tolist()]


def _note(
    rows: list[list[dict[str, Any]]],
    one: ProcessResources,
    name: str,
    cpu: NDArray[np.float64],
    memory: NDArray[np.float64],
) -> None:
    for row, percent, used in zip(rows, cpu.tolist(), memory.tolist(), strict=True):
        if not np.isnan(used):
            row.append(
                {
                    "pid": one.pid,
                    "name": name,
                    "cpu_percent": None if np.isnan(percent) else round(percent, 2),
                    "memory_bytes": int(used),
                }
            )


def _levels(series: Sequence[Sample], edges: NDArray[np.int64], mean: bool = False) -> NDArray[np.float64]:
    """The value in each step: the last there, or the mean; where a step has none that of the step before, as long
    as the series lasts."""
    count = len(edges) - 1
    if not series:
        return np.full(count, np.nan)
    times = np.array([sample.time_ns for sample in series], np.int64)
    values = np.array([sample.value for sample in series], np.float64)
    at = np.searchsorted(times, edges[1:], side="right") - 1
    lasting = (at >= 0) & (edges[:-1] <= times[-1])
    found = np.where(lasting, values[np.maximum(at, 0)], np.nan)
    if mean:
        bins = _bins(edges, times)
        inside = bins >= 0
        sums = np.bincount(bins[inside], values[inside], count)
        many = np.bincount(bins[inside], minlength=count)
        found = np.where(many > 0, sums / np.maximum(many, 1), found)
    return found


def _mailboxes(mailboxes: list[ProcessResources], edges: NDArray[np.int64]) -> list[dict[str, int]]:
    """The longest that each was in each step."""
    rows: list[dict[str, int]] = [{} for _ in range(len(edges) - 1)]
    longest = [max((s.value for s in one.message_queue_length_samples), default=0.0) for one in mailboxes]
    for number in sorted(range(len(mailboxes)), key=lambda at: -longest[at])[:_MOST_MAILBOXES]:
        one = mailboxes[number]
        times = np.array([sample.time_ns for sample in one.message_queue_length_samples], np.int64)
        for at, sample in zip(_bins(edges, times).tolist(), one.message_queue_length_samples, strict=True):
            if at >= 0:
                name = text(one.name, NAME)
                rows[at][name] = max(rows[at].get(name, 0), int(sample.value))
    return rows
