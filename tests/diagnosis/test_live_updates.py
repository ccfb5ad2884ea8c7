"""Live updates: what happens is seen at once, while the service runs, by itself and from another process."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from websockets.sync.client import ClientConnection, connect

import pyscope
from pyscope.events.sql import STATEMENT
from pyscope.scopes import ScopeRow
from pyscope.testing import assert_event_captured, assert_issue_detected
from pyscope.trace import Trace
from taskflow.data.models import Task
from taskflow.process import ServerProcess
from tests.diagnosis.conftest import Serve
from tests.diagnosis.service import PATIENCE, Service, wait_until
from tests.integration.endpoints import HttpEndpoint
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

OWN = ["taskflow.*"]


def grows(get: Callable[[], list[Any]], act: Callable[[], Any], rounds: int = 3) -> list[Any]:
    """What `get` gives in the end. After each `act` there is more, and what was there before is still there."""
    before = get()
    for _ in range(rounds):
        act()
        after = more_than(len(before), get)
        assert Counter(map(told, before)) <= Counter(map(told, after))
        before = after
    return before


def more_than(known: int, get: Callable[[], list[Any]]) -> list[Any]:
    wait_until(lambda: len(get()) > known)
    return get()


def told(finding: Any) -> tuple[str, ...]:
    """What a finding says apart from its times."""
    names = ("process", "attribute", "key", "new", "kind", "child", "reason", "service", "operation", "peer")
    return tuple(str(getattr(finding, name, None)) for name in names)


# In the service's own process


def test_calls_are_seen_after_each_request_without_a_stop(service: Service, pyscope_runtime: Any) -> None:
    pyscope_runtime.start_tracing(modules=["taskflow.data.repo"])
    for number in range(1, 4):
        service.create_task()
        names = [call.qualname for call in pyscope_runtime.get_traces()]
        assert names.count("SyncRepo.insert") == number


def test_state_changes_are_seen_after_each_request(service: Service, pyscope_runtime: Any) -> None:
    pyscope_runtime.monitor_process(Task)
    changes = grows(pyscope_runtime.get_state_changes, service.complete_task)
    assert [change.transition for change in changes].count("task_completed") == 3


def test_external_calls_are_seen_as_they_are_made(serve: Serve, pyscope_runtime: Any) -> None:
    with HttpEndpoint() as endpoint:
        service = serve(webhook_urls=endpoint.url, webhook_secret="known to both")
        pyscope_runtime.trace_external_calls()
        grows(pyscope_runtime.get_external_calls, service.create_task)
        wait_until(lambda: len(endpoint.requests) == 3)
        delivered = [
            call
            for call in pyscope_runtime.get_external_calls()
            if call.service == "http" and call.peer == urlsplit(endpoint.url).netloc
        ]
    assert [call.operation.partition(" ")[0] for call in delivered] == ["POST"] * 3


def test_a_crash_and_the_restart_are_seen_at_once(service: Service, pyscope_runtime: Any) -> None:
    service.get("/projects/2/statistics")
    projects = service.application.actors.project_supervisor()
    assert projects is not None
    pyscope_runtime.monitor_supervisor_tree(service.application.actors.supervisor)

    def crash() -> None:
        worker = projects.running_worker(2)
        assert worker is not None
        worker.actor_ref.proxy().simulate_crash()
        wait_until(lambda: projects.running_worker(2) not in (None, worker))

    events = grows(pyscope_runtime.get_supervisor_events, crash, rounds=2)
    restarted = assert_event_captured(events, "child_restarted", child="project 2")
    assert restarted.restart_count >= 1
    assert service.get("/projects/2/statistics")["project_id"] == 2


def test_a_request_that_has_not_ended_is_seen_while_it_waits(service: Service, pyscope_runtime: Any) -> None:
    manager = service.application.actors.task_manager()
    assert manager is not None
    going_on = threading.Event()
    create = manager.create_task

    def when_allowed(*arguments: Any) -> Task:
        assert going_on.wait(PATIENCE)
        return create(*arguments)

    def route() -> list[str]:
        return [
            call.outcome
            for call in pyscope_runtime.get_traces()
            if (call.module, call.function) == ("taskflow.web.tasks", "create_task")
        ]

    pyscope_runtime.start_tracing(modules=["taskflow.web.*"])
    manager.create_task = when_allowed  # type: ignore[assignment,method-assign]
    client = threading.Thread(target=service.create_task)
    client.start()
    try:
        wait_until(route)
        assert route() == ["open"]
    finally:
        going_on.set()
        client.join()
        del manager.create_task
    assert route() == ["returned"]


@contextmanager
def board(service: Service, project: int) -> Iterator[ClientConnection]:
    """The WebSocket of a project's live board, after its first message."""
    address = urlsplit(str(service.client.base_url)).netloc
    with connect(f"ws://{address}/projects/{project}/board/ws") as socket:
        assert json.loads(socket.recv(timeout=PATIENCE))["kind"] == "board"
        yield socket


def next_card(socket: ClientConnection, task: int) -> dict[str, Any]:
    """The task's card as the next message of changes has it; a change of a test before this may come late."""
    while True:
        message = json.loads(socket.recv(timeout=PATIENCE))
        if message["kind"] == "changes":
            for card in message["cards"]:
                if card["id"] == task:
                    return dict(card)


def test_the_board_and_the_recorder_tell_the_same_story(service: Service, pyscope_runtime: Any) -> None:
    pyscope_runtime.monitor_process(Task)
    pyscope_runtime.start_tracing(modules=OWN)
    with board(service, 1) as first, board(service, 1) as second:
        task = service.create_task(title="Told twice")
        shown = []
        for step in (None, "assign", "start", "complete"):
            if step is not None:
                service.post(f"/tasks/{task}/{step}", {"assignee_id": 1} if step == "assign" else None)
            card = next_card(first, task)
            assert card == next_card(second, task)
            assert card["title"] == "Told twice"
            shown.append(card["status"])
            # What the board shows PyScope has seen already.
            seen = [
                change.new
                for change in pyscope_runtime.get_state_changes()
                if change.key == str(task) and change.attribute == "status"
            ]
            assert [status for status in seen if status != "open"] == shown[1:]
    assert shown == ["open", "assigned", "in_progress", "completed"]
    names = [call.qualname for call in pyscope_runtime.get_traces()]
    assert names.count("TaskManager.create_task") == 1
    assert names.count("TaskManager.complete_task") == 1


def test_two_viewers_at_once_see_the_same_and_disturb_neither_each_other_nor_the_service(
    service: Service, pyscope_runtime: Any
) -> None:
    pyscope_runtime.start_tracing(modules=["taskflow.actors.*"])
    done = threading.Event()

    def watch() -> list[int]:
        counts = []
        while not done.is_set():
            names = [call.qualname for call in pyscope_runtime.get_traces()]
            counts.append(names.count("TaskManager.create_task"))
        return counts

    with ThreadPoolExecutor(2) as viewers:
        watching = [viewers.submit(watch) for _ in range(2)]
        for _ in range(30):
            service.create_task()
        done.set()
        seen = [viewer.result() for viewer in watching]
    for counts in seen:
        assert counts == sorted(counts)
    names = [call.qualname for call in pyscope_runtime.get_traces()]
    assert names.count("TaskManager.create_task") == 30


@pytest.mark.parametrize(
    ("fault", "pattern", "path", "kind", "file"),
    [
        (
            "blocking_call",
            "blocking_calls",
            "/projects/1/export",
            "blocking_call_in_event_loop",
            "taskflow/web/export.py",
        ),
        (
            "n_plus_one_dashboard",
            "n_plus_one_queries",
            "/projects/1/dashboard",
            "n_plus_one_query",
            "taskflow/web/dashboard.py",
        ),
    ],
)
def test_a_fault_is_an_issue_as_soon_as_its_request_is_answered_and_its_twin_is_none(
    serve: Serve, pyscope_runtime: Any, fault: str, pattern: str, path: str, kind: str, file: str
) -> None:
    faulty, fixed = serve(faults=fault), serve()
    pyscope_runtime.start_performance_monitoring(modules=OWN, detect_patterns=[pattern])
    assert fixed.client.get(path).is_success
    assert pyscope_runtime.get_performance_issues() == []
    assert faulty.client.get(path).is_success
    issue = assert_issue_detected(pyscope_runtime.get_performance_issues(), kind)
    assert issue.call_site.file.endswith(file)
    assert issue.suggestion


def test_a_search_in_python_is_a_slow_call_and_one_in_the_database_is_not(
    serve: Serve, pyscope_runtime: Any
) -> None:
    faulty, fixed = serve(faults="slow_endpoint", tasks=6_000), serve(tasks=6_000)

    def search(service: Service) -> float:
        """Milliseconds."""
        begun = time.perf_counter()
        assert service.get("/tasks/search", params={"q": "nothing has this name"}) == []
        return (time.perf_counter() - begun) * 1000

    search(fixed)
    # The fixed one is some fifteen times as fast; how fast either is depends on the machine.
    slow_ms = min(search(faulty) for _ in range(3)) / 4
    pyscope_runtime.start_performance_monitoring(modules=OWN, detect_patterns=["slow_calls"], slow_ms=slow_ms)
    search(fixed)
    assert pyscope_runtime.get_performance_issues() == []
    search(faulty)
    issues = pyscope_runtime.get_performance_issues()
    assert_issue_detected(issues, "slow_call")
    assert "_match_in_python" in {issue.call_site.function for issue in issues}


# From another process


@dataclass(frozen=True)
class Elsewhere:
    """A TaskFlow in a process of its own, which records itself."""

    client: httpx2.Client
    recording: Path

    def trace(self) -> Trace:
        return pyscope.load(self.recording)

    def create_task(self, title: str) -> None:
        assert self.client.post("/tasks", json={"project_id": 1, "title": title}).status_code == 201

    def request(self, route: str, after_ns: int = 0) -> ScopeRow | None:
        """The last request of a route that has ended, as the recording tells of it now."""
        found = [
            scope
            for scope in self.trace().scopes
            if (scope.kind, scope.route) == ("request", route)
            and scope.outcome != "open"
            and scope.start_ns > after_ns
        ]
        return found[-1] if found else None


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    folder = tmp_path_factory.mktemp("elsewhere")
    settings = taskflow_settings(folder)
    seed_taskflow(settings)
    recording = folder / "run.pyscope"
    environment = {
        "DATABASE_URL": settings.database_url,
        "TASKFLOW_FAULTS": "n_plus_one_dashboard",
        "TASKFLOW_REDIS_URL": "off",
    }
    launcher = [
        sys.executable, "-m", "pyscope", "run", "--probes", "auto", "--modules", "taskflow.*", "-o", str(recording)
    ]  # fmt: skip
    with (
        ServerProcess(folder, environment, launcher, ready_seconds=120) as server,
        httpx2.Client(base_url=server.url, timeout=PATIENCE, trust_env=False) as client,
    ):
        yield Elsewhere(client, recording)


def test_a_request_made_a_moment_ago_is_in_the_recording_with_its_scope_and_its_sql(
    elsewhere: Elsewhere,
) -> None:
    for number in range(1, 4):
        last = elsewhere.trace().end_ns
        assert elsewhere.client.get(f"/tasks/{number}").status_code == 200
        wait_until(lambda last=last: elsewhere.request("/tasks/{task_id}", last))
        scope = elsewhere.request("/tasks/{task_id}", last)
        assert scope is not None
        assert (scope.status, scope.outcome) == (200, "returned")
        trace = elsewhere.trace()
        sent = [row for row in trace.probe_events(STATEMENT).records() if row.scope == scope.id]
        assert any("FROM tasks" in row.statement for row in sent)
        assert all(scope.start_ns <= row.time_ns <= scope.end_ns for row in sent)
        calls = [call for call in trace.find(function="get_task") if call.start_ns >= scope.start_ns]
        assert len(calls) == 1


def test_what_an_actor_did_for_a_request_is_in_the_recording_as_soon_as_it_is_answered(
    elsewhere: Elsewhere,
) -> None:
    elsewhere.create_task("Seen from outside")
    wait_until(lambda: elsewhere.request("/tasks"))
    trace = elsewhere.trace()
    inserted = trace.find(module="taskflow.data.repo", function="SyncRepo.insert")
    assert len(inserted) >= 1
    assert any(
        row.statement.startswith("INSERT INTO tasks") for row in trace.probe_events(STATEMENT).records()
    )
    assert not trace.losses


def test_two_readers_of_a_living_recording_see_the_same(elsewhere: Elsewhere) -> None:
    def inserts(trace: Trace) -> int:
        return len(trace.find(module="taskflow.data.repo", function="SyncRepo.insert"))

    before = inserts(elsewhere.trace())
    done = threading.Event()

    def watch() -> list[int]:
        counts = []
        while not done.is_set():
            counts.append(inserts(elsewhere.trace()))
        return counts

    with ThreadPoolExecutor(2) as readers:
        reading = [readers.submit(watch) for _ in range(2)]
        try:
            for number in range(20):
                elsewhere.create_task(f"Seen by two {number}")
        finally:
            done.set()
        seen = [reader.result() for reader in reading]
    wait_until(lambda: inserts(elsewhere.trace()) == before + 20)
    for counts in seen:
        assert counts == sorted(counts)
        assert before <= counts[-1] <= before + 20


def test_findings_are_made_of_a_recording_that_is_still_written(elsewhere: Elsewhere) -> None:
    from pyscope.analysis import queries

    def found() -> list[str]:
        return [issue.relationship for issue in queries.find(elsewhere.trace())]

    assert "Task.watchers" not in found()
    assert elsewhere.client.get("/projects/1/dashboard").status_code == 200
    wait_until(lambda: "Task.watchers" in found())
    assert elsewhere.client.get("/readyz").status_code == 200
