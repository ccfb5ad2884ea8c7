"""Resources: series and peaks of memory, CPU and mailbox lengths."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.events.resources import MAILBOX_SAMPLE, PROCESS_SAMPLE, THREAD_SAMPLE
from pyscope.findings import ProcessResources, ResourceMetrics, Sample

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["find"]


def find(trace: Trace, *, since: int = 0) -> ResourceMetrics:
    """What was used from `since` on (ns of the Unix epoch); empty series where nothing was sampled."""
    samples = trace.probe_events(PROCESS_SAMPLE)
    rows = np.flatnonzero((samples["time_ns"] >= since) & ~_seen_by_another(trace, samples))
    columns = {
        name: samples[name][rows] for name in ("time_ns", "tick", "pid", "rss", "peak", "exact", "name")
    }
    cpu = 100.0 * samples["cpu_ns"][rows] / np.maximum(samples["wall_ns"][rows], 1)
    by_process: dict[int | str, ProcessResources] = {}
    for pid in np.unique(columns["pid"]).tolist():
        mine = columns["pid"] == pid
        times = columns["time_ns"][mine]
        peak = columns["peak"][mine]
        by_process[pid] = ProcessResources(
            name=trace.strings[int(columns["name"][mine][-1])],
            pid=pid,
            peak_memory=int(peak.max()),
            peak_is_exact=bool(columns["exact"][mine][int(peak.argmax())]),
            cpu_usage_samples=_series(times, cpu[mine]),
            memory_samples=_series(times, columns["rss"][mine]),
            message_queue_length_samples=(),
            cpu_by_thread=_threads(trace, pid, since),
        )
    mailboxes = _mailboxes(trace, since)
    by_process |= mailboxes
    highest = max(by_process.values(), key=lambda process: process.peak_memory, default=None)
    ticks, first, of = np.unique(columns["tick"], return_index=True, return_inverse=True)
    order = np.argsort(columns["time_ns"][first], kind="stable")
    times = columns["time_ns"][first][order]
    return ResourceMetrics(
        peak_memory=highest.peak_memory if highest is not None else 0,
        peak_is_exact=highest is not None and highest.peak_is_exact,
        cpu_usage_samples=_series(times, np.bincount(of, cpu, len(ticks))[order]),
        memory_samples=_series(times, np.bincount(of, columns["rss"], len(ticks))[order]),
        message_queue_length_samples=sorted(
            sample for mailbox in mailboxes.values() for sample in mailbox.message_queue_length_samples
        ),
        by_process=by_process,
    )


def _seen_by_another(trace: Trace, samples: Any) -> NDArray[np.bool_]:
    """Samples of a process that records itself and is sampled by its parent too: one of the two counts."""
    sampler = np.array([process.pid for process in trace.processes] or [0], np.int64)[samples["process"]]
    pid = samples["pid"]
    sampled_by_parent = np.unique(pid[pid != sampler])
    return np.isin(sampler, sampled_by_parent)


def _series(times: NDArray[Any], values: NDArray[Any]) -> list[Sample]:
    return [Sample(time, value) for time, value in zip(times.tolist(), values.tolist(), strict=True)]


def _threads(trace: Trace, pid: int, since: int) -> dict[str, int]:
    """CPU nanoseconds of a process's threads, by name."""
    events = trace.probe_events(THREAD_SAMPLE)
    names = {
        thread.os_tid: thread.name for thread in trace.threads if trace.processes[thread.process].pid == pid
    }
    pids = np.array([process.pid for process in trace.processes] or [0], np.int64)
    rows = np.flatnonzero((pids[events["process"]] == pid) & (events["time_ns"] >= since))
    used: Counter[str] = Counter()
    for tid, cpu in zip(events["tid"][rows].tolist(), events["cpu_ns"][rows].tolist(), strict=True):
        used[names.get(tid, f"thread {tid}")] += cpu
    return dict(used.most_common())


def _mailboxes(trace: Trace, since: int) -> dict[int | str, ProcessResources]:
    events = trace.probe_events(MAILBOX_SAMPLE)
    chosen = events["time_ns"] >= since
    found: dict[int | str, ProcessResources] = {}
    for actor in np.unique(events["actor"][chosen]).tolist():
        rows = np.flatnonzero(chosen & (events["actor"] == actor))
        name = trace.strings[int(events["name"][rows[0]])]
        key = name if name not in found else f"{name} {actor}"
        found[key] = ProcessResources(
            name=name,
            pid=trace.processes[int(events["process"][rows[0]])].pid,
            peak_memory=0,
            peak_is_exact=False,
            cpu_usage_samples=(),
            memory_samples=(),
            message_queue_length_samples=_series(events["time_ns"][rows], events["length"][rows]),
        )
    return found
