"""State transitions: a task that is assigned or completed, an actor's book that changes, each with what did it."""

from __future__ import annotations

from typing import Any

import pytest

from pyscope.testing import assert_state_transition
from taskflow.data.models import Project, Task
from tests.diagnosis.conftest import Serve
from tests.diagnosis.service import Service, wait_until


@pytest.fixture
def on_each_database(serve: Serve, database_url: str) -> Service:
    """A service on SQLite, then on PostgreSQL."""
    return serve(database_url=database_url)


def test_assigning_a_task_is_a_transition_with_its_key_and_trigger(
    on_each_database: Service, pyscope_runtime: Any
) -> None:
    task = on_each_database.create_task()
    pyscope_runtime.monitor_process(Task, "state_changes")
    on_each_database.post(f"/tasks/{task}/assign", {"assignee_id": 1})
    change = assert_state_transition(
        pyscope_runtime.get_state_changes(), "task_assigned", process="Task", key=str(task)
    )
    assert (change.attribute, change.old, change.new) == ("status", "open", "assigned")
    assert change.trigger
    assert change.time_ns > 0


def test_completing_a_task_is_a_transition_after_those_before_it(
    on_each_database: Service, pyscope_runtime: Any
) -> None:
    pyscope_runtime.monitor_process(Task)
    task = on_each_database.complete_task()
    mine = [change for change in pyscope_runtime.get_state_changes() if change.key == str(task)]
    transitions = [change.transition for change in mine if change.attribute == "status"]
    wanted = ["task_assigned", "task_in_progress", "task_completed"]
    assert [name for name in transitions if name in wanted] == wanted
    times = [change.time_ns for change in mine]
    assert times == sorted(times)


def test_a_refused_transition_changes_nothing(service: Service, pyscope_runtime: Any) -> None:
    task = service.create_task()
    pyscope_runtime.monitor_process(Task)
    assert service.client.post(f"/tasks/{task}/complete").status_code == 409
    changes = pyscope_runtime.get_state_changes()
    assert [change for change in changes if change.transition == "task_completed"] == []


def test_the_task_managers_book_and_counters_change_with_the_call_that_did_it(
    serve: Serve, pyscope_runtime: Any
) -> None:
    service = serve(tasks=0)
    manager = service.application.actors.task_manager()
    assert manager is not None
    before = manager.created
    pyscope_runtime.monitor_process(manager)
    task = service.create_task()
    service.post(f"/tasks/{task}/assign", {"assignee_id": 2})
    changes = pyscope_runtime.get_state_changes()
    created = assert_state_transition(
        changes, "created_changed", process="TaskManager", old=before, new=before + 1
    )
    assert created.trigger == "TaskManager.create_task"
    booked = assert_state_transition(changes, "assignments_changed", process="TaskManager")
    assert str(task) in str(booked.new)
    assert created.thread == booked.thread


def test_a_project_workers_statistics_change_when_a_task_of_its_project_does(
    service: Service, pyscope_runtime: Any
) -> None:
    service.get("/projects/1/statistics")
    supervisor = service.application.actors.project_supervisor()
    assert supervisor is not None
    worker = supervisor.running_worker(1)
    assert worker is not None
    pyscope_runtime.monitor_process(worker)
    service.create_task(project_id=1)
    wait_until(lambda: pyscope_runtime.get_state_changes())
    assert {change.process for change in pyscope_runtime.get_state_changes()} == {"ProjectWorker"}


def test_what_was_not_named_is_not_watched(service: Service, pyscope_runtime: Any) -> None:
    pyscope_runtime.monitor_process(Project)
    service.complete_task()
    assert [change for change in pyscope_runtime.get_state_changes() if change.process == "Task"] == []


def test_a_change_belongs_to_the_thread_that_made_it(service: Service, pyscope_runtime: Any) -> None:
    manager = service.application.actors.task_manager()
    pyscope_runtime.monitor_process(manager)
    pyscope_runtime.start_tracing(modules=["taskflow.actors.*"])
    service.create_task()
    [change] = [c for c in pyscope_runtime.get_state_changes() if c.attribute == "created"]
    [call] = [c for c in pyscope_runtime.get_traces() if c.qualname == "TaskManager.create_task"]
    assert change.thread == call.thread
    assert call.start_ns <= change.time_ns <= call.start_ns + call.duration_ns


def test_watching_ends_without_a_trace_in_the_classes(service: Service, pyscope_runtime: Any) -> None:
    before = dict(vars(Task))
    pyscope_runtime.monitor_process(Task)
    service.complete_task()
    pyscope_runtime.stop_process_monitoring()
    after = dict(vars(Task))
    assert {name: value for name, value in after.items() if before.get(name) is not value} == {}
    assert pyscope_runtime.get_state_changes()
    service.complete_task()
