"""No trace is too odd for a view: empty, killed, a bare ring, hostile names, nonsense in every field."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyscope
from pyscope.events.external import EXTERNAL_BEGIN, EXTERNAL_END
from pyscope.events.resources import MAILBOX_SAMPLE, PROCESS_SAMPLE
from pyscope.events.scope import SCOPE_BEGIN, SCOPE_END
from pyscope.events.sql import STATEMENT
from pyscope.events.state import STATE_CHANGE
from pyscope.events.supervision import CHILD
from pyscope.export import html
from pyscope.fallback.writer import Page, RecordingWriter
from pyscope.format import ContextKind, Kind
from pyscope.trace import Trace
from pyscope.views import (
    external,
    findings,
    flame,
    functions,
    losses,
    metrics,
    queries,
    requests,
    source,
    states,
    supervision,
    waterfall,
)
from tests.unit.shop import plain

VIEWS: dict[str, Callable[[Trace], Any]] = {
    "hello": source.hello,
    "metrics": metrics.message,
    "traces": requests.message,
    "findings": findings.message,
    "supervision": supervision.message,
    "state": states.message,
    "external": external.message,
    "losses": losses.message,
    "flame": flame.tree,
    "functions": functions.table,
    "queries": queries.table,
    "waterfalls": lambda trace: [waterfall.of_request(trace, str(i)) for i in trace.scopes["id"].tolist()],
    "html": html.data,
}
HOSTILE = "</script><script>alert(1)</script>\0\x1b[31m\u2028\u202e😀" + "x" * 3000
NUMBERS = (0, 1, -1, 7, 2**31, -(2**31), 2**62, -(2**63), 2**63 - 1)


def empty(path: Path) -> None:
    RecordingWriter(path).close()


def killed_before_anything(path: Path) -> None:
    RecordingWriter(path).abandon()


def hostile(path: Path) -> None:
    """Names that are meant to harm, everywhere where names are."""
    meta = {
        "argv": ["python", "\ud800" + HOSTILE],
        "modules": [HOSTILE, "\udfff"],
        "python": HOSTILE,
        "mode": 3,
    }
    writer = RecordingWriter(path, meta)
    code = writer.code(HOSTILE, HOSTILE, HOSTILE, 1)
    error = writer.exception(HOSTILE)
    base = writer.clock()[0]
    page = Page(base)
    string = writer.string(HOSTILE)
    stack = writer.stack(0, writer.location(HOSTILE, HOSTILE, 1))
    request = writer.string("request")
    page.describe_context(base + 1, 8, 0, ContextKind.TASK, HOSTILE)
    page.event(base + 2, Kind.SWITCH, 0, 8)
    page.probe(base + 10, SCOPE_BEGIN.kind, 1, [1, 0, request, string], [])
    page.event(base + 20, Kind.CALL, code)
    fields = {"sql": [1, 5, string, 1, 1, 1, 1, stack, 1, 2, string, 1, string, 0, string]}
    page.probe(base + 30, STATEMENT.kind, 1, fields["sql"], [])
    page.probe(
        base + 31, EXTERNAL_BEGIN.kind, 1, [1, 0, 0, 0, string, string, string, string, 1, 0, 0, stack], []
    )
    page.probe(base + 32, EXTERNAL_END.kind, 1, [1, 1, 3, 500, string], [])
    page.probe(
        base + 33, CHILD.kind, 1, [0, 1, writer.string("child_terminated"), string, string, stack], [HOSTILE]
    )
    page.probe(base + 34, STATE_CHANGE.kind, 1, [1, 0, 0, 1, 1, string, string, string, stack], [HOSTILE] * 3)
    page.probe(base + 35, PROCESS_SAMPLE.kind, 0, [1, 1, 1, 1, 1, 1, 1, string], [])
    page.probe(base + 36, MAILBOX_SAMPLE.kind, 0, [1, 1, 1, string], [])
    page.event(base + 40, Kind.RAISE, code, error)
    page.probe(base + 50, SCOPE_END.kind, 1, [1, 40, 30, 500, string, string, string], [])
    writer.chunk(0, page.words, base_ticks=base, name=HOSTILE, os_tid=1)
    writer.close()


def nonsense(path: Path) -> None:
    """Every field of every event has every extreme value; nothing ends that has begun, and the other way round."""
    writer = RecordingWriter(path)
    code = writer.code("shop", "f", "shop.py", 1)
    base = writer.clock()[0]
    page = Page(base)
    now = base
    types = (SCOPE_BEGIN, SCOPE_END, STATEMENT, EXTERNAL_BEGIN, EXTERNAL_END, CHILD, STATE_CHANGE, PROCESS_SAMPLE,
             MAILBOX_SAMPLE)  # fmt: skip
    for event in types:
        for number in NUMBERS:
            now += 10
            if not page.room(100):
                writer.chunk(0, page.words, base_ticks=page.base_ticks, name="MainThread", os_tid=1)
                page = Page(now)
            page.event(now, Kind.CALL, code)
            texts = ["\0"] * len(event.texts)
            page.probe(now + 1, event.kind, number, [number] * len(event.numbers), texts)
    page.event(now + 5, Kind.RETURN, 4000)
    writer.chunk(0, page.words, base_ticks=page.base_ticks, name="", os_tid=0)
    writer.close()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("make", [empty, killed_before_anything, hostile, nonsense])
def test_every_view_shows_every_trace(tmp_path: Path, make: Callable[[Path], None], view: str) -> None:
    make(tmp_path / "run.pyscope")
    shown = plain(VIEWS[view](pyscope.load(tmp_path / "run.pyscope")))
    assert len(shown) < 200_000
    assert "\0" not in shown
    assert "\\u0000" not in shown


def test_hostile_names_are_shown_as_they_are_but_for_what_no_browser_can_hold(tmp_path: Path) -> None:
    hostile(tmp_path / "run.pyscope")
    trace = pyscope.load(tmp_path / "run.pyscope")
    start = "</script><script>alert(1)</script>\ufffd\x1b[31m"
    [request] = requests.message(trace)["requests"]
    assert request["name"].startswith(start)
    assert len(request["name"]) == 300
    found = waterfall.of_request(trace, request["id"])
    assert found is not None
    assert {"scope", "call", "query", "external"} <= {span["kind"] for span in found["spans"]}
    assert functions.table(trace)["functions"][0]["qualname"].startswith(start)
    assert flame.tree(trace)["children"]


PROGRAM = """
import sys, time
from pyscope.probes.scope import Scope
import pyscope
pyscope.start({path}, modules=["__main__"], mode={mode!r}, ring_mb=8, probes=["auto"])
def work(n):
    with Scope("request", "GET /work"):
        if n: work(n - 1)
        else:
            print("ready", flush=True); time.sleep(600)
work(5)
"""


@pytest.mark.parametrize("mode", ["stream", "flight"])
def test_a_killed_process_is_shown_with_the_requests_that_it_was_at(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In flight mode there is no file: the ring that it left is loaded."""
    monkeypatch.setenv("PYSCOPE_RING_DIR", str(tmp_path))
    path = tmp_path / "run.pyscope"
    program = PROGRAM.format(path=repr(str(path)) if mode == "stream" else None, mode=mode)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    rings = list(tmp_path.glob("*.ring"))
    trace = pyscope.load(path if mode == "stream" else rings[0])
    for name, view in VIEWS.items():
        assert plain(view(trace)), name
    shown = requests.message(trace)["requests"]
    assert [row["outcome"] for row in shown] == ["open"] * 6
    assert source.source(trace)["state"] == "killed"
