"""Figures over time, the flame graph and the table of functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyscope
from pyscope.fallback.writer import Page, RecordingWriter
from pyscope.format import Kind, LossReason
from pyscope.trace import Trace
from pyscope.views import flame, functions, metrics
from tests.unit import shop

MS = 1_000_000


@pytest.fixture
def trace(shop_trace: Trace) -> Trace:
    return shop_trace


def test_samples_add_up_to_what_happened(trace: Trace) -> None:
    rows = metrics.samples(trace, 50)
    assert sum(row["calls_per_s"] for row in rows) / 20 == pytest.approx(len(trace.calls), abs=0.1)
    assert sum(row["events_per_s"] for row in rows) / 20 == pytest.approx(len(trace.events), abs=0.1)
    ended = (trace.scopes["status"] > 0).sum()  # requests; the message does not count as one
    assert sum(row["throughput"] for row in rows) / 20 == pytest.approx(ended)
    assert sum(row["errors_per_s"] for row in rows) / 20 == pytest.approx(1)
    assert {row["lost_events"] for row in rows} == {0}


def test_a_step_ends_with_its_last_nanosecond() -> None:
    edges = np.array([0, 100, 200], np.int64)
    times = np.array([0, 1, 100, 101, 200, 201], np.int64)
    assert metrics._bins(edges, times).tolist() == [-1, 0, 0, 1, 1, -1]
    assert metrics._counted(edges, times).tolist() == [2, 2]


def test_losses_are_counted_from_when_they_were_known(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "run.pyscope")
    base = writer.clock()[0]
    page = Page(base)
    page.event(base + 500 * MS, Kind.CALL, writer.code("shop", "work"))
    writer.chunk(0, page.words, base_ticks=base, name="MainThread", os_tid=1)
    writer.lost(LossReason.RING_FULL, 40, base + 100 * MS, base + 200 * MS)
    writer.lost(LossReason.STACK_GUARD, 2, base + 300 * MS, base + 400 * MS)
    writer.close()
    trace = pyscope.load(tmp_path / "run.pyscope")
    lost = [row["lost_events"] for row in metrics.samples(trace, 50)]
    assert lost == sorted(lost)
    assert set(lost) == {0, 40, 42}
    whole = metrics.whole(trace)
    assert whole is not None
    assert whole["lost_events"] == 42


def test_samples_follow_one_another_at_round_times(trace: Trace) -> None:
    times = [row["at_ms"] for row in metrics.samples(trace, 100)]
    assert set(np.diff(times)) == {100.0}
    assert all(time % 100 == 0 for time in times)
    assert times[0] - 100 <= trace.start_ns / 1e6 <= times[0]
    assert times[-1] - 100 <= trace.end_ns / 1e6 <= times[-1]
    assert metrics.samples(trace, 100, since_ms=times[-2]) == metrics.samples(trace, 100)[-1:]


def test_latencies_are_of_the_requests_that_ended_then(trace: Trace) -> None:
    durations = (trace.scopes["end_ns"] - trace.scopes["start_ns"]) / 1e6
    known = set(np.round(durations, 4).tolist())
    rows = [row for row in metrics.samples(trace, 50) if row["throughput"]]
    assert rows
    for row in rows:
        assert {row["p50_ms"], row["p90_ms"], row["p99_ms"]} <= known
        assert row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert all(row["p50_ms"] is None for row in metrics.samples(trace, 50) if not row["throughput"])


def test_samples_say_what_each_process_uses(trace: Trace) -> None:
    rows = [row for row in metrics.samples(trace, 100) if row["memory_bytes"] is not None]
    assert rows
    processes = {
        process["pid"]: process for process in rows[-1]["processes"]
    }  # other tests' servers among them
    assert processes[trace.processes[0].pid]["memory_bytes"] > 1 << 20
    assert rows[-1]["process_count"] == len(processes)
    assert rows[-1]["memory_bytes"] == sum(process["memory_bytes"] for process in processes.values())
    assert rows[-1]["peak_memory_bytes"] >= rows[-1]["memory_bytes"]
    assert all(row["overhead_percent"] >= 0 for row in rows)


def test_of_many_processes_those_with_the_most_memory_are_listed_and_all_are_counted(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_MOST_PROCESSES", 0)
    whole = metrics.whole(trace)
    assert whole is not None
    assert (whole["processes"], whole["process_count"] > 0) == ([], True)


def test_the_whole_is_one_sample_of_all_the_time(trace: Trace) -> None:
    whole = metrics.whole(trace)
    assert whole is not None
    seconds = trace.duration_ns / 1e9
    assert whole["calls_per_s"] * seconds == pytest.approx(len(trace.calls), rel=0.01)
    assert whole["throughput"] * seconds == pytest.approx(shop.REQUESTS + 2, rel=0.01)
    known = [row["memory_bytes"] for row in metrics.samples(trace, 100) if row["memory_bytes"] is not None]
    assert whole["memory_bytes"] == known[-1]
    assert whole["peak_memory_bytes"] >= whole["memory_bytes"]
    assert whole["at_ms"] == pytest.approx(trace.end_ns / 1e6)


def test_there_are_never_more_samples_than_the_page_keeps(trace: Trace) -> None:
    assert len(metrics.samples(trace, 0.5)) == metrics.MOST_SAMPLES
    assert len(metrics.message(trace)["samples"]) <= 301


@pytest.mark.parametrize("step", [0, -1, float("nan")])
def test_a_step_that_goes_nowhere_is_refused(trace: Trace, step: float) -> None:
    with pytest.raises(ValueError, match="must be more than 0"):
        metrics.samples(trace, step)


# --- flame -----------------------------------------------------------------------------------------


@pytest.fixture
def nested(tmp_path: Path) -> Trace:
    """Two threads: main calls load (30 ms) and twice draw (10 ms each), which calls line (4 ms); then load alone."""
    writer = RecordingWriter(tmp_path / "run.pyscope", {"modules": ["shop.*"]})
    main, load, draw, line = (
        writer.code("shop", name, "shop.py", at)
        for at, name in enumerate(("main", "load", "draw", "line"), 1)
    )
    base = writer.clock()[0]
    begun = base + 2 * MS
    page = Page(base)

    def call(code: int, start: int, end: int, *inside: tuple[int, int, int]) -> None:
        page.event(begun + start * MS, Kind.CALL, code)
        for one in inside:
            call(*one)
        page.event(begun + end * MS, Kind.RETURN, code)

    page.event(begun, Kind.CALL, main)
    call(load, 10, 40)
    call(draw, 40, 50, (line, 42, 46))
    call(draw, 50, 60, (line, 52, 56))
    page.event(begun + 100 * MS, Kind.RETURN, main)
    writer.chunk(0, page.words, base_ticks=base, name="MainThread", os_tid=1)
    other = Page(base)
    other.event(begun, Kind.CALL, load)
    other.event(begun + 50 * MS, Kind.RETURN, load)
    writer.chunk(1, other.words, base_ticks=base, name="loader", os_tid=2)
    writer.close()
    return pyscope.load(tmp_path / "run.pyscope")


def flat(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for child in node["children"]:
        name = f"{path}/{child['name'].removeprefix('shop.')}"
        yield name, child
        yield from flat(child, name)


def test_equal_paths_are_merged_over_threads(nested: Trace) -> None:
    root = flame.tree(nested)
    found = {path: (node["value"], node["self_ms"], node["calls"]) for path, node in flat(root)}
    assert found == {
        "/main": (100, 50, 1),
        "/main/load": (30, 30, 1),
        "/main/draw": (20, 12, 2),
        "/main/draw/line": (8, 8, 2),
        "/load": (50, 50, 1),
    }
    assert (root["name"], root["value"]) == ("all", 150)
    assert root["children"][0]["location"] == {"file": "shop.py", "line": 1, "function": "main"}


def test_calls_are_clipped_to_the_window(nested: Trace) -> None:
    begun = nested.calls["start_ns"].min() / 1e6
    root = flame.tree(nested, begun + 30, begun + 55)
    found = {path: (node["value"], node["calls"]) for path, node in flat(root)}
    assert found["/main"] == (pytest.approx(25, abs=0.01), 1)
    assert found["/main/load"] == (pytest.approx(10, abs=0.01), 1)
    assert found["/main/draw/line"] == (pytest.approx(7, abs=0.01), 2)
    assert found["/load"] == (pytest.approx(20, abs=0.01), 1)
    assert root["window"]["to_ms"] - root["window"]["from_ms"] == pytest.approx(25, abs=0.01)
    assert flame.tree(nested, begun + 5000, begun + 6000)["children"] == []
    assert flame.tree(nested, begun + 50, begun + 20)["value"] == 0


def test_what_is_too_small_to_see_is_folded(nested: Trace) -> None:
    root = flame.tree(nested, least_share=0.1)
    found = dict(flat(root))
    assert found["/main/draw/…"]["value"] == 8
    assert found["/main/draw/…"]["calls"] == 2
    assert "/main/draw/line" not in found


def test_generators_belong_to_the_call_that_began_them_as_long_as_it_lasts(outlived: Trace) -> None:
    found = {path: node["value"] for path, node in flat(flame.tree(outlived))}
    assert found == {"/first": 35 + 28, "/first/odd": 35, "/first/even": 28, "/second": 50}


def test_a_caller_is_never_narrower_than_what_it_called(trace: Trace) -> None:
    def check(node: dict[str, Any]) -> None:
        assert sum(child["value"] for child in node["children"]) <= node["value"] + 0.01
        for child in node["children"]:
            check(child)

    check(flame.tree(trace))
    check(flame.tree(trace, trace.start_ns / 1e6 + 20, trace.start_ns / 1e6 + 400))


def test_deep_recursion_ends_at_a_depth_that_a_browser_reads(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "deep.pyscope")
    code = writer.code("shop", "again", "shop.py", 1)
    base = writer.clock()[0]
    page = Page(base)
    for at in range(1000):
        page.event(base + at, Kind.CALL, code)
    for at in range(1000):
        page.event(base + 1_000_000 + at, Kind.RETURN, code)
    writer.chunk(0, page.words, base_ticks=base, name="MainThread", os_tid=1)
    writer.close()
    paths = [path for path, _ in flat(flame.tree(pyscope.load(tmp_path / "deep.pyscope")))]
    assert max(path.count("/") for path in paths) == flame.DEEPEST


# --- functions -------------------------------------------------------------------------------------


def test_functions_come_in_the_order_asked_for(trace: Trace) -> None:
    by_calls = functions.table(trace, "calls")["functions"]
    assert by_calls[0]["qualname"] == "price"
    assert by_calls[0]["calls"] == 200
    for order, key in (("self", "self_ms"), ("total", "total_ms")):
        values = [row[key] for row in functions.table(trace, order)["functions"]]
        assert values == sorted(values, reverse=True)
    assert sum(row["share"] for row in functions.table(trace)["functions"]) == pytest.approx(1, abs=0.001)


def test_functions_are_found_by_name_and_file_in_any_case(trace: Trace) -> None:
    found = functions.table(trace, pattern="ORDER.pay")
    assert (found["total"], [row["qualname"] for row in found["functions"]]) == (1, ["Order.pay"])
    assert functions.table(trace, pattern="/unit/shop.py")["total"] == functions.table(trace)["total"]
    assert functions.table(trace, pattern="no such function") == {"total": 0, "functions": []}
    limited = functions.table(trace, limit=1)
    assert (len(limited["functions"]), limited["total"]) == (1, functions.table(trace)["total"])


def test_an_order_that_does_not_exist_is_refused_with_those_that_do(trace: Trace) -> None:
    with pytest.raises(ValueError, match="one of self, total, calls"):
        functions.table(trace, "name")
