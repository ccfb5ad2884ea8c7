"""Findings, supervision, state changes, losses and the description of a recording, as a page shows them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import pyscope
from pyscope.analysis.ranking import CORRUPTS, Ranked
from pyscope.events.supervision import CHILD
from pyscope.fallback.writer import Page, RecordingWriter
from pyscope.findings import Access, Race
from pyscope.format import LossReason
from pyscope.rows import Location
from pyscope.trace import Trace
from pyscope.views import findings, losses, requests, source, states, supervision
from tests.unit import shop


@pytest.fixture
def recording(shop_recording: Path) -> Path:
    return shop_recording


@pytest.fixture
def trace(shop_trace: Trace) -> Trace:
    return shop_trace


def test_findings_come_worst_first_with_place_and_cure(trace: Trace) -> None:
    message = findings.message(trace)
    severities = {row["kind"]: row["severity"] for row in message["findings"]}
    # on a busy machine there may be slow calls too
    wanted = [kind for kind in severities if kind in ("crash", "n_plus_one_query", "retry")]
    assert wanted == ["crash", "n_plus_one_query", "retry"]
    assert [severities[kind] for kind in wanted] == ["error", "warning", "info"]
    for row in message["findings"]:
        assert Path(row["where"]["file"]).name == "shop.py"
        assert row["title"]
        assert row["why"]
        assert row["cure"]
    assert message["total"] == len(message["findings"])
    cut = findings.message(trace, 1)
    assert (cut["total"], cut["findings"]) == (message["total"], message["findings"][:1])


def test_a_finding_of_queries_says_what_loaded_the_parents(trace: Trace) -> None:
    [row] = [row for row in findings.message(trace)["findings"] if row["kind"] == "n_plus_one_query"]
    details = row["details"]
    assert (details["relationship"], details["query_count"], details["parents"]) == ("Item.shop", 8, 8)
    assert "FROM items" in details["parent_statement"]
    assert details["scopes"] == shop.REQUESTS
    assert details["stack"][0]["function"] == "shops_of_items"
    assert row["scope"] in {one["id"] for one in requests.message(trace)["requests"]}


def test_a_retry_has_its_attempts_and_a_crash_its_reason(trace: Trace) -> None:
    by_kind = {row["kind"]: row["details"] for row in findings.message(trace)["findings"]}
    assert [attempt["status"] for attempt in by_kind["retry"]["attempts"]] == [503, 503, 200]
    assert by_kind["crash"]["reason"] == "OSError: the shop is closed"
    assert by_kind["crash"]["children"] == ["seller"]


def test_a_race_shows_both_sides() -> None:
    places = [Location("shop.py", line, "Till.add") for line in (3, 4)]
    accesses = tuple(
        Access(operation, thread, None, time, place, (place, Location("main.py", 1, "<module>")), 7)
        for operation, thread, time, place in (
            ("read", "first", 1_000_000, places[0]),
            ("write", "second", 2_000_000, places[1]),
        )
    )
    race = Race("lost_update", "Till.sum", accesses, "observed", "Both add.", "Hold a lock.")
    ranked = Ranked(
        "lost_update", CORRUPTS, 1, "lost update: Till.sum", places[1], "Both add.", "Lock.", 1, 10**6
    )
    found = [(ranked, [race])]
    [row] = findings.message(EMPTY, found=found)["findings"]
    assert (row["kind"], row["severity"], row["scope"]) == ("lost_update", "error", "7")
    assert (row["details"]["subject"], row["details"]["grade"]) == ("Till.sum", "observed")
    sides = row["details"]["accesses"]
    assert [(one["operation"], one["thread"], one["time_ms"]) for one in sides] == [
        ("read", "first", 1.0),
        ("write", "second", 2.0),
    ]
    assert [place["line"] for place in sides[0]["stack"]] == [3, 1]
    assert findings.by_scope(found) == {7: 1}


def test_of_a_race_of_many_accesses_the_first_and_the_last_are_shown_and_the_rest_counted() -> None:
    place = Location("shop.py", 3, "Till.add")
    accesses = tuple(Access("write", f"thread {n}", None, n * 1_000_000, place) for n in range(1, 15))
    race = Race("data_race", "Till.sum", accesses, "observed", "All add.", "Hold a lock.")
    ranked = Ranked("data_race", CORRUPTS, 1, "data race: Till.sum", place, "All add.", "Lock.", 1, 10**6)
    [row] = findings.message(EMPTY, found=[(ranked, [race])])["findings"]
    shown = [one["time_ms"] for one in row["details"]["accesses"]]
    assert shown == [1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 11.0, 12.0, 13.0, 14.0]
    assert row["details"]["accesses_left_out"] == 4


class _Empty:
    end_ns = 0


EMPTY: Trace = _Empty()  # type: ignore[assignment]


def test_ids_of_findings_do_not_change_from_one_process_to_the_next(recording: Path, trace: Trace) -> None:
    program = (
        "import json, sys, pyscope; from pyscope.views import findings, states, external\n"
        "t = pyscope.load(sys.argv[1])\n"
        "print(json.dumps([[r['id'] for r in findings.message(t)['findings']],"
        " [r['id'] for r in states.message(t)['changes']], [r['id'] for r in external.message(t)['calls']]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(recording)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    ids = json.loads(done.stdout)
    assert ids[0] == [row["id"] for row in findings.message(trace)["findings"]]
    assert ids[1] == [row["id"] for row in states.message(trace)["changes"]]
    every = [identity for kind in ids for identity in kind]
    assert len(set(every)) == len(every)


def test_state_changes_say_what_did_them(trace: Trace) -> None:
    first, last = states.message(trace)["changes"]
    assert (first["old"], first["new"], first["transition"]) == (None, "open", "order_open")
    assert (last["process"], last["attribute"], last["old"], last["new"]) == (
        "Order",
        "status",
        "open",
        "paid",
    )
    assert (last["trigger"], last["location"]["function"]) == ("Order.pay", "Order.pay")
    [till] = [row for row in requests.message(trace)["requests"] if row["name"] == "Till.pay"]
    assert last["scope"] == till["id"]
    assert states.message(trace, 1)["changes"] == [last]
    assert states.message(trace, since_ms=last["time_ms"] + 1)["changes"] == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**53, str(2**53)),
        (-(2**53) + 1, -(2**53) + 1),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (1.5, 1.5),
        (True, True),
        (None, None),
        ("\ud800\0", "?\ufffd"),
    ],
)
def test_values_are_what_json_and_javascript_can_hold(value: object, shown: object) -> None:
    found = states._value(value)  # type: ignore[arg-type]
    assert (type(found), found) == (type(shown), shown)


# --- supervision -----------------------------------------------------------------------------------


def supervised(path: Path, *events: tuple[str, str, str, str], pids: Sequence[int] = ()) -> Trace:
    """A recording of events (kind, supervisor, child, reason), a millisecond apart. `pids`: of the children."""
    writer = RecordingWriter(path / "run.pyscope")
    base = writer.clock()[0]
    page = Page(base)
    for at, (kind, supervisor, child, reason) in enumerate(events, 1):
        numbers = [-1, pids[at - 1] if pids else 0, *map(writer.string, (kind, supervisor, child)), 0]
        page.probe(base + at * 1_000_000, CHILD.kind, 0, numbers, [reason])
    writer.chunk(0, page.words, base_ticks=base, name="MainThread", os_tid=1)
    writer.close()
    return pyscope.load(path / "run.pyscope")


def test_a_supervisor_that_is_a_child_stands_below_its_own_supervisor(tmp_path: Path) -> None:
    trace = supervised(
        tmp_path,
        ("child_started", "app", "projects", ""),
        ("child_started", "projects", "worker 1", ""),
        ("child_started", "projects", "worker 2", ""),
        ("child_terminated", "projects", "worker 1", "KeyError: 'x'"),
        ("child_restarted", "projects", "worker 1", ""),
        ("child_terminated", "projects", "worker 2", "normal"),
    )
    message = supervision.message(trace)
    [app] = message["tree"]
    [projects] = app["children"]
    first, second = projects["children"]
    assert (first["name"], first["state"], first["restarts"], first["reason"]) == (
        "worker 1",
        "running",
        1,
        "KeyError: 'x'",
    )
    assert (second["state"], second["restarts"]) == ("terminated", 0)
    assert [event["kind"] for event in message["events"]][-2:] == ["child_restarted", "child_terminated"]
    assert supervision.message(trace, 1)["events"] == message["events"][-1:]
    assert supervision.message(trace, 0)["events"] == []


def test_a_supervisor_that_gave_up_has_failed_until_it_starts_children_again(tmp_path: Path) -> None:
    given_up = (
        ("child_started", "projects", "worker", ""),
        ("child_terminated", "projects", "worker", "OSError: no"),
        ("max_restarts_exceeded", "projects", "worker", "3 restarts in 5 s"),
    )
    [node] = supervision.message(supervised(tmp_path, *given_up))["tree"]
    assert (node["state"], node["reason"], node["children"][0]["state"]) == (
        "failed",
        "3 restarts in 5 s",
        "failed",
    )
    [node] = supervision.message(
        supervised(tmp_path, *given_up, ("child_restarted", "projects", "worker", ""))
    )["tree"]
    assert (node["state"], node["children"][0]["state"]) == ("running", "running")


def test_processes_of_one_name_stand_for_themselves_while_they_run_and_if_they_failed(tmp_path: Path) -> None:
    steps = (
        ("child_started", "", 1), ("child_started", "", 2), ("child_terminated", "exit code 1", 1),
        ("child_shutdown", "exit code 0", 2), ("child_started", "", 3), ("child_shutdown", "exit code 0", 3),
        ("child_started", "", 4), ("child_started", "", 2),
    )  # fmt: skip
    events = [(kind, "subprocess", "python", reason) for kind, reason, _ in steps]
    [node] = supervision.message(supervised(tmp_path, *events, pids=[pid for *_, pid in steps]))["tree"]
    assert [(child["name"], child["pid"], child["state"]) for child in node["children"]] == [
        ("python", 1, "failed"),
        ("python", 3, "shutdown"),
        ("python", 4, "running"),
        ("python", 2, "running"),
    ]


def test_supervisors_in_a_circle_are_told_all_the_same(tmp_path: Path) -> None:
    trace = supervised(
        tmp_path,
        ("child_started", "a", "b", ""),
        ("child_started", "b", "c", ""),
        ("child_started", "c", "a", ""),
        ("child_started", "d", "d", ""),
    )
    shown = shop.plain(supervision.message(trace)["tree"])
    assert all(f'"name": "{name}"' in shown for name in "abcd")


def test_of_very_many_children_those_that_failed_are_kept(tmp_path: Path) -> None:
    events = [("child_started", "asyncio", f"task {at}", "") for at in range(3000)]
    events[7] = ("child_terminated", "asyncio", "the one that failed", "ValueError: no")
    [node] = supervision.message(supervised(tmp_path, *events))["tree"]
    assert len(node["children"]) < 1000
    assert "the one that failed" in {child["name"] for child in node["children"]}
    assert node["children"][-1]["name"] == "task 2999"


# --- losses and the source -------------------------------------------------------------------------


def test_losses_are_told_in_words(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "run.pyscope")
    ticks = writer.clock()[0]
    writer.lost(LossReason.RING_FULL, 42, ticks, ticks + 1000)
    writer.close()
    [row] = losses.message(pyscope.load(tmp_path / "run.pyscope"))["rows"]
    assert (row["reason"], row["count"]) == ("the ring was full: drain or disk did not keep up", 42)
    assert row["end_ms"] >= row["start_ms"] > 0


def test_hello_says_what_is_looked_at_and_that_nothing_may_be_done(trace: Trace) -> None:
    message = source.hello(trace)
    assert message["source"]["name"] == "run.pyscope"
    assert (message["source"]["state"], message["source"]["recording"]) == ("stopped", False)
    assert (message["source"]["mode"], message["source"]["modules"]) == ("stream", ["tests.unit.shop"])
    [process] = message["source"]["processes"]
    assert process["pid"] == trace.processes[0].pid
    assert message["controls"]["read_only"]
    assert not any(value for name, value in message["controls"].items() if name != "read_only")
    named = source.hello(trace, kind="process", name="shop 7", controls={"read_only": False}, csrf="x")
    assert (named["source"]["kind"], named["source"]["name"], named["csrf"]) == ("process", "shop 7", "x")


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (
            ["/usr/bin/python", "-m", "pyscope", "run", "-o", "x", "-m", "shop", "serve", "--port", "1"],
            "shop serve",
        ),
        (["/usr/bin/python", "/srv/shop.py", "/srv/data"], "shop.py data"),
        (["/usr/bin/gunicorn", "shop:app"], "gunicorn shop:app"),
        (["/usr/bin/python", "-m", "pyscope", "run", "-o", "x", "/srv/shop.py", "tea"], "shop.py tea"),
        (["/usr/bin/python", "/usr/bin/pyscope", "run", "--modules", "*", "shop.py"], "shop.py"),
        (["python", "-m"], "process 7"),
        ([], "process 7"),
    ],
)
def test_processes_are_called_what_people_call_them(tmp_path: Path, argv: list[str], name: str) -> None:
    RecordingWriter(tmp_path / "run.pyscope", {"argv": argv}, pid=7).close()
    [process] = pyscope.load(tmp_path / "run.pyscope").processes
    assert source.process_name(process) == name
