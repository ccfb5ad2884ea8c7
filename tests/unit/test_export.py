"""Exports for other programs: what is in the file is what was recorded, in the form that the program reads."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tracemalloc
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import pyscope
from pyscope import cli, export
from pyscope.errors import ExportError, RecordingNotFound
from pyscope.export.lanes import lanes
from pyscope.fallback.writer import Page, RecordingWriter
from pyscope.format import ContextKind, Kind
from pyscope.trace import Trace
from tests.unit import shop


@pytest.fixture
def recording(shop_recording: Path) -> Path:
    return shop_recording


@pytest.fixture
def trace(shop_trace: Trace) -> Trace:
    return shop_trace


@pytest.fixture
def interleaved(tmp_path: Path) -> Trace:
    """Two tasks that take turns, and a third one afterwards."""
    writer = RecordingWriter(tmp_path / "tasks.pyscope")
    work, inner, first, once = (writer.code("shop", name) for name in ("work", "inner", "first", "once"))
    base = writer.clock()[0]
    page = Page(base)
    for serial in (1, 2, 3):
        page.describe_context(base + serial, serial, 0, ContextKind.TASK, f"Task-{serial}")
    for at, context, kind, code in (
        (10, 1, Kind.CALL, work), (20, 2, Kind.CALL, work), (30, 1, Kind.CALL, inner), (40, 2, Kind.RETURN, work),
        (50, 1, Kind.RETURN, inner), (60, 1, Kind.RETURN, work), (70, 3, Kind.CALL, once), (80, 3, Kind.RETURN, once),
        (90, 0, Kind.CALL, first),
    ):  # fmt: skip
        page.event(base + at, Kind.SWITCH, 0, context)
        page.event(base + at, kind, code)
    page.event(base + 95, Kind.RETURN, first)
    writer.chunk(0, page.words, base_ticks=base, name="MainThread", os_tid=1)
    writer.close()
    return pyscope.load(tmp_path / "tasks.pyscope")


def test_in_a_lane_calls_only_nest(interleaved: Trace, outlived: Trace, trace: Trace) -> None:
    for one in (interleaved, outlived, trace):
        rows: list[int] = []
        for lane in lanes(one):
            around: list[tuple[int, int]] = []
            for row, start, end in lane.spans(one):
                rows.append(row)
                while around and around[-1][1] <= start:
                    around.pop()
                assert not around or around[-1][0] <= start <= end <= around[-1][1]
                around.append((start, end))
        assert sorted(rows) == list(range(len(one.calls)))


def test_a_long_lane_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tick() -> None:
        pass

    with pyscope.record(tmp_path / "long.pyscope", modules=[__name__]):
        for _ in range(300_000):
            tick()
    trace = pyscope.load(tmp_path / "long.pyscope")
    [lane] = lanes(trace)
    tracemalloc.start()
    try:
        deque(lane.spans(trace, "function", "outcome"), maxlen=0)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert used < 20e6  # all at once they take more than twice as much

    whole = [*lane.spans(trace, "function")]
    monkeypatch.setattr("pyscope.export.lanes._BATCH", 777)
    assert [*lane.spans(trace, "function")] == whole


def test_tasks_share_lanes_where_they_do_not_overlap(interleaved: Trace) -> None:
    found = {lane.name: len(lane.rows) for lane in lanes(interleaved)}
    assert found == {"MainThread": 1, "MainThread, tasks 1": 2, "MainThread, tasks 2": 2} or found == {
        "MainThread": 1,
        "MainThread, tasks 1": 3,
        "MainThread, tasks 2": 1,
    }


# --- chrome ----------------------------------------------------------------------------------------


def test_every_call_is_a_complete_event_of_a_timeline(trace: Trace, tmp_path: Path) -> None:
    told = json.loads(export.write(trace, "chrome", tmp_path / "t.json").read_text("utf-8"))
    calls = [event for event in told["traceEvents"] if event["ph"] == "X"]
    assert sorted(event["args"]["row"] for event in calls) == list(range(len(trace.calls)))
    begin = int(told["otherData"]["start_unix_ns"])
    for event in calls:
        call = trace.call(event["args"]["row"])
        assert (event["name"], event["cat"]) == (call.qualname, call.module)
        assert event["ts"] == pytest.approx((call.start_ns - begin) / 1e3, abs=0.002)
        assert event["dur"] <= call.duration_ns / 1e3 + 0.002
        assert event["args"].get("exception") == call.exception
    names = {event["args"]["name"] for event in told["traceEvents"] if event["name"] == "thread_name"}
    assert "MainThread" in names
    assert any("tasks" in name for name in names)


def test_requests_statements_and_calls_to_services_are_spans_with_an_end(
    trace: Trace, tmp_path: Path
) -> None:
    told = json.loads(export.write(trace, "perfetto", tmp_path / "t.json").read_text("utf-8"))["traceEvents"]
    begins, ends = ([(e["cat"], e["id"]) for e in told if e["ph"] == ph] for ph in "be")
    assert Counter(begins) == Counter(ends)
    assert set(Counter(begins).values()) == {1}
    categories = Counter(category for category, _ in begins)
    assert categories == {
        "request": shop.REQUESTS + 2,
        "message": 1,
        "sql": (shop.REQUESTS + 1) * (shop.ITEMS + 1),
        "external": 1,
    }
    assert any(event["ph"] == "C" and event["name"] == "memory (MB)" for event in told)


# --- speedscope ------------------------------------------------------------------------------------


def test_what_a_child_asks_of_other_services_is_in_its_own_row(tmp_path: Path) -> None:
    program = """
import http.server, os
import pyscope, urllib3
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
def ask(): urllib3.PoolManager().request("HEAD", f"http://127.0.0.1:{server.server_port}/", retries=False)
with pyscope.record("run.pyscope", modules=["__main__"], probes=["http"]):
    child = os.fork()
    if not child:
        ask()
        pyscope.stop()
        os._exit(0)
    server.handle_request()
    os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    trace = pyscope.load(tmp_path / "run.pyscope")
    events = json.loads(export.write(trace, "chrome").read_text())["traceEvents"]
    [begin] = [event for event in events if event["ph"] == "b" and event["cat"] == "external"]
    assert begin["pid"] == trace.processes[1].pid


def test_speedscope_opens_and_closes_every_frame_in_order(trace: Trace, tmp_path: Path) -> None:
    told = json.loads(export.write(trace, "speedscope", tmp_path / "s.json").read_text("utf-8"))
    frames = [frame["name"] for frame in told["shared"]["frames"]]
    opened = 0
    spent: Counter[str] = Counter()
    for profile in told["profiles"]:
        assert (profile["type"], profile["unit"]) == ("evented", "nanoseconds")
        times = [event["at"] for event in profile["events"]]
        assert times == sorted(times)
        assert (profile["startValue"], profile["endValue"]) == (times[0], times[-1])
        stack: list[tuple[int, int]] = []
        for event in profile["events"]:
            if event["type"] == "O":
                opened += 1
                stack.append((event["frame"], event["at"]))
            else:
                frame, at = stack.pop()
                assert frame == event["frame"]
                spent[frames[frame]] += event["at"] - at
        assert not stack
    assert opened == len(trace.calls)
    [charge] = trace.find(function="charge")
    assert spent["tests.unit.shop.charge"] == charge.duration_ns


# --- tables ----------------------------------------------------------------------------------------


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    elif path.suffix == ".parquet":
        yield from pyarrow.parquet.read_table(path).to_pylist()
    else:
        with pyarrow.memory_map(str(path)) as file:
            yield from pyarrow.ipc.open_file(file).read_all().to_pylist()


@pytest.mark.parametrize("form", ["csv", "parquet", "arrow"])
def test_a_table_has_a_row_for_every_call(trace: Trace, tmp_path: Path, form: str) -> None:
    rows = list(rows_of(export.write(trace, form, tmp_path / f"calls.{form}")))
    assert len(rows) == len(trace.calls)
    assert [int(row["start_ns"]) for row in rows] == trace.calls["start_ns"].tolist()
    assert [int(row["self_ns"]) for row in rows] == trace.calls["self_ns"].tolist()
    for row, call in zip(rows, map(trace.call, range(len(rows))), strict=True):
        assert row["function"] == f"{call.module}.{call.qualname}"
        assert (row["outcome"], row["thread"]) == (call.outcome, call.thread)
        assert (row["exception"] or None, row["context"] or None) == (call.exception, call.context)


def test_commas_quotes_and_line_ends_in_names_survive_csv(tmp_path: Path) -> None:
    name = 'a,"b"\r\nc\nd\te'
    writer = RecordingWriter(tmp_path / "run.pyscope")
    code = writer.code("shop", name)
    base = writer.clock()[0]
    page = Page(base)
    page.event(base + 1, Kind.CALL, code)
    page.event(base + 2, Kind.RETURN, code)
    writer.chunk(0, page.words, base_ticks=base, name=name, os_tid=1)
    writer.close()
    path = export.write(pyscope.load(tmp_path / "run.pyscope"), "csv")
    assert path == tmp_path / "run.csv"
    [row] = rows_of(path)
    assert (row["function"], row["thread"]) == (f"shop.{name}", name)


# --- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", export.FORMATS)
def test_a_recording_without_calls_is_exported_too(tmp_path: Path, form: str) -> None:
    RecordingWriter(tmp_path / "run.pyscope").close()
    path = export.write(pyscope.load(tmp_path / "run.pyscope"), form)
    assert path.stat().st_size > 0
    if path.suffix == ".json":
        json.loads(path.read_text())


def test_an_export_is_for_its_owner_alone_as_the_recording_is(trace: Trace, tmp_path: Path) -> None:
    (tmp_path / "open.csv").touch(0o666)
    for name in ("new.csv", "open.csv"):
        assert export.write(trace, "csv", tmp_path / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("there", [True, False])
def test_an_export_goes_where_a_link_points(trace: Trace, tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "calls.csv").touch()
    (tmp_path / "link").symlink_to("calls.csv")
    export.write(trace, "csv", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "calls.csv").read_text().startswith("function,module")


def test_another_format_is_refused_with_those_there_are(trace: Trace) -> None:
    with pytest.raises(ValueError, match="one of html, chrome, perfetto"):
        export.write(trace, "pdf")


def test_a_recording_is_never_overwritten_by_its_export(recording: Path, trace: Trace) -> None:
    before = recording.read_bytes()
    (recording.parent / "link").symlink_to(recording)
    for path in (recording, recording.parent / "link"):
        with pytest.raises(ExportError, match="the recording itself"):
            export.write(trace, "csv", path)
    assert recording.read_bytes() == before


def test_what_cannot_be_written_is_told_and_leaves_nothing(trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No such file or directory"):
        export.write(trace, "csv", tmp_path / "missing" / "calls.csv")
    (tmp_path / "calls.csv").write_text("before")
    broken = pyscope.load(trace.path)
    broken.__dict__["calls"] = {"function": np.zeros(1, np.int32)}
    with pytest.raises(KeyError):
        export.write(broken, "csv", tmp_path / "calls.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["calls.csv"]
    assert (tmp_path / "calls.csv").read_text() == "before"


@pytest.mark.parametrize("form", export.FORMATS)
def test_the_command_says_where_the_file_does_not_tell_what_is_missing(
    form: str, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.pyscope"
    cut.write_bytes(recording.read_bytes()[:-64])
    assert pyscope.load(cut).losses != []
    cli.main(["export", str(cut), "--to", form, "-o", str(tmp_path / "out")])
    assert ("misses is not in this file (1 loss)" in capsys.readouterr().err) is (
        form not in export.SHOWS_LOSSES
    )


def test_into_a_pipe_goes_the_export_alone(recording: Path, trace: Trace, tmp_path: Path) -> None:
    export.write(trace, "csv", tmp_path / "calls.csv")
    command = [sys.executable, "-m", "pyscope", "export", recording, "--to", "csv", "-o", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == (tmp_path / "calls.csv").read_bytes()


def test_the_command_says_where_it_wrote_and_how_much(recording: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyscope", "export", recording, "--to", "csv", "-o", tmp_path / "calls.csv"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'calls.csv'} (")
    assert len((tmp_path / "calls.csv").read_text().splitlines()) == 1 + len(pyscope.load(recording).calls)


def test_the_command_says_what_is_wrong(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(recording), "--to", "pdf"])
    assert ended.value.code == 2
    assert "'chrome'" in capsys.readouterr().err
    with pytest.raises(RecordingNotFound, match="there is no recording at"):
        cli.main(["export", str(tmp_path / "none.pyscope"), "--to", "csv"])
    with pytest.raises(ExportError, match="cannot write"):
        cli.main(["export", str(recording), "--to", "csv", "-o", str(tmp_path / "missing" / "x")])
