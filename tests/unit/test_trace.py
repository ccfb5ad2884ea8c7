"""The Trace: columns, calls one by one, finding, tables of other libraries, many contexts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import pyscope
from pyscope.errors import MissingExtra
from pyscope.fallback.writer import Page, RecordingWriter
from pyscope.format import CodeFlag, ContextKind, Kind
from pyscope.trace import OUTCOMES, Trace, load


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """shop.checkout calls shop.cart.Cart.total twice, the second in a task; open_file is a C function."""
    writer = RecordingWriter(
        tmp_path / "run.pyscope", {"ring_bytes": 5, "modules": ["shop.*"], "mode": "stream"}
    )
    checkout = writer.code("shop", "checkout", "shop/__init__.py", 3, 2, CodeFlag.COROUTINE)
    total = writer.code("shop.cart", "Cart.total", "shop/cart.py", 10, 1)
    opened = writer.code("io", "open_file", "", 0, 0, CodeFlag.C_FUNCTION)
    writer.code("shop", "unused", "shop/__init__.py", 9)
    error = writer.exception("shop.errors.EmptyCart")
    base = writer.clock()[0]
    page = Page(base)
    page.describe_context(base + 1, 8, 0, ContextKind.TASK, "Task-8")
    page.event(base + 10, Kind.CALL, checkout)
    page.event(base + 20, Kind.CALL, total)
    page.event(base + 25, Kind.C_CALL, opened)
    page.event(base + 27, Kind.C_RETURN, opened)
    page.event(base + 30, Kind.RETURN, total)
    page.event(base + 40, Kind.SWITCH, 0, 8)
    page.event(base + 50, Kind.CALL, total)
    page.event(base + 60, Kind.RAISE, total, error)
    page.event(base + 70, Kind.SWITCH, 0, 0)
    page.event(base + 80, Kind.RETURN, checkout)
    writer.chunk(0, page.words, base_ticks=base, name="MainThread", os_tid=1)
    writer.close()
    return load(tmp_path / "run.pyscope")


def test_columns_are_contiguous_arrays_of_equal_length(trace: Trace) -> None:
    for columns in (trace.calls, trace.events):
        for name in columns.keys():  # noqa: SIM118
            assert columns[name].flags.c_contiguous
            assert len(columns[name]) == len(columns)
    assert trace.calls["duration_ns"].dtype == np.int64
    assert "function" in trace.calls
    assert set(dict(trace.calls)) == set(trace.calls.keys())


def test_an_unknown_column_is_refused_with_those_there_are(trace: Trace) -> None:
    with pytest.raises(KeyError, match="there are function, start_ns"):
        trace.calls["durations"]


def test_a_call_reads_like_a_sentence(trace: Trace) -> None:
    call = trace.find(module="shop.cart", function="total")[1]
    assert (call.module, call.qualname, call.function, call.arity) == ("shop.cart", "Cart.total", "total", 1)
    assert (call.thread, call.context, call.outcome) == ("MainThread", "Task-8", "raised")
    assert (call.exception, call.depth) == ("shop.errors.EmptyCart", 0)
    assert call.duration_ns == 10


def test_parents_and_children_lead_to_one_another(trace: Trace) -> None:
    checkout = trace.find(function="checkout")[0]
    assert checkout.parent is None
    assert [child.function for child in checkout.children()] == ["total"]
    (opened,) = checkout.children()[0].children()
    assert opened.parent == checkout.children()[0]
    assert list(opened.children()) == []


def test_rows_are_counted_from_the_end_too_and_one_that_is_not_there_is_told(trace: Trace) -> None:
    count = len(trace.calls)
    for row in range(count):
        assert trace.call(row - count).index == row
        assert list(trace.call(row - count).children()) == list(trace.call(row).children())
    assert trace.call(trace.calls["duration_ns"].argmax()).duration_ns == trace.calls["duration_ns"].max()
    for row in (count, -count - 1):
        with pytest.raises(IndexError, match=f"the trace has {count} calls"):
            trace.call(row)


@pytest.mark.parametrize(
    ("module", "function", "count"),
    [
        ("shop.*", None, 3),
        ("shop", None, 1),
        ("shop.cart", None, 2),
        (None, "Cart.*", 2),
        ("sho?", "check*", 1),
        ("nothing.*", None, 0),
        (None, None, 4),
    ],
)
def test_find_takes_globs(trace: Trace, module: str | None, function: str | None, count: int) -> None:
    found = trace.find(module=module, function=function)
    assert len(found) == len(list(found)) == count
    assert len(found[1:]) == max(count - 1, 0)


def test_functions_carry_their_totals(trace: Trace) -> None:
    functions = {function.qualname: function for function in trace.functions}
    assert [functions[name].calls for name in ("checkout", "Cart.total", "open_file", "unused")] == [
        1,
        2,
        1,
        0,
    ]
    assert (functions["Cart.total"].total_ns, functions["Cart.total"].self_ns) == (20, 18)
    assert [function.kind for function in trace.functions] == [
        "coroutine",
        "function",
        "c_function",
        "function",
    ]
    assert functions["Cart.total"].name == "total"


def test_contexts_begin_with_the_thread_itself(trace: Trace) -> None:
    assert [(context.name, context.kind) for context in trace.contexts] == [
        ("", "thread"),
        ("Task-8", "task"),
    ]
    assert trace.contexts[-1].name == "Task-8"
    assert [context.name for context in trace.contexts[1:]] == ["Task-8"]
    with pytest.raises(IndexError):
        trace.contexts[2]


def test_the_settings_of_a_process_are_read(trace: Trace) -> None:
    (process,) = trace.processes
    assert (process.ring_bytes, process.modules, process.mode) == (5, ("shop.*",), "stream")
    assert trace.start_ns == process.start_ns
    assert trace.duration_ns == trace.end_ns - trace.start_ns > 0


def test_odd_settings_are_no_reason_to_fail(tmp_path: Path) -> None:
    RecordingWriter(tmp_path / "r", {"argv": "x", "ring_bytes": "many", "modules": None, "python": 3}).close()
    (process,) = load(tmp_path / "r").processes
    assert (process.argv, process.ring_bytes, process.modules, process.python) == ((), 0, None, "")


def test_an_empty_recording_is_an_empty_trace(tmp_path: Path) -> None:
    RecordingWriter(tmp_path / "r").close()
    trace = load(tmp_path / "r")
    assert (len(trace.calls), len(trace.events), trace.functions, trace.losses) == (0, 0, [], [])


def test_the_arrow_table_has_readable_names(trace: Trace) -> None:
    pytest.importorskip("pyarrow")
    table = trace.to_arrow()
    assert table.num_rows == 4
    assert table["function"].to_pylist()[:2] == ["shop.checkout", "shop.cart.Cart.total"]
    assert table["context"].to_pylist() == [None, None, None, "Task-8"]
    assert set(table["outcome"].to_pylist()) <= set(OUTCOMES)
    assert table["exception"].to_pylist()[-1] == "shop.errors.EmptyCart"
    assert table["duration_ns"].to_pylist() == trace.calls["duration_ns"].tolist()


def test_pandas_and_polars_have_the_same_rows(trace: Trace) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    frame, polars = trace.to_pandas(), trace.to_polars()
    assert frame["function"].tolist() == polars["function"].to_list()
    assert frame["self_ns"].sum() == polars["self_ns"].sum()
    assert frame["context"].isna().sum() == polars["context"].null_count() == 3


@pytest.mark.parametrize(
    ("method", "package", "extra"),
    [("to_arrow", "pyarrow", "arrow"), ("to_pandas", "pandas", "pandas"), ("to_polars", "polars", "polars")],
)
def test_a_missing_library_is_named_with_its_extra(
    trace: Trace, monkeypatch: pytest.MonkeyPatch, method: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'pyscope\[{extra}\]'"):
        getattr(trace, method)()


def test_many_pages_of_many_threads_are_all_there(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r")
    code = writer.code("m", "f")
    for thread in range(20):
        for _ in range(5):
            now = writer.clock()[0]
            page = Page(now)
            while page.room():
                now += 3
                page.event(now, Kind.CALL, code)
                now += 3
                page.event(now, Kind.RETURN, code)
            writer.chunk(thread, page.words, base_ticks=page.base_ticks, name=f"worker-{thread}")
    writer.close()
    trace = load(tmp_path / "r")
    assert trace.losses == []
    assert trace.functions[0].calls * 2 == trace.processes[0].events == writer.events
    assert {trace.threads[i].name for i in np.unique(trace.calls["thread"])} == {
        f"worker-{i}" for i in range(20)
    }
    starts = trace.calls["start_ns"]
    assert (np.diff(starts) >= 0).all()


def test_diagnose_says_what_it_takes() -> None:
    with pytest.raises(TypeError, match=r"pyscope.diagnose\(pyscope.load\(path\)\)"):
        pyscope.diagnose("run.pyscope")  # type: ignore[arg-type]
