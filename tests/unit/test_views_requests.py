"""Requests, their waterfalls, queries and calls to other services, as a page shows them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import pyscope
from pyscope.analysis import external as external_calls
from pyscope.events.scope import SCOPE_BEGIN, SCOPE_END
from pyscope.events.sql import STATEMENT
from pyscope.fallback.writer import Page, RecordingWriter
from pyscope.trace import Trace
from pyscope.views import external, findings, queries, requests, waterfall
from tests.unit import shop


@pytest.fixture
def trace(shop_trace: Trace) -> Trace:
    return shop_trace


def named(trace: Trace, name: str) -> dict[str, Any]:
    found = [row for row in requests.message(trace)["requests"] if row["name"] == name]
    assert isinstance(found[0], dict)
    return found[0]


def spans(trace: Trace, name: str, limit: int = waterfall.MOST_SPANS) -> list[dict[str, Any]]:
    found = waterfall.of_request(trace, named(trace, name)["id"], limit)
    assert found is not None
    return list(found["spans"])


def test_a_request_says_what_it_was_and_how_it_ended(trace: Trace) -> None:
    row = named(trace, "GET /items/{}")
    assert (row["kind"], row["route"], row["status"]) == ("request", "/items/{item}", 500)
    assert (row["outcome"], row["error"], row["parent"]) == ("raised", "LookupError", "")
    assert row["thread"] == "MainThread"
    assert trace.start_ns / 1e6 <= row["start_ms"] <= trace.end_ns / 1e6


def test_the_parts_of_a_requests_time_fit_into_it(trace: Trace) -> None:
    for row in requests.message(trace)["requests"]:
        parts = row["parts"]
        assert min(value for value in parts.values() if value is not None) >= 0
        told = sum(parts[name] for name in ("python_ms", "sql_ms", "external_ms", "lock_ms", "wait_ms"))
        assert told == pytest.approx(row["duration_ms"], abs=0.001)
    till = named(trace, "Till.pay")
    assert till["parts"]["external_ms"] > 0
    assert till["external"] == 3
    items = named(trace, "GET /items")
    assert items["parts"]["sql_ms"] > 0
    assert items["queries"] == 1 + shop.ITEMS


def test_what_a_driver_computes_counts_as_sql(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "run.pyscope")
    base = writer.clock()[0]
    page = Page(base)
    page.probe(base + 1_000_000, SCOPE_BEGIN.kind, 1, [1, 0, writer.string("request"), 0], [])
    statement = [1, 6_000_000, writer.string("SELECT 1"), 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    page.probe(base + 8_000_000, STATEMENT.kind, 1, statement, [])
    ended = [1, 10_000_000, 9_000_000, 200, 0, writer.string("returned"), 0]
    page.probe(base + 11_000_000, SCOPE_END.kind, 1, ended, [])
    writer.chunk(0, page.words, base_ticks=base, name="MainThread", os_tid=1)
    writer.close()
    [row] = requests.message(pyscope.load(tmp_path / "run.pyscope"))["requests"]
    parts = row["parts"]
    assert (parts["sql_ms"], parts["python_ms"], parts["wait_ms"], parts["cpu_ms"]) == (6, 4, 0, 9)


def test_the_last_requests_come_in_order_of_their_begin(trace: Trace) -> None:
    every = requests.message(trace)["requests"]
    assert len(every) == len(trace.scopes) == shop.REQUESTS + 3
    assert [row["start_ms"] for row in every] == sorted(row["start_ms"] for row in every)
    assert requests.message(trace, 2)["requests"] == every[-2:]
    assert requests.message(trace, 0)["requests"] == []
    since = every[-1]["start_ms"] + every[-1]["duration_ms"]
    assert requests.message(trace, since_ms=since - 0.001)["requests"][-1]["id"] in (
        every[-1]["id"],
        every[-2]["id"],
    )
    assert requests.message(trace, since_ms=since + 1000)["requests"] == []


def test_requests_count_their_findings(trace: Trace) -> None:
    counts = findings.by_scope(findings.find(trace))
    rows = requests.message(trace, findings=counts)["requests"]
    assert all(row["findings"] for row in rows if row["name"] == "GET /items")
    assert [row["findings"] for row in rows if row["name"] == "GET /items/{}"] == [0]


def test_the_requests_that_one_asks_for_come_first(trace: Trace) -> None:
    counts = findings.by_scope(findings.find(trace))
    rows = requests.notable(trace, 4, counts).tolist()
    names = [trace.scopes.at(row).name for row in rows]
    assert len(set(rows)) == 4
    assert "GET /items/{}" in names  # it failed
    assert "POST /orders" in names  # the slowest
    assert sorted(requests.notable(trace, 1000, counts).tolist()) == list(range(len(trace.scopes)))


def test_a_waterfall_is_a_tree_of_calls_statements_and_attempts(trace: Trace) -> None:
    found = spans(trace, "POST /orders")
    by_id = {span["id"]: span for span in found}
    assert found[0]["kind"] == "scope"
    assert found[0]["parent"] == 0
    for span in found[1:]:
        above = by_id[span["parent"]]
        assert span["depth"] == above["depth"] + 1
        assert span["id"] > above["id"]
    paths = {" > ".join(reversed(list(path(span, by_id)))) for span in found}
    assert "POST /orders > Till.pay > tests.unit.shop.pay > tests.unit.shop.Order.pay" in paths
    [call] = [span for span in found if span["kind"] == "external"]
    assert by_id[call["parent"]]["name"] == "tests.unit.shop.charge"
    attempts = [span for span in found if span["kind"] == "attempt"]
    assert [span["error"] for span in attempts] == ["HTTP 503", "HTTP 503", ""]
    assert all(span["parent"] == call["id"] for span in attempts)


def path(span: dict[str, Any], by_id: dict[int, dict[str, Any]]) -> Any:
    while True:
        yield span["name"]
        if not span["parent"]:
            return
        span = by_id[span["parent"]]


def test_what_another_thread_did_for_a_request_belongs_to_it(trace: Trace) -> None:
    found = spans(trace, "GET /items")
    [threaded] = [span for span in found if span["name"] == "tests.unit.shop.shops_of_items"]
    sent = [span for span in found if span["kind"] == "query"]
    assert len(sent) == 1 + shop.ITEMS
    assert {span["parent"] for span in sent} == {threaded["id"]}
    assert all(Path(span["location"]["file"]).name == "shop.py" for span in sent)
    # what its statements took is not the call's own
    assert threaded["self_ms"] <= threaded["duration_ms"] - sum(span["duration_ms"] for span in sent) + 0.01


def test_the_longest_spans_are_kept_and_hang_together(trace: Trace) -> None:
    every = spans(trace, "POST /orders")
    name = named(trace, "POST /orders")["id"]
    found = waterfall.of_request(trace, name, 10)
    assert found is not None
    kept = found["spans"]
    assert (len(kept), found["cut"]) == (10, len(every) - 10)
    assert min(span["duration_ms"] for span in kept) >= sorted(span["duration_ms"] for span in every)[-10]
    assert all(span["parent"] in {0, *(one["id"] for one in kept)} for span in kept)


def test_attempts_and_messages_that_a_waterfall_leaves_out_are_counted(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = named(trace, "POST /orders")["id"]
    every = spans(trace, "POST /orders")
    monkeypatch.setattr(waterfall, "_MOST_ATTEMPTS", 1)
    found = waterfall.of_request(trace, request)
    assert found is not None
    assert (found["cut"], len(found["spans"])) == (2, len(every) - 2)
    monkeypatch.setattr(waterfall, "_MOST_SCOPES", 1)
    found = waterfall.of_request(trace, request)
    assert found is not None
    assert found["cut"] == sum(span["kind"] == "scope" for span in every[1:]) == 1  # with all that is in it


@pytest.mark.parametrize("identity", ["", "0", "-1", "x", "9" * 30, "١٢", "1e3", "\0"])
def test_a_request_that_does_not_exist_has_no_waterfall(trace: Trace, identity: str) -> None:
    assert waterfall.of_request(trace, identity) is None


def test_equal_statements_are_one_row(trace: Trace) -> None:
    rows = queries.table(trace)["queries"]
    by_statement = {row["statement"]: row for row in rows}
    one = by_statement["SELECT shops.id FROM shops WHERE shops.id = ?"]
    assert one["count"] == (shop.REQUESTS + 1) * shop.ITEMS
    assert one["requests"] == shop.REQUESTS
    assert one["call_site"]["function"] == "shops_of_items"
    assert one["mean_ms"] == pytest.approx(one["total_ms"] / one["count"], abs=0.001)
    assert one["max_ms"] >= one["mean_ms"]
    totals = [row["total_ms"] for row in rows]
    assert totals == sorted(totals, reverse=True)
    assert queries.table(trace, 1) == {"total": len(rows), "queries": rows[:1]}


def test_a_call_to_another_service_has_its_attempts_and_waits(trace: Trace) -> None:
    calls = external.message(trace)["calls"]
    [call] = [call for call in calls if call["operation"] == "GET /charge"]
    assert (call["service"], call["operation"], call["outcome"]) == ("http", "GET /charge", "succeeded")
    assert (call["retries"], call["timed_out"], call["repeated_by"]) == (2, False, "loop")
    assert [attempt["status"] for attempt in call["attempts"]] == [503, 503, 200]
    assert [attempt["backoff_ms"] > 0 for attempt in call["attempts"]] == [False, True, True]
    assert call["scope"] == named(trace, "Till.pay")["id"]
    assert external.message(trace, found=external_calls.find(trace))["calls"] == [call]
    assert external.message(trace, since_ms=call["start_ms"] + 60_000)["calls"] == []


def test_of_many_calls_the_last_are_kept(trace: Trace) -> None:
    [call] = external_calls.find(trace)
    calls = [dataclasses.replace(call, start_ns=call.start_ns + at) for at in range(5)]
    rows = external.message(trace, found=calls)["calls"]
    assert len({row["id"] for row in rows}) == 5
    assert external.message(trace, 2, found=calls)["calls"] == rows[-2:]
    assert external.message(trace, 0, found=calls)["calls"] == []
