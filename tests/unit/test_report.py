"""pyscope.analysis.summary and pyscope.report, fed a trace made by hand."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pyscope import report
from pyscope.analysis.counting import duration
from pyscope.analysis.summary import Summary, summarize
from pyscope.trace import OUTCOMES

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
MS = 1_000_000

Row = tuple[
    int, float, float, float, int, str, int
]  # function, start, took, self (s), parent, outcome, exception


def function(module: str, qualname: str, line: int) -> SimpleNamespace:
    return SimpleNamespace(
        module=module, qualname=qualname, file=f"/srv/{module}.py", line=line, calls=0, total_ns=0, self_ns=0
    )


def make_trace(rows: list[Row], *, processes: int = 1, losses: tuple[Any, ...] = ()) -> Any:
    functions = [
        function("shop", "main", 1),
        function("shop.orders", "OrderBook.match", 20),
        function("shop.orders", "price", 50),
        function("web", "handler.<locals>.inner", 7),
    ]
    columns: dict[str, Any] = {
        "function": np.array([row[0] for row in rows], np.int32),
        "start_ns": np.array([START + row[1] * SECOND for row in rows], np.int64),
        "duration_ns": np.array([row[2] * SECOND for row in rows], np.int64),
        "self_ns": np.array([row[3] * SECOND for row in rows], np.int64),
        "parent": np.array([row[4] for row in rows], np.int32),
        "outcome": np.array([OUTCOMES.index(row[5]) for row in rows], np.uint8),
        "exception": np.array([row[6] for row in rows], np.int32),
        "thread": np.zeros(len(rows), np.int32),
        "context": np.zeros(len(rows), np.int32),
        "depth": np.zeros(len(rows), np.int32),
    }
    for row in rows:
        functions[row[0]].calls += 1
        functions[row[0]].total_ns += int(row[2] * SECOND)
        functions[row[0]].self_ns += int(row[3] * SECOND)

    class Calls(dict[str, Any]):
        def __len__(self) -> int:
            return len(rows)

    return SimpleNamespace(
        start_ns=START,
        duration_ns=2 * SECOND if rows else 0,
        calls=Calls(columns),
        functions=functions,
        threads=[SimpleNamespace(process=index, name="MainThread") for index in range(processes)],
        contexts=[SimpleNamespace(kind="thread", name="MainThread")],
        exceptions=["builtins.ValueError", "shop.errors.OutOfStock"],
        processes=[
            SimpleNamespace(
                pid=100 + index,
                argv=["python", "-m", "shop"],
                python="3.12.1",
                backend="monitoring",
                state="stopped",
                events=2 * len(rows),
                file_bytes=6 * len(rows),
                drain_cpu_ns=3 * MS,
                ring_bytes=64 << 20,
            )
            for index in range(processes)
        ],
        losses=list(losses),
        scopes=[],
    )


ROWS: list[Row] = [
    (0, 0.0, 2.0, 0.1, -1, "returned", -1),
    (1, 0.1, 1.0, 0.7, 0, "returned", -1),
    (2, 0.2, 0.3, 0.3, 1, "returned", -1),
    (1, 1.2, 0.5, 0.2, 0, "raised", 1),
    (2, 1.3, 0.3, 0.3, 3, "raised", 1),
    (3, 1.8, 0.1, 0.1, 0, "raised", 0),
]


def printed(summary: Summary, width: int, *, encoding: str = "utf-8", terminal: bool = False) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="replace")
    report.render(
        summary,
        title="run.pyscope",
        console=Console(
            file=stream, width=width, force_terminal=terminal, color_system="truecolor" if terminal else None
        ),
    )
    stream.flush()
    return raw.getvalue().decode(encoding)


class TestSummary:
    def test_hottest_functions_come_by_self_and_by_total_time(self) -> None:
        summary = summarize(make_trace(ROWS))
        assert [row.name for row in summary.tables["self"]][:2] == [
            "shop.orders.OrderBook.match",
            "shop.orders.price",
        ]
        assert summary.tables["total"][0].name == "shop.main"
        assert summary.tables["total"][0].total_ns == 2 * SECOND

    def test_sort_asks_for_one_table(self) -> None:
        summary = summarize(make_trace(ROWS), sort="calls", limit=2)
        assert list(summary.tables) == ["calls"]
        assert [row.calls for row in summary.tables["calls"]] == [2, 2]

    def test_what_a_service_lives_in_is_no_slow_call(self) -> None:
        trace = make_trace(ROWS)
        trace.scopes = [SimpleNamespace()]
        assert [row.name for row in summarize(trace).slowest][:2] == [
            "shop.orders.OrderBook.match",
            "shop.orders.price",
        ]

    def test_the_slowest_call_of_each_function_is_listed_once(self) -> None:
        slowest = summarize(make_trace(ROWS)).slowest
        assert [(row.name, row.duration_ns) for row in slowest] == [
            ("shop.main", 2 * SECOND),
            ("shop.orders.OrderBook.match", SECOND),
            ("shop.orders.price", 300 * MS),
            ("web.handler.<locals>.inner", 100 * MS),
        ]
        assert slowest[3].exception == "builtins.ValueError"
        assert slowest[1].start_ns == 100 * MS

    def test_an_exception_counts_where_it_first_left_a_function(self) -> None:
        found = summarize(make_trace(ROWS)).exceptions
        assert {(row.exception, row.name, row.count) for row in found} == {
            ("shop.errors.OutOfStock", "shop.orders.price", 1),
            ("builtins.ValueError", "web.handler.<locals>.inner", 1),
        }

    @pytest.mark.parametrize("pattern", ["shop.orders.*", "OrderBook.match", "*price"])
    def test_function_narrows_every_list(self, pattern: str) -> None:
        summary = summarize(make_trace(ROWS), pattern=pattern)
        names = {row.name for row in summary.slowest} | {row.name for row in summary.exceptions}
        names |= {row.name for rows in summary.tables.values() for row in rows}
        assert names
        assert all(name.startswith("shop.orders.") for name in names)

    def test_cost_is_summed_over_processes(self) -> None:
        cost = summarize(make_trace(ROWS, processes=2)).cost
        assert cost.events == 24
        assert cost.bytes_per_event == 3.0
        assert cost.drain_cpu_ns == 6 * MS
        assert cost.ring_bytes == 128 << 20

    def test_it_is_plain_values(self) -> None:
        import json

        assert json.loads(json.dumps(summarize(make_trace(ROWS)).to_dict()))["calls"] == 6


class TestRendering:
    @pytest.mark.parametrize("width", [40, 80, 120, 200])
    @pytest.mark.parametrize("processes", [1, 30])
    @pytest.mark.parametrize("rows", [[], ROWS])
    def test_no_line_is_wider_than_the_terminal(self, width: int, processes: int, rows: list[Row]) -> None:
        text = printed(summarize(make_trace(rows, processes=processes)), width)
        assert max(map(len, text.splitlines())) <= width

    def test_40_columns_hold_names_and_times(self) -> None:
        table = printed(summarize(make_trace(ROWS)), 40).partition("Slowest")[0]
        assert "rderBook.match" in table
        assert "shop.main" in table

    def test_80_columns_hold_names_times_and_bars(self) -> None:
        text = printed(summarize(make_trace(ROWS)), 80)
        for expected in (
            "OrderBook.match",
            "900 ms",
            "████████",
            "OutOfStock",
            "ValueError",
            "Losses: none.",
        ):
            assert expected in text

    def test_tables_that_are_cut_say_so(self) -> None:
        text = printed(summarize(make_trace(ROWS), limit=1), 80)
        assert "by time in themselves (1 of 4)" in text
        assert "Slowest call of each function (1 of 4)" in text
        assert "first left a function (1 of 2)" in text
        assert " of 4)" not in printed(summarize(make_trace(ROWS)), 80)

    def test_a_pattern_that_nothing_matches_is_said(self) -> None:
        assert "No function that ran matches" in printed(summarize(make_trace(ROWS), pattern="nope.*"), 80)

    def test_long_names_keep_their_end(self) -> None:
        trace = make_trace(ROWS)
        trace.functions[1].module = "a_very_long_package_name." * 5 + "orders"
        assert "…" in printed(summarize(trace), 80)
        assert "OrderBook.match" in printed(summarize(trace), 80)

    def test_no_colour_where_there_is_no_terminal(self) -> None:
        assert "\x1b" not in printed(summarize(make_trace(ROWS)), 80)
        assert "\x1b[" in printed(summarize(make_trace(ROWS)), 80, terminal=True)

    def test_an_encoding_without_blocks_gets_plain_bars(self) -> None:
        assert "########" in printed(summarize(make_trace(ROWS)), 80, encoding="latin-1")

    def test_no_calls_are_explained(self) -> None:
        assert "No call was recorded" in printed(summarize(make_trace([])), 80)

    @pytest.mark.parametrize(
        ("command", "program"),
        [
            ("/opt/bin/python shop.py --fast", "python shop.py --fast"),
            ("/opt/bin/pyscope run --modules a,b -o x.pyscope --no-children shop.py 8", "python shop.py 8"),
            (
                "/opt/bin/python -m pyscope run --mode=flight -m shop.serve --port 80",
                "python -m shop.serve --port 80",
            ),
            ("pyscope run -- shop.py", "python -- shop.py"),
            ("python -m pyscope run", "python"),
            ("", ""),
        ],
    )
    def test_a_process_is_called_by_what_was_recorded_and_not_by_our_command(
        self, command: str, program: str
    ) -> None:
        assert report.program(command) == program

    def test_losses_are_shown(self) -> None:
        loss = SimpleNamespace(
            reason="ring_full",
            detail="",
            pid=100,
            count=12_345,
            start_ns=START + SECOND,
            end_ns=START + SECOND + MS,
        )
        text = printed(summarize(make_trace(ROWS, losses=(loss,))), 80)
        assert "12.3k" in text
        assert "the ring was full" in text


class TestUnits:
    @pytest.mark.parametrize(
        ("ns", "text"),
        [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1 µs"),
            (12_340, "12.3 µs"),
            (999_600, "1 ms"),
            (45 * SECOND, "45 s"),
            (599 * SECOND, "599 s"),
            (600 * SECOND, "10:00 min"),
            (3_723 * SECOND, "1:02:03"),
        ],
    )
    def test_durations(self, ns: int, text: str) -> None:
        assert duration(ns) == text

    @pytest.mark.parametrize(
        ("number", "text"), [(0, "0"), (999, "999"), (1_000, "1k"), (12_345, "12.3k"), (10_000_000, "10M")]
    )
    def test_counts(self, number: int, text: str) -> None:
        assert report.short_count(number) == text

    @pytest.mark.parametrize(
        ("number", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 << 20, "64 MiB")]
    )
    def test_sizes(self, number: int, text: str) -> None:
        assert report.size(number) == text
