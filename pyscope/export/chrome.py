"""Trace Event JSON, for chrome://tracing and ui.perfetto.dev.

Calls are complete events ("X") in a lane each; requests, messages and reports are asynchronous spans; statements and
calls to other services too, below the request that they belong to. Memory and CPU are counters, losses instants.
The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from pyscope.analysis import external, resources
from pyscope.events.sql import STATEMENT
from pyscope.export.lanes import Lane, lanes
from pyscope.rows import OUTCOMES
from pyscope.views.source import process_name
from pyscope.views.values import NAME, text

if TYPE_CHECKING:
    from pyscope.findings import ExternalCall
    from pyscope.trace import Trace

__all__ = ["write"]

_BATCH = 10_000


def write(trace: Trace, file: IO[bytes]) -> None:
    """Writes the trace; times in microseconds since its start, which stands in `otherData`."""
    file.write(b'{"displayTimeUnit":"ms","otherData":')
    file.write(_json({"recorded_by": "PyScope", "start_unix_ns": str(trace.start_ns)}))
    file.write(b',"traceEvents":[\n')
    events = _events(trace)
    separator = b""
    while batch := list(islice(events, _BATCH)):
        file.write(separator + b",\n".join(batch))
        separator = b",\n"
    file.write(b"\n]}\n")


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _events(trace: Trace) -> Iterator[bytes]:
    found = lanes(trace)
    yield from map(_json, _names(trace, found))
    for lane in found:
        yield from _calls(trace, lane)
    yield from map(_json, _scopes(trace))
    yield from map(_json, _statements(trace))
    yield from map(_json, _external(trace))
    yield from map(_json, _counters(trace))
    yield from map(_json, _losses(trace))


def _names(trace: Trace, found: list[Lane]) -> Iterable[dict[str, Any]]:
    for process in trace.processes:
        name = text(process_name(process), NAME)
        yield {"ph": "M", "name": "process_name", "pid": process.pid, "args": {"name": name}}
    for lane in found:
        name = text(lane.name, NAME)
        yield {"ph": "M", "name": "thread_name", "pid": lane.pid, "tid": lane.number, "args": {"name": name}}
        yield {
            "ph": "M",
            "name": "thread_sort_index",
            "pid": lane.pid,
            "tid": lane.number,
            "args": {"sort_index": lane.number},
        }


def _calls(trace: Trace, lane: Lane) -> Iterator[bytes]:
    """What calls of one function have in common is made once: a recording has millions of them."""
    heads: dict[int, bytes] = {}
    contexts: dict[int, bytes] = {0: b""}
    begin = trace.start_ns
    wanted = "function", "context", "outcome", "exception"
    for row, start, end, number, where, outcome, exception in lane.spans(trace, *wanted):
        head = heads.get(number)
        if head is None:
            head = heads[number] = _head(trace, number, lane)
        named = contexts.get(where)
        if named is None:
            named = contexts[where] = b',"context":' + _json(text(trace.contexts[where].name, NAME))
        if outcome:
            named += b',"outcome":"%b"' % OUTCOMES[outcome].encode()
            if exception >= 0:
                named += b',"exception":' + _json(text(trace.exceptions[exception], NAME))
        times = ((start - begin) / 1e3, (end - start) / 1e3)
        yield b'%b,"ts":%.3f,"dur":%.3f,"args":{"row":%d%b}}' % (head, *times, row, named)


def _head(trace: Trace, number: int, lane: Lane) -> bytes:
    name = trace._names.functions[number]
    shown = {
        "ph": "X",
        "name": text(name.qualname, NAME),
        "cat": text(name.module, NAME) or "call",
        "pid": lane.pid,
        "tid": lane.number,
    }
    return _json(shown)[:-1]


def _spans(
    category: str, number: int | str, name: str, pid: int, start: float, end: float, **details: Any
) -> Iterable[dict[str, Any]]:
    common = {"cat": category, "id": str(number), "name": text(name, NAME), "pid": pid, "tid": 0}
    yield {"ph": "b", "ts": start, **common, "args": details}
    yield {"ph": "e", "ts": end, **common}


def _scopes(trace: Trace) -> Iterable[dict[str, Any]]:
    for scope in trace.scopes:
        yield from _spans(
            scope.kind or "scope",
            scope.id,
            scope.name or scope.kind,
            trace.processes[scope.process].pid,
            _us(trace, scope.start_ns),
            _us(trace, max(scope.end_ns, scope.start_ns)),
            route=text(scope.route, NAME),
            status=scope.status,
            outcome=text(scope.outcome, NAME),
            error=text(scope.error, NAME),
        )


def _statements(trace: Trace) -> Iterable[dict[str, Any]]:
    events = trace.probe_events(STATEMENT)
    strings = trace.strings
    columns = (events[name].tolist() for name in ("process", "time_ns", "duration_ns", "statement", "scope"))
    for number, (process, end, duration, statement, scope) in enumerate(zip(*columns, strict=True)):
        yield from _spans(
            "sql",
            f"sql {number}",
            " ".join(strings[statement].split()),
            trace.processes[process].pid,
            _us(trace, end - duration),
            _us(trace, end),
            request=str(scope),
        )


def _external(trace: Trace) -> Iterable[dict[str, Any]]:
    for number, call in enumerate(external.find(trace)):
        yield from _spans(
            "external",
            f"external {number}",
            f"{call.service} {call.operation} {call.peer}".strip(),
            trace.processes[_process(trace, call)].pid,
            _us(trace, call.start_ns),
            _us(trace, call.start_ns + call.duration_ns),
            outcome=call.outcome,
            retries=call.retries,
            request=str(call.scope),
        )


def _process(trace: Trace, call: ExternalCall) -> int:
    """The index of the process that made a call to another service; the first one's where nothing tells."""
    scope = trace.scopes.get(call.scope)
    if scope is not None:
        return scope.process
    return trace.threads[int(trace.calls["thread"][call.call])].process if call.call >= 0 else 0


def _counters(trace: Trace) -> Iterable[dict[str, Any]]:
    for key, one in resources.find(trace).by_process.items():
        series = (
            (f"mailbox {one.name}", one.message_queue_length_samples)
            if isinstance(key, str)
            else ("memory (MB)", [(time, value / 1e6) for time, value in one.memory_samples])
        )
        for name, samples in (series, ("CPU (%)", one.cpu_usage_samples)):
            for time, value in samples:
                args = {"value": round(float(value), 3)}
                yield {
                    "ph": "C",
                    "name": text(name, NAME),
                    "pid": one.pid,
                    "ts": _us(trace, time),
                    "args": args,
                }


def _losses(trace: Trace) -> Iterable[dict[str, Any]]:
    for loss in trace.losses:
        yield {
            "ph": "i",
            "s": "g",
            "name": f"lost: {loss.reason}",
            "cat": "loss",
            "pid": loss.pid,
            "tid": 0,
            "ts": _us(trace, loss.start_ns),
            "args": {"count": loss.count, "detail": text(loss.detail)},
        }


def _us(trace: Trace, time_ns: int) -> float:
    return round((time_ns - trace.start_ns) / 1e3, 3)
