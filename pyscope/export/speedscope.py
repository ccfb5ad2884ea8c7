"""speedscope's own format: one evented profile for each lane. The format: https://www.speedscope.app/file-format-schema.json"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from pyscope.export.lanes import Lane, lanes
from pyscope.views.source import source
from pyscope.views.values import NAME, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["write"]

_BATCH = 10_000


def write(trace: Trace, file: IO[bytes]) -> None:
    """Writes the trace; times in nanoseconds since its start."""
    head = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "PyScope",
        "name": source(trace)["name"],
        "activeProfileIndex": 0,
        "shared": {"frames": _frames(trace)},
    }
    file.write(_json(head)[:-1] + b',"profiles":[')
    several = len(trace.processes) > 1
    separator = b""
    for lane in lanes(trace):
        file.write(separator + b"\n")
        _profile(trace, lane, f"{lane.pid} {lane.name}" if several else lane.name, file)
        separator = b","
    file.write(b"]}\n")


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _frames(trace: Trace) -> list[dict[str, Any]]:
    return [
        {
            "name": text(f"{name.module}.{name.qualname}".removeprefix("."), NAME),
            "file": text(name.file, NAME),
            "line": name.line,
        }
        for name in trace._names.functions
    ]


def _profile(trace: Trace, lane: Lane, name: str, file: IO[bytes]) -> None:
    begin = trace.start_ns
    start = int(trace.calls["start_ns"][lane.rows[0]]) - begin
    head = {"type": "evented", "name": text(name, NAME), "unit": "nanoseconds", "startValue": start}
    file.write(_json(head)[:-1] + b',"events":[')
    events = _events(trace, lane)
    separator = b""
    end = start
    while batch := list(islice(events, _BATCH)):
        file.write(separator + b",".join(b'{"type":"%b","frame":%d,"at":%d}' % event for event in batch))
        separator, end = b",", batch[-1][2]
    file.write(b'],"endValue":%d}' % end)


def _events(trace: Trace, lane: Lane) -> Iterator[tuple[bytes, int, int]]:
    begin = trace.start_ns
    around: list[tuple[int, int]] = []  # end, frame
    for _, start, end, opened in lane.spans(trace, "function"):
        while around and around[-1][0] <= start:
            until, frame = around.pop()
            yield b"C", frame, until - begin
        around.append((end, opened))
        yield b"O", opened, start - begin
    while around:
        until, frame = around.pop()
        yield b"C", frame, until - begin
