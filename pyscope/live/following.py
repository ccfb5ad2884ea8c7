"""A recording that is being made, as the dashboard shows it: what each look brings, and all of it for newcomers."""

from __future__ import annotations

from collections import deque
from typing import Any

from pyscope.codec import Codec
from pyscope.events.supervision import CHILD
from pyscope.live.describe import describe
from pyscope.live.desk import FindingsOfWindow
from pyscope.live.external import ExternalTable
from pyscope.live.follow import Follower
from pyscope.live.hub import Message
from pyscope.live.kept_events import KeptEvents
from pyscope.live.meter import Meter
from pyscope.live.requests import RequestTable
from pyscope.live.slices import Slicer
from pyscope.live.source import Located, Source
from pyscope.live.window import Snapshot, Window
from pyscope.views import states, supervision
from pyscope.views.values import ms

__all__ = ["Following"]

_SAMPLE_EVERY_NS = 1_000_000_000
_DESCRIBE_EVERY_NS = 500_000_000
_MOST_CHANGES = 2000
_MOST_SUPERVISED = 500
_MOST_FINDINGS = 200
_SEVERITIES = ("error", "warning", "info")


class Following:
    """Follows what a source has located. Raises as `Follower`. The feed's thread alone calls `step`."""

    def __init__(self, source: Source, located: Located, codec: Codec) -> None:
        self.source = source
        self.path = located.path
        self._follower = Follower(located.path, codec, ring=located.ring)
        self._slicer = Slicer(codec)
        self._window = Window(codec)
        self._requests = RequestTable()
        self._external = ExternalTable()
        self._supervised = KeptEvents((CHILD,))
        self._meter = Meter()
        self._changes: deque[dict[str, Any]] = deque(maxlen=_MOST_CHANGES)
        self._findings: Message = {"type": "findings", "at_ms": 0.0, "total": 0, "findings": []}
        self._found: set[str] = set()  # ids of all findings, of which the worst are listed
        self._losses: Message = {"type": "losses", "total": 0, "rows": []}
        self._described: dict[str, Any] = {}
        self._sample_due_ns = self._describe_due_ns = 0
        self._any_supervised = False
        self._left: set[int] = set()  # numbers of processes that are known to have ended

    @property
    def alive(self) -> bool:
        """Whether any process still records."""
        return self._follower.alive

    @property
    def replaced(self) -> bool:
        """Whether another recording stands at the path now."""
        return self._follower.replaced

    @property
    def described(self) -> dict[str, Any]:
        """The source, as in a message of type "hello"."""
        return self._described

    def step(self, now_ns: int) -> tuple[list[Message], bool]:
        """Looks once: what changed, and whether the source is to be described anew."""
        messages: list[Message] = []
        changed = {}
        for process in self._follower.look():
            chunks, process.fresh = list(process.fresh.values()), {}
            changed[process.number] = chunks
            self._window.take(process, chunks, now_ns)
        if changed:
            messages += self._news(changed, now_ns)
        if now_ns >= self._sample_due_ns:
            self._sample_due_ns = now_ns + _SAMPLE_EVERY_NS
            sample = self._meter.sample(now_ns, self._follower.processes)
            messages.append({"type": "metrics", "samples": [sample]})
        described = False
        if now_ns >= self._describe_due_ns or not self.alive:
            self._describe_due_ns = now_ns + _DESCRIBE_EVERY_NS
            found = describe(self.source, self.path, self._follower.processes)
            described = found != self._described
            self._described = found
            self._forget_children()
            messages += self._leave(now_ns)
        return messages, described

    def _leave(self, now_ns: int) -> list[Message]:
        """The requests that were open in processes that have ended since the last time."""
        gone = [one for one in self._follower.processes if one.ended and one.number not in self._left]
        for process in gone:
            self._left.add(process.number)
            self._requests.left(process.record.info.pid, now_ns)
        rows = self._requests.changes(now_ns) if gone else []
        return [{"type": "traces", "at_ms": ms(now_ns), "requests": rows}] if rows else []

    def _forget_children(self) -> None:
        """Of a process that ended, and of which the window has nothing any more, the names are given up."""
        for process in self._follower.processes[1:]:
            if process.ended and process.record.strings and not self._window.holds(process.number):
                process.forget()
                self._slicer.forget(process.number)

    def _news(self, changed: dict[int, list[Any]], now_ns: int) -> list[Message]:
        news = self._slicer.slice(self._follower.processes, changed)
        messages: list[Message] = []
        self._requests.take(news)
        ended, self._requests.ended = self._requests.ended, []
        self._meter.take(news, ended)
        rows = self._requests.changes(now_ns)
        if rows:
            messages.append({"type": "traces", "at_ms": ms(now_ns), "requests": rows})
        self._external.take(news)
        calls = self._external.changes(now_ns)
        if calls:
            messages.append({"type": "external", "calls": calls})
        message = states.message(news, _MOST_CHANGES)  # type: ignore[arg-type]
        if message["changes"]:
            self._changes.extend(message["changes"])
            messages.append(message)
        if self._supervised.take(news):
            self._any_supervised = True
            messages.append(self._supervision())
        return messages

    def _supervision(self) -> Message:
        return supervision.message(self._supervised, _MOST_SUPERVISED)  # type: ignore[arg-type]

    def state(self, now_ns: int) -> list[Message]:
        """Everything that is shown, for someone who has just come."""
        messages: list[Message] = [
            {"type": "traces", "at_ms": ms(now_ns), "requests": self._requests.all(now_ns)},
            {"type": "metrics", "samples": list(self._meter.samples)},
            self._losses,
            self._findings,
            {"type": "state", "changes": list(self._changes)},
            {"type": "external", "calls": self._external.all(now_ns)},
        ]
        empty: Message = {"type": "supervision", "total": 0, "tree": [], "events": []}
        messages.append(self._supervision() if self._any_supervised else empty)
        return messages

    def found(self, found: FindingsOfWindow) -> list[Message]:
        """Takes what was found in the last seconds; what had been found before stays, as far as there is room."""
        known = {row["id"]: row for row in self._findings["findings"]}
        for row in found.message["findings"]:
            before = known.pop(row["id"], None)
            if before is not None:
                first = min(before["time_ms"], row["time_ms"])
                row = {**row, "count": max(row["count"], before["count"]), "time_ms": first}
            known[row["id"]] = row
        self._found.update(known)
        rows = sorted(known.values(), key=lambda row: _SEVERITIES.index(row["severity"]))[:_MOST_FINDINGS]
        findings: Message = {**found.message, "total": len(self._found), "findings": rows}
        messages: list[Message] = []
        if (findings["total"], rows) != (self._findings["total"], self._findings["findings"]):
            messages.append(findings)
        if found.losses["rows"] != self._losses["rows"]:
            messages.append(found.losses)
        self._findings, self._losses = findings, found.losses
        self._requests.found(found.by_scope)
        return messages

    def snapshot(self, from_ns: int = 0, to_ns: int = 1 << 62) -> Snapshot:
        """What is kept between two times."""
        return self._window.snapshot(self.path, self._follower.processes, from_ns, to_ns)

    def request(self, identity: int, now_ns: int) -> tuple[dict[str, Any], int, int] | None:
        """One request, and when it began and ended."""
        return self._requests.get(identity, now_ns)

    def close(self) -> None:
        """Gives up files and rings."""
        self._follower.close()
