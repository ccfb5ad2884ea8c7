"""The stand-alone dashboard: what a page is told of a living process, of one that died, and of what is no recording."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from recorded import Recorded
from viewing import TOKEN, Page, served, wait_until

import pyscope
from pyscope import cli
from pyscope.errors import PyScopeError
from pyscope.live.mounting import Dashboard
from pyscope.live.source import source_of


@contextmanager
def looking_at(target: Path | int | str) -> Iterator[Page]:
    dashboard = Dashboard(source_of(str(target)), TOKEN)
    try:
        with served(dashboard.app) as port, Page(port) as page:
            yield page
    finally:
        dashboard.close()


def test_a_request_of_another_process_appears_with_where_its_time_went(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        with looking_at(program.pid) as page:
            page.hear_type("hello")
            page.hear(lambda: page.last["hello"]["source"]["state"] == "recording")
            assert page.last["hello"]["source"]["kind"] == "process"
            assert page.last["hello"]["controls"] == {
                "read_only": False, "start": False, "stop": False, "dump": False, "download": True
            }  # fmt: skip
            identity = program.tell("one_request('GET /things/7')")
            page.hear(lambda: page.requests.get(identity, {}).get("outcome") == "returned")
            row = page.requests[identity]
            assert (row["name"], row["route"], row["status"]) == ("GET /things/7", "/things", 200)
            assert (row["queries"], row["parts"]["sql_ms"]) == (1, 1.0)
            assert row["pid"] == program.pid
            assert all(value is None or value >= 0 for value in row["parts"].values())
            assert abs(time.time() * 1e3 - row["start_ms"]) < 60_000


def test_the_waterfall_of_a_live_request_holds_its_calls_and_queries(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        with looking_at(program.pid) as page:
            page.hear_type("hello")
            identity = program.tell("one_request()")
            page.hear(lambda: identity in page.requests)
            found = page.http.get(f"/api/requests/{identity}").json()
            names = {span["name"] for span in found["spans"]}
            assert any("work" in name for name in names)
            assert any(span["kind"] == "query" and "SELECT things" in span["name"] for span in found["spans"])
            assert found["request"]["id"] == identity


def test_flame_graph_functions_and_queries_of_a_living_process_are_answered(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        with looking_at(program.pid) as page:
            program.tell("requests(20, 1)")
            page.hear(lambda: len(page.requests) >= 20)
            functions = page.http.get("/api/functions", params={"filter": "work"}).json()["functions"]
            assert functions[0]["qualname"] == "work"
            assert functions[0]["calls"] == 120
            assert page.http.get("/api/queries").json()["queries"][0]["count"] == 20
            assert page.http.get("/api/queries").json()["since_ms"] is None  # all is kept
            flame = page.http.get("/api/flame").json()
            assert flame["name"] == "all"
            assert flame["children"]


def test_a_wrong_question_is_answered_with_4xx_and_a_reason(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        with looking_at(program.pid) as page:
            page.hear_type("hello")
            for question, status in (
                ("functions?order=worst", 400),
                ("functions?limit=-1", 400),
                ("functions?limit=many", 400),
                ("flame?from_ms=nan", 400),
                ("flame?to_ms=-5", 400),
                ("requests/12345", 404),
                ("requests/x", 404),
                ("requests/" + "9" * 5000, 404),
            ):
                answer = page.http.get(f"/api/{question}")
                assert answer.status_code == status, question
                assert answer.json()["error"]


def test_state_supervision_and_external_calls_are_told_as_they_happen(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        with looking_at(program.pid) as page:
            page.hear_type("hello")
            program.tell("change('open', 'assigned')")
            page.hear(lambda: page.changes)
            assert page.changes[0]["transition"] == "task_assigned"
            assert (page.changes[0]["old"], page.changes[0]["new"]) == ("open", "assigned")
            program.tell(
                "child('child_started', 'worker'), child('child_terminated', 'worker', 'ValueError: no')"
            )
            page.hear(lambda: page.hear_type("supervision")["tree"])
            program.tell("child('child_restarted', 'worker')")
            page.hear(lambda: page.last["supervision"]["tree"][0]["children"][0]["restarts"] == 1)
            assert [event["kind"] for event in page.last["supervision"]["events"]] == [
                "child_started", "child_terminated", "child_restarted"
            ]  # fmt: skip
            program.tell("call(outcomes='failed,failed,succeeded')")
            page.hear(lambda: any(call["retries"] == 2 for call in page.calls.values()))
            [call] = page.calls.values()
            assert [attempt["outcome"] for attempt in call["attempts"]] == ["failed", "failed", "succeeded"]
            assert (call["outcome"], call["repeated_by"]) == ("succeeded", "loop")


def test_findings_come_within_seconds_and_stay(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        with looking_at(program.pid) as page:
            page.hear_type("findings")
            program.tell("child('child_terminated', 'worker', 'ValueError: no')")
            page.hear(lambda: page.last["findings"]["findings"])
            [finding] = page.last["findings"]["findings"]
            assert finding["kind"] == "crash"
            assert finding["severity"] == "error"


def test_figures_come_every_second_and_a_newcomer_gets_those_of_before(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        with looking_at(program.pid) as page:
            page.hear_type("hello")
            program.tell("requests(30, 1)")
            page.hear(lambda: any(sample["throughput"] > 0 for sample in page.samples))
            page.hear(lambda: any(sample["cpu_percent"] is not None for sample in page.samples))
            sample = page.samples[-1]
            assert sample["memory_bytes"] > 0
            assert sample["processes"][0]["pid"] == program.pid
            with Page(int(page.address.rpartition(":")[2])) as second:
                second.hear_type("metrics")
                assert len(second.samples) >= 2


def test_a_process_that_dies_is_said_to_and_what_it_did_stays_to_be_seen(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        with looking_at(program.pid) as page:
            page.hear_type("hello")
            identity = program.tell("one_request('GET /last')")
            page.hear(lambda: identity in page.requests)
            program.kill()
            page.hear(lambda: page.state == "lost")
            page.hear(lambda: page.last["hello"]["source"]["state"] == "killed")
            assert not page.last["hello"]["source"]["recording"]
            assert page.http.get(f"/api/requests/{identity}").status_code == 200


def test_a_process_that_died_is_said_to_also_when_its_ring_was_sealed_before_that_was_seen(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        dashboard = Dashboard(source_of(str(path)), TOKEN)
        try:
            with served(dashboard.app) as port, Page(port) as page:
                page.hear(lambda: page.state == "live")
                with dashboard.feed._guard:  # it does not look meanwhile
                    program.kill()
                    pyscope.recover(path)
                page.hear(lambda: page.state in ("ended", "lost"))
                assert page.state == "lost"
                assert page.last["hello"]["source"]["state"] == "recovered"
        finally:
            dashboard.close()


def test_a_recording_that_is_stopped_is_said_to_have_ended(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        with looking_at(tmp_path / "run.pyscope") as page:
            page.hear(lambda: page.state == "live")
            program.end()
            page.hear(lambda: page.state == "ended")
            page.hear(lambda: page.last["hello"]["source"]["state"] == "stopped")


def test_a_new_recording_at_the_same_path_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        with looking_at(path) as page:
            first = program.tell("one_request('GET /first')")
            page.hear(lambda: first in page.requests)
            program.tell("pyscope.stop()")
            page.hear(lambda: page.state == "ended")
            program.record(path)
            second = program.tell("one_request('GET /second')")
            page.hear(lambda: second in page.requests)
            page.hear(lambda: page.state == "live")


def test_a_finished_recording_is_shown_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        program.tell("requests(25, 2), change('open', 'done'), call(outcomes='failed')")
        program.end()
    with looking_at(path) as page:
        page.hear(lambda: page.state == "ended")
        page.hear(lambda: len(page.requests) == 51)
        assert page.hear_type("hello")["source"]["state"] == "stopped"
        assert page.hear_type("findings")["total"] >= 1
        page.hear(lambda: page.changes and page.calls and page.samples)
        identity = next(iter(page.requests))
        assert page.http.get(f"/api/requests/{identity}").json()["request"]["id"] == identity
        assert page.http.get("/api/download").content == path.read_bytes()


def test_of_a_finished_recording_the_requests_are_listed_that_one_would_ask_for(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        program.tell("one_request('GET /fails', 'no')")
        program.tell("requests(700, 3)")
        program.end()
    with looking_at(path) as page:
        page.hear(lambda: page.state == "ended")
        told = page.hear_type("traces")
        assert (len(told["requests"]), told["total"]) == (2000, 2101)
        assert told["requests"][0]["name"] == "GET /fails"


def test_a_recording_that_replaces_a_finished_one_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        program.tell("one_request('GET /before')")
        program.tell("pyscope.stop()")
        with looking_at(path) as page:
            page.hear(lambda: page.state == "ended" and page.requests)
            program.record(path)
            identity = program.tell("one_request('GET /after')")
            page.hear(lambda: identity in page.requests)
            assert page.state == "live"


def test_the_newest_recording_of_a_folder_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    with Recorded(tmp_path) as program:
        for name in ("old", "new"):
            program.record(folder / f"{name}.pyscope")
            program.tell(f"one_request('GET /{name}')")
            program.tell("pyscope.stop()")
            time.sleep(0.02)
    with looking_at(folder) as page:
        page.hear(lambda: page.requests)
        assert [row["name"] for row in page.requests.values()] == ["GET /new"]


def test_a_flight_recorder_is_dumped_from_the_page_and_downloaded(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(None, mode="flight")
        with looking_at(program.pid) as page:
            identity = program.tell("one_request('GET /flight')")
            page.hear(lambda: identity in page.requests)
            page.hear(lambda: page.last["hello"]["controls"]["dump"])
            answer = page.control("dump")
            assert answer.status_code == 200, answer.text
            dumped = Path(answer.json()["message"].removeprefix("written to "))
            assert int(identity) in pyscope.load(dumped).scopes["id"].tolist()
            shutil.rmtree(dumped.parent)
            (tmp_path / "fetched.pyscope").write_bytes(page.http.get("/api/download").content)
            assert int(identity) in pyscope.load(tmp_path / "fetched.pyscope").scopes["id"].tolist()
            refused = page.control("stop")
            assert refused.status_code == 409
            assert "mounted" in refused.json()["error"]


def test_a_recording_of_another_version_is_a_clear_message_on_the_page(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        program.end()
    data = bytearray(path.read_bytes())
    data[6] = 99
    path.write_bytes(data)
    with looking_at(path) as page:
        page.hear(lambda: page.state == "error")
        assert "version" in page.last["status"]["message"]
        assert page.http.get("/api/functions").status_code == 409


def test_a_file_that_appears_later_is_taken_up_then(tmp_path: Path) -> None:
    path = tmp_path / "later.pyscope"
    with looking_at(path) as page:
        page.hear(lambda: page.state == "error")
        assert "there is no recording" in page.last["status"]["message"]
        with Recorded(tmp_path) as program:
            program.record(path)
            identity = program.tell("one_request()")
            page.hear(lambda: identity in page.requests)


def test_hostile_names_are_data_in_every_message_and_answer(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        with looking_at(program.pid) as page:
            page.hear_type("hello")
            program.tell("hostile()")
            page.hear(lambda: any(row["outcome"] == "raised" for row in page.requests.values()))
            [row] = page.requests.values()
            assert row["name"] == "GET /<script>alert(1)</script>"
            waterfall = page.http.get(f"/api/requests/{row['id']}")
            assert waterfall.headers["content-type"] == "application/json"
            assert waterfall.headers["x-content-type-options"] == "nosniff"
            assert any("onerror" in span["name"] for span in waterfall.json()["spans"])
            assert page.http.get("/api/functions?filter=onerror").json()["total"] == 1
            assert page.http.get("/api/queries").json()["queries"][0]["statement"].isprintable()


# --- the command ---------------------------------------------------------------------------------


def run_live(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pyscope", "live", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_the_command_says_what_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a recording at all")
    (tmp_path / "empty").mkdir()
    for target, said in (
        (str(tmp_path / "none.pyscope"), "there is no recording at"),
        (str(tmp_path / "empty"), "there is no recording in"),
        ("4194300", "there is no process 4194300"),
        (str(os.getpid()), "is not being recorded"),
        (str(tmp_path / "text"), "is not a recording"),
    ):
        with pytest.raises(PyScopeError, match=said):
            cli.main(["live", target])


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "websockets"])
def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(
    tmp_path: Path, package: str
) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from pyscope.__main__ import main; main()"
    process = subprocess.run(
        [sys.executable, "-c", code, "live", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.returncode == 2
    assert f"needs the package '{package}'" in process.stderr
    assert "pyscope[live]" in process.stderr


def test_an_address_that_is_taken_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program, socket.socket() as taken:
        program.record(path)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PyScopeError, match="cannot be had: Address already in use"):
            cli.main(["live", str(path), "--port", str(taken.getsockname()[1])])


def test_the_command_prints_one_address_that_opens_the_page_and_ends_at_sigint(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        process = run_live(str(path))
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        base, _, token = address.partition("?token=")
        assert len(token) > 40
        page = Page(int(base.rstrip("/").rpartition(":")[2]), token=token)
        assert page.hear_type("hello")["source"]["name"] == "run.pyscope"
        page.close()
        process.send_signal(2)
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors
        assert not errors.strip()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_it_listens_on_loopback_and_elsewhere_only_if_told_with_a_warning(tmp_path: Path, host: str) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        process = run_live(str(path), *(() if host == "127.0.0.1" else ("--host", host)))
        assert process.stdout is not None
        assert process.stdout.readline().split()[-1].startswith(f"http://{host}:")
        bound = {
            one.laddr.ip for one in psutil.Process(process.pid).net_connections() if one.status == "LISTEN"
        }
        process.send_signal(2)
        output, _ = process.communicate(timeout=60)
    assert bound == {host}
    assert ("can be reached from other machines" in output) is (host == "0.0.0.0")


def test_a_token_of_the_environment_is_used_and_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        process = run_live(str(path), PYSCOPE_TOKEN=TOKEN)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert TOKEN not in line
        port = int(line.split()[-1].rstrip("/").rpartition(":")[2])
        with Page(port) as page:
            page.hear_type("hello")
        process.terminate()
        output, errors = process.communicate(timeout=60)
        assert TOKEN not in output + errors


def test_twenty_viewers_get_the_same_and_leave_nothing_behind(tmp_path: Path) -> None:
    dashboard = None
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        dashboard = Dashboard(source_of(str(program.pid)), TOKEN)
        with served(dashboard.app) as port:
            pages = [Page(port) for _ in range(20)]
            for page in pages:
                page.hear_type("hello")
            identity = program.tell("one_request()")
            for page in pages:
                page.hear(lambda page=page: identity in page.requests)
            for page in pages:
                page.close()
            wait_until(lambda: not dashboard.feed.hub.viewers)
        dashboard.close()
