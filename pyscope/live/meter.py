"""The overview's figures, once a second: throughput, latency, errors, CPU, memory, events, cost, mailboxes."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import psutil

from pyscope.events.actors import MESSAGE_RECEIVED, MESSAGE_SENT
from pyscope.events.resources import MAILBOX_SAMPLE, PROCESS_SAMPLE
from pyscope.live.describe import name_of
from pyscope.live.follow import FollowedProcess
from pyscope.live.requests import Ended
from pyscope.live.slices import Slice
from pyscope.views.metrics import EVENT_NS
from pyscope.views.values import NAME, ms, text

__all__ = ["KEPT", "Meter"]

KEPT = 600
_LATENCY_OVER_NS = 5_000_000_000
_FEWEST = 20
_MOST_MAILBOXES = 200


class Meter:
    """Gathers what slices tell, and makes a sample of it when asked."""

    def __init__(self) -> None:
        self.samples: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._ended: deque[Ended] = deque(maxlen=5000)
        self._since_ns = 0
        self._events = 0
        self._calls = 0
        self._mailboxes: dict[str, int] = {}
        self._peak = 0  # bytes: of all processes at once as far as was seen, or of one as its kernel says
        self._drains: dict[int, tuple[Path | None, int]] = {}
        self._handles: dict[int, psutil.Process | None] = {}

    def take(self, news: Slice, ended: list[Ended]) -> None:
        """Takes a slice, and the requests that ended in it."""
        self._events += news.events
        self._calls += news.calls
        self._ended.extend(ended)
        mailboxes = news.probe_events(MAILBOX_SAMPLE)
        if len(mailboxes):
            strings = news.strings
            names = (strings[number] for number in mailboxes["name"].tolist())
            for name, length in zip(names, mailboxes["length"].tolist(), strict=True):
                if name in self._mailboxes or len(self._mailboxes) < _MOST_MAILBOXES:
                    self._mailboxes[text(name, NAME)] = length
        self._messages(news)
        samples = news.probe_events(PROCESS_SAMPLE)
        if len(samples):
            self._peak = max(self._peak, int(samples["peak"].max()))

    def _messages(self, news: Slice) -> None:
        """Mailboxes also tell their length with each message."""
        strings = news.strings
        for event, more in ((MESSAGE_SENT, 1), (MESSAGE_RECEIVED, 0)):
            events = news.probe_events(event)
            if len(events):
                names = events["actor_name"].tolist()
                for name, length in zip(names, events["length"].tolist(), strict=True):
                    label = text(strings[name], NAME)
                    if length >= 0 and (label in self._mailboxes or len(self._mailboxes) < _MOST_MAILBOXES):
                        self._mailboxes[label] = length + more

    def sample(self, now_ns: int, processes: list[FollowedProcess]) -> dict[str, Any]:
        """What happened since the last sample; it is kept too."""
        seconds = max(1e-3, (now_ns - self._since_ns) / 1e9) if self._since_ns else 1.0
        since = self._since_ns or now_ns - 1_000_000_000
        recent = [one for one in self._ended if one.end_ns > since]
        # Of few requests in a second no percentile can be told: then of the last five.
        timed = [one for one in self._ended if one.end_ns > now_ns - _LATENCY_OVER_NS]
        durations = sorted(one.duration_ns for one in (recent if len(recent) >= _FEWEST else timed))
        drained = sum(
            self._drained_ns(process.record.info.pid) for process in processes if process.record.alive
        )
        rows = [self._process(process) for process in processes if process.record.alive]
        for known in (self._handles, self._drains):
            for gone in known.keys() - {row["pid"] for row in rows}:
                del known[gone]
        cpu = [row["cpu_percent"] for row in rows if row["cpu_percent"] is not None]
        memory = [row["memory_bytes"] for row in rows if row["memory_bytes"] is not None]
        self._peak = max(self._peak, sum(memory))
        found = {
            "at_ms": ms(now_ns),
            "throughput": round(len(recent) / seconds, 2),
            "p50_ms": _percentile(durations, 0.50),
            "p90_ms": _percentile(durations, 0.90),
            "p99_ms": _percentile(durations, 0.99),
            "errors_per_s": round(sum(one.failed for one in recent) / seconds, 2),
            "cpu_percent": round(sum(cpu), 1) if cpu else None,
            "memory_bytes": sum(memory) if memory else None,
            "peak_memory_bytes": self._peak or None,
            "events_per_s": round(self._events / seconds, 1),
            "calls_per_s": round(self._calls / seconds, 1),
            "overhead_percent": round(100 * (self._events * EVENT_NS + drained) / (seconds * 1e9), 3),
            "lost_events": sum(_lost(process) for process in processes),
            "mailboxes": dict(self._mailboxes),
            "processes": rows,
            "process_count": len(rows),
        }
        self._since_ns, self._events, self._calls = now_ns, 0, 0
        self.samples.append(found)
        return found

    def _drained_ns(self, pid: int) -> int:
        """CPU time of the recorder's own thread since the last call; 0 where it is not to be seen."""
        if pid not in self._drains:
            self._drains[pid] = (_drain_of(pid), -1)
        path, before = self._drains[pid]
        if path is None:
            return 0
        try:
            now = int(path.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return 0
        self._drains[pid] = path, now
        return now - before if before >= 0 else 0

    def _process(self, process: FollowedProcess) -> dict[str, Any]:
        pid = process.record.info.pid
        cpu: float | None = None
        memory: int | None = None
        try:
            handle = self._handles.get(pid)
            if handle is None:
                handle = self._handles[pid] = psutil.Process(pid)
                handle.cpu_percent()
            else:
                cpu = handle.cpu_percent()
            memory = handle.memory_info().rss
        except (psutil.Error, OSError):
            self._handles.pop(pid, None)
        return {"pid": pid, "name": text(name_of(process), NAME), "cpu_percent": cpu, "memory_bytes": memory}


def _drain_of(pid: int) -> Path | None:
    """Where the kernel tells the CPU time of a process's drain thread, in nanoseconds."""
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "comm").read_text().startswith("pyscope-drain"):
                return task / "schedstat"
    except OSError:
        pass
    return None


def _percentile(durations: list[int], share: float) -> float | None:
    if not durations:
        return None
    return ms(durations[min(len(durations) - 1, int(share * len(durations)))])


def _lost(process: FollowedProcess) -> int:
    if process.figures is not None:
        return process.figures.dropped
    summary = process.record.summary
    return sum(loss.count for loss in summary.losses) if summary is not None else 0
