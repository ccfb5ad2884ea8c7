"""What is told event by event equals what the views of the whole recording say."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recorded import Recorded

import pyscope
from pyscope.codec import preferred
from pyscope.events.supervision import CHILD
from pyscope.live.desk import Desk
from pyscope.live.following import Following
from pyscope.live.kept_events import KeptEvents
from pyscope.live.source import FileSource
from pyscope.views import external, requests, states, supervision


def of_call(row: dict[str, Any]) -> tuple[object, ...]:
    names = ("service", "operation", "peer", "client", "outcome", "retries", "timed_out", "repeated_by")
    attempts = tuple((one["outcome"], one["error"], one["status"]) for one in row["attempts"])
    return *(row[name] for name in names), attempts


def begun(path: Path, program: Recorded) -> Following:
    """A recording that begins, and who follows it."""
    program.record(path)
    source = FileSource(path)
    located = source.locate()
    assert located is not None
    return Following(source, located, preferred())


def followed(path: Path, program: Recorded, *expressions: str) -> Following:
    """Has things done one after another, and looks at random moments between and meanwhile."""
    following = begun(path, program)
    for expression in expressions:
        program.tell(f"threading.Thread(target=lambda: {expression}).start()")
        for _ in range(random.randint(1, 6)):
            following.step(time.time_ns())
            time.sleep(random.uniform(0, 0.01))
    program.tell("[thread.join() for thread in threading.enumerate()[1:]] and None")
    program.tell("pyscope.stop()")
    end = time.monotonic() + 60
    while following.alive:
        assert time.monotonic() < end
        following.step(time.time_ns())
    following.step(time.time_ns())
    return following


def test_calls_to_other_services_and_their_attempts_are_those_of_the_saved_recording(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        following = followed(
            path, program,
            "mails(4)",
            "call(outcomes='failed,timed_out,succeeded')",
            "call(outcomes='failed')",
            "call(service='redis', outcomes='succeeded,succeeded')",
            "call(outcomes='cancelled,succeeded')",
            "mails(3)",
        )  # fmt: skip
    found = {message["type"]: message for message in following.state(time.time_ns())}
    saved = external.message(pyscope.load(path))["calls"]
    assert Counter(map(of_call, found["external"]["calls"])) == Counter(map(of_call, saved))
    mails = [row for row in found["external"]["calls"] if row["service"] == "smtp"]
    assert [len(row["attempts"]) for row in mails] == [2] * 7
    assert {row["attempts"][1]["backoff_ms"] for row in mails} == {5.0}
    following.close()


def test_requests_states_and_supervision_are_those_of_the_saved_recording(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        following = followed(
            path, program,
            "requests(40, 3)",
            "one_request('GET /fails', 'no')",
            "change('open', 'assigned')",
            "child('child_started', 'a')",
            "child('child_terminated', 'a', 'ValueError: no')",
            "requests(30, 2)",
            "child('child_restarted', 'a')",
            "change('assigned', 'done')",
        )  # fmt: skip
    now = time.time_ns()
    found = {message["type"]: message for message in following.state(now)}
    trace = pyscope.load(path)
    differ_in_time = {"start_ms", "duration_ms", "parts"}

    def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = [{name: value for name, value in row.items() if name not in differ_in_time} for row in rows]
        return sorted(kept, key=lambda row: int(row["id"]))

    live, saved = found["traces"]["requests"], requests.message(trace)["requests"]
    assert len(live) == 40 * 3 + 30 * 2 + 1
    assert without_times(live) == without_times(saved)
    by_id = {row["id"]: row for row in saved}
    for row in live:
        assert row["parts"]["sql_ms"] == by_id[row["id"]]["parts"]["sql_ms"]
        assert abs(row["start_ms"] - by_id[row["id"]]["start_ms"]) < 50  # the clock becomes known better

    told = ("process", "attribute", "old", "new", "transition", "trigger", "key", "seen")
    assert [[row[name] for name in told] for row in found["state"]["changes"]] == [
        [row[name] for name in told] for row in states.message(trace)["changes"]
    ]
    [node] = found["supervision"]["tree"][0]["children"]
    assert (node["name"], node["restarts"], node["state"]) == ("a", 1, "running")
    assert [event["kind"] for event in found["supervision"]["events"]] == [
        event["kind"] for event in supervision.message(trace)["events"]
    ]
    following.close()


def test_events_that_are_come_upon_late_stand_in_order_of_time(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        for name in ("first", "second"):
            program.record(tmp_path / f"{name}.pyscope")
            program.tell("child('child_started', 'a')")
            program.tell("child('child_terminated', 'a')")
            program.tell("pyscope.stop()")
    kept = KeptEvents((CHILD,))
    for name in ("second", "first"):
        assert kept.take(pyscope.load(tmp_path / f"{name}.pyscope"))  # type: ignore[arg-type]
    told = kept.probe_events(CHILD)
    assert told["time_ns"].tolist() == sorted(told["time_ns"].tolist())
    assert told["reason"] == [""] * 4
    assert len(told) == 4


def test_a_request_that_takes_longer_than_two_thousand_others_is_kept_until_it_ends_and_counts(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        following = begun(path, program)

        def step_until(known: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
            end = time.monotonic() + 60
            while True:
                following.step(time.time_ns())
                rows: list[dict[str, Any]] = following.state(time.time_ns())[0]["requests"]
                if known(rows):
                    return rows
                assert time.monotonic() < end

        program.tell("globals().update(slow=Scope('request', 'GET /slow').enter())")
        step_until(lambda rows: len(rows) == 1)
        for _ in range(3):
            program.tell("requests(500, 2)")
            following.step(time.time_ns())
        program.tell("one_request('GET /last')")
        rows = step_until(lambda rows: rows[-1]["name"] == "GET /last")
        assert (rows[0]["name"], rows[0]["outcome"]) == ("GET /slow", "open")
        program.tell("slow.leave()")
        rows = step_until(lambda rows: rows[-1]["name"] == "GET /slow")
        assert rows[-1]["outcome"] == "returned"
    following.close()


def test_a_worker_s_jobs_count_as_a_service_s_requests_do(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        following = begun(path, program)
        end = time.monotonic() + 60
        told: dict[str, Any] = {}
        while not any(sample["throughput"] for sample in told.get("metrics", {}).get("samples", [])):
            assert time.monotonic() < end
            program.tell("[Scope('job', 'shop.count').enter().leave() for _ in range(10)] and None")
            following.step(time.time_ns())
            told = {message["type"]: message for message in following.state(time.time_ns())}
            time.sleep(0.05)
    following.close()


def test_all_findings_are_counted_of_which_the_worst_are_listed(tmp_path: Path) -> None:
    desk = Desk(1.0)
    with Recorded(tmp_path) as program:
        following = followed(
            tmp_path / "run.pyscope",
            program,
            "[child('child_terminated', 'worker', f'Error{number}') for number in range(230)]",
        )
        for _ in range(2):  # found again they are the same
            desk.find(following.snapshot, time.time_ns())
            end = time.monotonic() + 60
            while (found := desk.taken()) is None:
                assert time.monotonic() < end
                time.sleep(0.01)
            following.found(found)
        told = {message["type"]: message for message in following.state(time.time_ns())}["findings"]
    assert (told["total"], len(told["findings"])) == (230, 200)
    desk.close()
    following.close()


def test_a_request_of_a_child_that_is_killed_does_not_last(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        following = begun(path, program)
        program.tell(
            "(lambda pid: pid or (Scope('request', 'GET /dies').enter(), time.sleep(0.1), os.kill(os.getpid(), 9)))"
            "(os.fork())"
        )
        told: list[dict[str, Any]] = []
        end = time.monotonic() + 60
        while [process["state"] for process in following.described.get("processes", [])] != [
            "recording",
            "killed",
        ]:
            assert time.monotonic() < end
            messages, _ = following.step(time.time_ns())
            told += [row for one in messages if one["type"] == "traces" for row in one["requests"]]
            time.sleep(0.01)
        an_hour_later = time.time_ns() + 3_600_000_000_000
        [row] = following.state(an_hour_later)[0]["requests"]
        assert (row["name"], row["outcome"]) == ("GET /dies", "open")
        assert row["duration_ms"] == told[-1]["duration_ms"] < 60_000
    following.close()


def test_of_children_that_are_gone_no_names_are_kept_and_new_ones_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        following = begun(path, program)

        def step_until(count: int) -> None:
            end = time.monotonic() + 60
            while len(following.state(time.time_ns())[0]["requests"]) < count:
                assert time.monotonic() < end
                following.step(time.time_ns())
                time.sleep(0.005)

        for number in range(1, 4):
            program.tell("fork_and_work(10)")
            step_until(10 * number)
        following._window._most = 0
        program.tell("requests(5, 1)")
        step_until(35)
        end = time.monotonic() + 60
        while any(process.record.strings for process in following._follower.processes[1:]):
            assert time.monotonic() < end
            following.step(time.time_ns())
            time.sleep(0.01)
        program.tell("fork_and_work(10)")
        step_until(45)
        rows = following.state(time.time_ns())[0]["requests"]
        assert Counter(row["name"] for row in rows) == {"GET /child": 40, "GET /things": 5}
        assert len({row["pid"] for row in rows}) == 5
    following.close()
