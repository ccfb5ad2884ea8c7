"""The load driver: what it prints, where it stops, what it refuses."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx2
import pytest

from taskflow.data.database import SyncDatabase
from taskflow.load import Ledger, LoadError, LoadPlan, LoadReport, drive
from taskflow.load.invariants import violations
from taskflow.load.plan import add_arguments
from taskflow.load.report import timing
from taskflow.process import ServerProcess
from taskflow.settings import Settings
from tests.integration.taskflow_database import SEEDED_TASKS, seed_taskflow, taskflow_settings

LOAD = [sys.executable, "-m", "taskflow", "load"]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*LOAD, *arguments], capture_output=True, text=True, timeout=60)


def test_the_table_shows_throughput_percentiles_and_errors(taskflow_url: str) -> None:
    done = run(taskflow_url, "--seconds", "20", "--requests", "30")
    assert done.returncode == 0, done.stderr
    first, _, header, *rows = done.stdout.splitlines()
    assert "requests in" in first
    assert "a second, 0 errors (scenario steady, 8 at a time)" in first
    assert " ".join(header.split()) == "operation requests errors p50 ms p95 ms p99 ms max ms"
    assert rows[-1].split()[:3] == ["all", "30", "0"]


def test_the_json_report_adds_up(taskflow_url: str) -> None:
    done = run(taskflow_url, "--seconds", "20", "--requests", "16", "--scenario", "dashboard", "--json")
    report = json.loads(done.stdout)
    *operations, everything = report["operations"]
    assert {row["operation"] for row in operations} == {"create", "dashboard"}
    assert sum(row["requests"] for row in operations) == everything["requests"] == report["requests"] == 16
    assert report["errors"] == 0
    for row in report["operations"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["max_ms"]


def test_every_request_that_was_counted_reached_the_service(taskflow_process: ServerProcess) -> None:
    report = drive(LoadPlan(taskflow_process.url, 60, concurrency=30, scenario="create", requests=150))
    assert (report.requests, report.errors) == (150, 0)
    everything = 0
    after: int | None = 0
    while after is not None:
        page = httpx2.get(
            f"{taskflow_process.url}/tasks", params={"after": after, "limit": 200}, trust_env=False
        ).json()
        everything += len(page["items"])
        after = page["next_after"]
    assert everything == SEEDED_TASKS + 150


def test_a_load_ends_when_its_time_is_up(taskflow_url: str) -> None:
    report = drive(LoadPlan(taskflow_url, 0.5, concurrency=4))
    assert report.requests > 0
    assert 0.5 <= report.seconds < 30


def broken_by(plan: LoadPlan, settings: Settings, directory: Path) -> tuple[LoadReport, list[str]]:
    """What came of a load, and which invariants are broken after it."""
    ledger = directory / "ledger.json"
    report = drive(replace(plan, ledger=ledger))
    database = SyncDatabase(settings)
    try:
        with database.reading() as repo:
            return report, violations(repo.session, Ledger.read(ledger))
    finally:
        database.close()


@pytest.mark.slow
def test_a_thousand_clients_at_once_meet_no_error_and_no_task_is_lost_or_given_twice(
    database_url: str, tmp_path: Path
) -> None:
    settings = Settings.model_validate({"database_url": database_url, "faults": "none"})
    seed_taskflow(settings)
    with ServerProcess(tmp_path, {"DATABASE_URL": database_url, "TASKFLOW_FAULTS": "none"}) as server:
        plan = LoadPlan(server.url, 240, scenario="rush", requests=2000)
        report, broken = broken_by(plan, settings, tmp_path)
    print(report.as_table())
    assert (report.errors, report.error_counts) == (0, {})
    assert report.concurrency == 1000
    assert report.requests == 2000
    counts = {row.operation: row.requests for row in report.operations}
    assert counts["create"] >= 1000 - sum(report.refusals.values())
    assert counts["assign_next"] > 0
    assert broken == []


def test_clients_at_the_same_things_break_nothing_while_faults_are_off(tmp_path: Path) -> None:
    settings = taskflow_settings(tmp_path)
    seed_taskflow(settings)
    environment = {"DATABASE_URL": settings.database_url, "TASKFLOW_FAULTS": "none"}
    with ServerProcess(tmp_path, environment) as server:
        plan = LoadPlan(server.url, 60, scenario="chaos", requests=400)
        report, broken = broken_by(plan, settings, tmp_path)
    assert (report.errors, report.error_counts) == (0, {})
    assert not [refusal for refusal in report.refusals if "another client was faster" in refusal]
    assert broken == []


def test_faults_show_as_broken_invariants(tmp_path: Path) -> None:
    settings = taskflow_settings(tmp_path)
    seed_taskflow(settings)
    environment = {"DATABASE_URL": settings.database_url, "TASKFLOW_FAULTS": "assign_race,lost_update"}
    with ServerProcess(tmp_path, environment) as server:
        for _ in range(10):
            plan = LoadPlan(server.url, 60, scenario="chaos", requests=400)
            report, broken = broken_by(plan, settings, tmp_path)
            assert (report.errors, report.error_counts) == (0, {})
            if any("minutes instead of" in what for what in broken):
                break
        else:
            pytest.fail(f"no update was lost: {broken}")


class BusyService(BaseHTTPRequestHandler):
    """Answers like a TaskFlow with one project, but asks for each task to be sent a second time."""

    protocol_version = "HTTP/1.1"
    refused: ClassVar[set[int]] = set()
    created: ClassVar[list[bytes]] = []

    def do_GET(self) -> None:
        self.answer(200, {"items": [{"id": 1}], "next_after": None})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/tasks":
            self.answer(201, {"id": 2})
        elif (client := self.client_address[1]) in self.refused:
            self.refused.remove(client)
            self.created.append(body)
            self.answer(201, {"id": len(self.created)})
        else:
            self.refused.add(client)
            self.answer(503, {"status": 503}, {"Retry-After": "0.01"})

    def answer(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_a_client_comes_back_when_it_is_asked_to_and_that_is_no_error(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BusyService) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{service.server_port}"
        ledger = tmp_path / "ledger.json"
        report = drive(LoadPlan(url, 60, 2, "create", requests=20, ledger=ledger))
        service.shutdown()
        thread.join()
    assert (report.requests, report.errors) == (20, 0)
    assert report.refusals == {"create: asked to come back later": 10}
    assert "10 × create: asked to come back later (expected)" in report.as_table()
    assert sorted(Ledger.read(ledger).created) == list(range(1, 11))
    assert Ledger.read(ledger).unanswered == 0


def test_a_plan_survives_the_way_through_a_command_line() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for plan in (
        LoadPlan("http://127.0.0.1:1"),
        LoadPlan("http://[::1]:1", 2.5, 3, "chaos", 4, True, 5, Path("a ledger")),
    ):
        assert LoadPlan.from_options(parser.parse_args(plan.arguments())) == plan


def test_every_scenario_has_clients() -> None:
    # Locust patches the process that it is imported into.
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "from taskflow.load.scenarios import CLIENTS\n"
        "from taskflow.load import SCENARIOS\n"
        "assert CLIENTS.keys() == SCENARIOS.keys(), (CLIENTS, SCENARIOS)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_driving_a_load_leaves_this_interpreter_as_it_is(taskflow_url: str) -> None:
    drive(LoadPlan(taskflow_url, 30, 1, "create", requests=1))
    assert "gevent" not in socket.socket.__module__
    assert "locust" not in sys.modules


def wait_until_load_arrives(url: str) -> None:
    """Return when a task was created beyond the seeded ones."""
    deadline = time.monotonic() + 30
    with httpx2.Client(base_url=url, timeout=30, trust_env=False) as client:
        while not client.get("/tasks", params={"after": SEEDED_TASKS, "limit": 1}).json()["items"]:
            assert time.monotonic() < deadline, "no load arrived"
            time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_load_still_reports(taskflow_process: ServerProcess, number: int) -> None:
    command = [*LOAD, taskflow_process.url, "--seconds", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        wait_until_load_arrives(taskflow_process.url)
        load.send_signal(number)
        output, _ = load.communicate(timeout=30)
    assert load.returncode == 0
    assert output.splitlines()[-1].startswith("all ")


def test_a_service_that_dies_under_load_shows_as_errors_and_status_1(taskflow_process: ServerProcess) -> None:
    command = [*LOAD, taskflow_process.url, "--seconds", "60", "--requests", "150", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        wait_until_load_arrives(taskflow_process.url)
        os.kill(taskflow_process.pid, signal.SIGKILL)
        output, _ = load.communicate(timeout=60)
    report = json.loads(output)
    assert load.returncode == 1
    assert report["requests"] == 150
    assert report["errors"] == sum(report["error_counts"].values()) > 0
    assert any("Connection" in error for error in report["error_counts"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http://taskflow.example"], "--allow-remote"),
        (["http://192.0.2.1:80"], "--allow-remote"),
        (["ftp://127.0.0.1"], "not an HTTP address"),
        (["http://127.0.0.1:99999"], "not a URL"),
        (["http://127.0.0.1:1", "--seconds", "0"], "more than 0"),
        (["http://127.0.0.1:1", "--seconds", "nan"], "more than 0"),
        (["http://127.0.0.1:1", "--concurrency", "0"], "concurrency"),
        (["http://127.0.0.1:1", "--requests", "0"], "at least one"),
        (["http://127.0.0.1:1", "--scenario", "storm"], "known: steady, "),
    ],
)
def test_what_cannot_be_driven_is_refused_with_a_reason(arguments: list[str], message: str) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(LoadError, match=message):
        drive(LoadPlan.from_options(parser.parse_args(arguments)))


def test_an_address_where_nothing_answers_is_refused_with_status_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    done = run(f"http://127.0.0.1:{port}", "--seconds", "1")
    assert done.returncode == 2
    assert f"no TaskFlow answers at http://127.0.0.1:{port}" in done.stderr


def test_a_ledger_that_cannot_be_written_is_refused_before_the_load(
    taskflow_url: str, tmp_path: Path
) -> None:
    done = run(taskflow_url, "--ledger", str(tmp_path / "no such folder" / "ledger.json"))
    assert done.returncode == 2
    assert "No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_percentiles_are_latencies_that_really_occurred() -> None:
    row = timing("x", [float(value) for value in range(100, 0, -1)], errors=0)
    assert (row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms) == (50, 95, 99, 100)
    single = timing("x", [7.0], errors=0)
    assert (single.p50_ms, single.p99_ms) == (7, 7)
