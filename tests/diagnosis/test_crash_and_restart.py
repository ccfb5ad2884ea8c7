"""Crashes and restarts: of actors, of a report's process, of threads and tasks; the service answers all along."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pyscope.findings import SupervisorEvent
from pyscope.testing import assert_event_captured
from taskflow.actors.project_supervisor import ProjectSupervisor
from taskflow.actors.task_manager import SimulatedCrash, TaskManager
from tests.diagnosis.conftest import Serve
from tests.diagnosis.service import Service, wait_until

CRASHES = {"child_terminated", "child_restarted", "max_restarts_exceeded"}


def projects_of(service: Service) -> ProjectSupervisor:
    supervisor = service.application.actors.project_supervisor()
    assert supervisor is not None
    return supervisor


def manager_of(service: Service) -> TaskManager:
    manager = service.application.actors.task_manager()
    assert manager is not None
    return manager


def events_of(runtime: Any, *kinds: str, child: str | None = None) -> list[SupervisorEvent]:
    return [
        event
        for event in runtime.get_supervisor_events()
        if event.kind in (kinds or CRASHES) and child in (None, event.child)
    ]


def wait_for(runtime: Any, kind: str, child: str) -> SupervisorEvent:
    """The first event of that kind, which is to happen soon."""
    wait_until(lambda: events_of(runtime, kind, child=child))
    return assert_event_captured(runtime.get_supervisor_events(), kind, child=child)


def stored(service: Service, project: int = 1) -> dict[str, int]:
    """The project's tasks in each status, counted over all pages of the list."""
    numbers, after = Counter[str](), 0
    while after is not None:
        page = service.get("/tasks", params={"project_id": project, "limit": 200, "after": after})
        numbers.update(task["status"] for task in page["items"])
        after = page["next_after"]
    return dict(numbers)


def counted(service: Service, project: int = 1) -> dict[str, int]:
    """The same as the project's worker knows it."""
    found = service.get(f"/projects/{project}/statistics")["by_status"]
    return {status: count for status, count in found.items() if count}


# --- a project's worker --------------------------------------------------------------------------


def test_worker_crash_is_a_termination_and_a_restart_with_reason_and_count(
    serve: Serve, database_url: str, pyscope_runtime: Any
) -> None:
    service = serve(faults="worker_crash", database_url=database_url)
    pyscope_runtime.monitor_supervisor_tree(projects_of(service))
    service.complete_task()
    restarted = wait_for(pyscope_runtime, "child_restarted", "project 1")
    events = pyscope_runtime.get_supervisor_events()
    crashed = assert_event_captured(events, "child_terminated", child="project 1", supervisor="projects")
    assert "SimulatedCrash: the first task completed in project 1" in crashed.reason
    assert restarted.restart_count == 1
    assert restarted.supervisor == "projects"
    assert crashed.time_ns <= restarted.time_ns
    assert counted(service) == stored(service)


def test_a_worker_that_crashed_once_handles_what_comes_then(serve: Serve, pyscope_runtime: Any) -> None:
    service = serve(faults="worker_crash")
    pyscope_runtime.monitor_supervisor_tree(projects_of(service))
    for _ in range(3):
        service.complete_task()
    wait_for(pyscope_runtime, "child_restarted", "project 1")
    assert counted(service) == stored(service)
    assert [event.kind for event in events_of(pyscope_runtime)] == ["child_terminated", "child_restarted"]


def test_each_projects_worker_crashes_and_is_restarted_by_itself(serve: Serve, pyscope_runtime: Any) -> None:
    service = serve(faults="worker_crash")
    pyscope_runtime.monitor_supervisor_tree(projects_of(service))
    for project in (1, 2):
        service.complete_task(project)
        assert wait_for(pyscope_runtime, "child_restarted", f"project {project}").restart_count == 1
    assert {event.child for event in events_of(pyscope_runtime)} == {"project 1", "project 2"}


def test_a_worker_without_the_fault_only_starts(
    serve: Serve, database_url: str, pyscope_runtime: Any
) -> None:
    service = serve(database_url=database_url)
    pyscope_runtime.monitor_supervisor_tree(projects_of(service))
    service.complete_task()
    assert counted(service) == stored(service)
    kinds = [(event.kind, event.child) for event in pyscope_runtime.get_supervisor_events()]
    assert kinds == [("child_started", "project 1")]


def test_crash_loop_exceeds_the_restart_intensity_and_harms_only_itself(
    serve: Serve, pyscope_runtime: Any
) -> None:
    service = serve(faults="crash_loop")
    pyscope_runtime.monitor_supervisor_tree(service.application.actors.supervisor)
    before = stored(service)
    service.complete_task()
    exceeded = wait_for(pyscope_runtime, "max_restarts_exceeded", "project 1")
    assert exceeded.supervisor == "projects"
    assert "crash loop" in exceeded.reason
    assert exceeded.restart_count > 20
    restarts = events_of(pyscope_runtime, "child_restarted", child="project 1")
    counts = [event.restart_count for event in restarts]
    assert counts == sorted(counts)
    # Its supervisor is restarted by its own, and everything else goes on.
    assert wait_for(pyscope_runtime, "child_restarted", "projects").supervisor == "taskflow"
    assert service.client.get("/readyz").status_code == 200
    service.complete_task(project_id=1)
    service.complete_task(project_id=2)
    assert counted(service, 2) == stored(service, 2)
    assert stored(service)["completed"] == before.get("completed", 0) + 2


def test_the_supervisor_of_the_crash_loop_tells_of_it_itself(serve: Serve, pyscope_runtime: Any) -> None:
    service = serve(faults="crash_loop")
    pyscope_runtime.monitor_supervisor_tree(projects_of(service))
    service.complete_task()
    wait_for(pyscope_runtime, "max_restarts_exceeded", "project 1")


def test_without_crash_loop_nobody_gives_up(serve: Serve, pyscope_runtime: Any) -> None:
    service = serve()
    pyscope_runtime.monitor_supervisor_tree(service.application.actors.supervisor)
    for _ in range(3):
        service.complete_task()
    assert counted(service) == stored(service)
    assert events_of(pyscope_runtime) == []


# --- the TaskManager -----------------------------------------------------------------------------


def test_a_crash_of_the_task_manager_is_seen_and_loses_no_task(
    serve: Serve, database_url: str, pyscope_runtime: Any
) -> None:
    service = serve(database_url=database_url)
    pyscope_runtime.monitor_supervisor_tree(service.application.actors.supervisor)
    before = sum(stored(service).values())
    task = service.create_task()
    service.post(f"/tasks/{task}/assign", {"assignee_id": 1})
    crashed = manager_of(service)
    with ThreadPoolExecutor(8) as clients:
        first = [clients.submit(service.create_task) for _ in range(8)]
        crashed.actor_ref.proxy().simulate_crash()
        created = {
            each.result() for each in [*first, *(clients.submit(service.create_task) for _ in range(8))]
        }
    restarted = wait_for(pyscope_runtime, "child_restarted", "task_manager")
    assert (restarted.supervisor, restarted.restart_count) == ("taskflow", 1)
    terminated = assert_event_captured(
        pyscope_runtime.get_supervisor_events(), "child_terminated", child="task_manager"
    )
    assert "SimulatedCrash: the TaskManager was told to crash" in terminated.reason
    assert len(created) == 16
    assert sum(stored(service).values()) == before + 17
    successor = manager_of(service)
    assert successor is not crashed
    assert successor.assignments[task] == 1


def test_a_manager_whose_commands_are_refused_does_not_crash(serve: Serve, pyscope_runtime: Any) -> None:
    service = serve()
    pyscope_runtime.monitor_supervisor_tree(service.application.actors.supervisor)
    for _ in range(3):
        assert service.client.post("/tasks/999999/complete").status_code == 404
    assert events_of(pyscope_runtime) == []


def test_restarts_are_counted_one_after_the_other(serve: Serve, pyscope_runtime: Any) -> None:
    service = serve()
    pyscope_runtime.monitor_supervisor_tree(service.application.actors.supervisor)
    for _ in range(3):
        crashed = manager_of(service)
        crashed.actor_ref.proxy().simulate_crash()
        wait_until(lambda crashed=crashed: service.application.actors.task_manager() not in (None, crashed))
    service.create_task()
    wait_until(lambda: len(events_of(pyscope_runtime, "child_restarted")) == 3)
    counts = [event.restart_count for event in events_of(pyscope_runtime, "child_restarted")]
    assert counts == [1, 2, 3]


# --- a report's process --------------------------------------------------------------------------


def test_a_killed_report_process_is_seen_to_die_and_to_be_started_again(
    serve: Serve, pyscope_runtime: Any
) -> None:
    service = serve(tasks=20)
    pyscope_runtime.monitor_supervisor_tree(service.application.reports.supervisor)
    report = service.post("/reports", {"year": 2025})["id"]
    wait_until(lambda: events_of(pyscope_runtime, "child_started") and started_pids(pyscope_runtime))
    [pid] = started_pids(pyscope_runtime)
    os.kill(pid, signal.SIGKILL)
    restarted = wait_for(pyscope_runtime, "child_restarted", f"report {report}")
    assert restarted.restart_count == 1
    events = pyscope_runtime.get_supervisor_events()
    crashed = assert_event_captured(events, "child_terminated", child=f"report {report}")
    assert "was ended by SIGKILL" in crashed.reason
    # The same seen from below: of the process itself, whoever looks after it.
    wait_until(lambda: [e for e in events_of(pyscope_runtime, "child_terminated") if e.pid == pid])
    [killed] = [event for event in events_of(pyscope_runtime, "child_terminated") if event.pid == pid]
    assert killed.supervisor == "subprocess"
    assert killed.reason.startswith(
        "killed by SIGKILL"
    )  # the service may have asked the dead one to end, too
    assert service.client.get("/readyz").status_code == 200
    wait_until(lambda: service.get(f"/reports/{report}")["status"] == "finished")
    assert service.get(f"/reports/{report}")["restarts"] == 1


def started_pids(runtime: Any) -> list[int]:
    return [event.pid for event in events_of(runtime, "child_started") if event.pid]


def test_a_report_that_is_left_alone_ends_without_a_crash(serve: Serve, pyscope_runtime: Any) -> None:
    service = serve(tasks=20)
    pyscope_runtime.monitor_supervisor_tree(service.application.reports.supervisor)
    report = service.post("/reports", {"year": 2025})["id"]
    wait_until(lambda: service.get(f"/reports/{report}")["status"] == "finished")
    assert events_of(pyscope_runtime) == []
    assert len(started_pids(pyscope_runtime)) == 1


# --- without a supervisor ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_of_the_service_that_dies_is_told_though_nobody_supervises_it(
    service: Service, pyscope_runtime: Any
) -> None:
    pyscope_runtime.monitor_supervisor_tree(None)
    thread = threading.Thread(target=manager_of(service).simulate_crash, name="nightly job")
    thread.start()
    thread.join()
    event = assert_event_captured(
        pyscope_runtime.get_supervisor_events(), "child_terminated", child="nightly job"
    )
    assert (event.supervisor, event.restart_count) == ("threading", -1)
    assert "SimulatedCrash: the TaskManager was told to crash" in event.reason
    assert event.stack[0].function == "TaskManager.simulate_crash"
    assert event.stack[0].file.endswith("taskflow/actors/task_manager.py")
    assert service.client.get("/readyz").status_code == 200


def test_a_thread_that_deals_with_its_exception_is_not_told(service: Service, pyscope_runtime: Any) -> None:
    def careful() -> None:
        with pytest.raises(SimulatedCrash):
            manager_of(service).simulate_crash()

    pyscope_runtime.monitor_supervisor_tree(None)
    thread = threading.Thread(target=careful, name="nightly job")
    thread.start()
    thread.join()
    assert events_of(pyscope_runtime) == []


async def unlucky() -> None:
    raise SimulatedCrash("the clean-up was told to crash")


def in_the_service(monkeypatch: pytest.MonkeyPatch, service: Service, work: Callable[[], Any]) -> None:
    """Does some work in the service's event loop, at a request."""
    reports = service.application.reports
    page = reports.page

    async def work_then_page(after: int, limit: int) -> Any:
        await work()
        return await page(after, limit)

    monkeypatch.setattr(reports, "page", work_then_page)
    service.get("/reports")


def test_a_task_that_a_request_leaves_behind_and_that_dies_is_told(
    service: Service, pyscope_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave_behind() -> None:
        task = asyncio.create_task(unlucky(), name="clean-up")
        while not task.done():
            await asyncio.sleep(0)

    pyscope_runtime.monitor_supervisor_tree(None)
    in_the_service(monkeypatch, service, leave_behind)
    event = wait_for(pyscope_runtime, "child_terminated", "clean-up")
    assert event.supervisor == "asyncio"
    assert "SimulatedCrash: the clean-up was told to crash" in event.reason
    assert event.stack[0].function == "unlucky"
    assert service.client.get("/readyz").status_code == 200


def test_a_task_whose_exception_a_request_takes_is_not_told(
    service: Service, pyscope_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look_after() -> None:
        with pytest.raises(SimulatedCrash):
            await asyncio.create_task(unlucky(), name="clean-up")

    pyscope_runtime.monitor_supervisor_tree(None)
    in_the_service(monkeypatch, service, look_after)
    assert events_of(pyscope_runtime) == []


# --- the end of it -------------------------------------------------------------------------------


def noting(call: Callable[[Any], None], notes: list[object]) -> Callable[[Any], None]:
    def noted(argument: Any) -> None:
        notes.append(argument)
        call(argument)

    return noted


def test_after_the_stop_restarts_go_on_untold_and_the_supervisor_has_no_listener(
    serve: Serve, pyscope_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(faults="worker_crash")
    supervisor = projects_of(service)
    added: list[object] = []
    removed: list[object] = []
    monkeypatch.setattr(supervisor, "add_listener", noting(supervisor.add_listener, added))
    monkeypatch.setattr(supervisor, "remove_listener", noting(supervisor.remove_listener, removed))
    pyscope_runtime.monitor_supervisor_tree(supervisor)
    service.complete_task(project_id=1)
    wait_for(pyscope_runtime, "child_restarted", "project 1")
    pyscope_runtime.stop_supervisor_monitoring()
    assert len(added) == 1
    assert removed == added
    service.complete_task(project_id=2)
    assert counted(service, 2) == stored(service, 2)
    assert {event.child for event in pyscope_runtime.get_supervisor_events()} == {"project 1"}
