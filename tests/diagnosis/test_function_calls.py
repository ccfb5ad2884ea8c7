"""Function calls across actor boundaries: what a request sets off is traced, from the route to the repository."""

from __future__ import annotations

import threading
from typing import Any

import httpx2
import pytest

from pyscope.testing import assert_function_traced
from tests.diagnosis.conftest import Serve
from tests.diagnosis.service import Service

OWN = ["taskflow.*"]


def test_creating_a_task_reaches_the_repositorys_insert_through_the_actor(
    service: Service, pyscope_runtime: Any
) -> None:
    pyscope_runtime.start_tracing(modules=OWN, level="function_calls")
    service.create_task()
    traces = pyscope_runtime.get_traces()
    created = assert_function_traced(traces, "taskflow.actors.task_manager", "TaskManager.create_task", 5)
    inserted = assert_function_traced(traces, "taskflow.data.repo", "SyncRepo.insert", 1)
    assert inserted.parent is not None
    assert inserted.parent.qualname == created.qualname
    assert created.thread == inserted.thread


def test_the_route_and_the_actor_run_in_threads_of_their_own(service: Service, pyscope_runtime: Any) -> None:
    pyscope_runtime.start_tracing(modules=OWN)
    service.create_task()
    traces = pyscope_runtime.get_traces()
    route = assert_function_traced(traces, "taskflow.web.tasks", "create_task", 3)
    handled = assert_function_traced(traces, "taskflow.actors.task_manager", "TaskManager.create_task", 5)
    assert route.thread == "uvicorn"
    assert handled.thread != "uvicorn"
    assert route.context is not None
    assert route.start_ns <= handled.start_ns
    assert handled.start_ns + handled.duration_ns <= route.start_ns + route.duration_ns


def test_each_call_is_there_exactly_once_however_many_clients_there_are(
    service: Service, pyscope_runtime: Any
) -> None:
    pyscope_runtime.start_tracing(modules=OWN)
    threads = [threading.Thread(target=service.create_task) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [call.qualname for call in pyscope_runtime.get_traces()]
    assert names.count("TaskManager.create_task") == 20
    assert names.count("SyncRepo.insert") == 20


def test_an_exception_is_traced_with_its_type_up_to_where_it_is_caught(
    service: Service, pyscope_runtime: Any
) -> None:
    pyscope_runtime.start_tracing(modules=OWN)
    refused = service.client.post("/tasks/999999/complete")
    assert refused.status_code == 404
    traces = pyscope_runtime.get_traces()
    completed = assert_function_traced(traces, "taskflow.actors.task_manager", "complete_task", 1)
    assert (completed.outcome, completed.exception) == ("raised", "taskflow.errors.NotFound")
    route = assert_function_traced(traces, "taskflow.web.tasks", "complete_task", 2)
    assert (route.outcome, route.exception) == ("raised", "taskflow.errors.NotFound")


def test_a_change_is_traced_into_the_projects_worker(service: Service, pyscope_runtime: Any) -> None:
    pyscope_runtime.start_tracing(modules=["taskflow.actors.*"])
    service.create_task(project_id=2)
    service.get("/projects/2/statistics")
    traces = pyscope_runtime.get_traces()
    noted = assert_function_traced(traces, "taskflow.actors.project_worker", "ProjectWorker.note", 1)
    created = assert_function_traced(traces, "taskflow.actors.task_manager", "TaskManager.create_task", 5)
    assert noted.thread != created.thread
    assert {call.module.rpartition(".")[0] for call in traces} == {"taskflow.actors"}


def test_calls_have_depth_self_time_and_parents_that_add_up(service: Service, pyscope_runtime: Any) -> None:
    pyscope_runtime.start_tracing(modules=["taskflow.data.*", "taskflow.actors.*"])
    service.create_task()
    for call in pyscope_runtime.get_traces():
        assert 0 <= call.self_ns <= call.duration_ns
        if call.parent is not None:
            assert call.depth == call.parent.depth + 1
            assert call.parent.start_ns <= call.start_ns
        else:
            assert call.depth == 0


def test_the_task_that_was_given_next_is_traced_past_the_mailbox_when_the_fault_is_on(
    serve: Serve, pyscope_runtime: Any
) -> None:
    faulty, fixed = serve(faults="assign_race"), serve()
    pyscope_runtime.start_tracing(modules=["taskflow.actors.*"])
    faulty.post("/projects/1/assign-next", {"assignee_id": 1})
    past = assert_function_traced(
        pyscope_runtime.get_traces(), "taskflow.actors.task_manager", "assign_next_past_the_mailbox", 2
    )
    assert past.thread != "uvicorn"
    pyscope_runtime.start_tracing(modules=["taskflow.actors.*"])
    fixed.post("/projects/1/assign-next", {"assignee_id": 1})
    traces = pyscope_runtime.get_traces()
    assert_function_traced(
        traces, "taskflow.actors.task_manager", "TaskManager.assign_next_available_task", 2
    )
    assert "assign_next_past_the_mailbox" not in {call.function for call in traces}


def test_a_request_that_fails_in_validation_reaches_no_actor(service: Service, pyscope_runtime: Any) -> None:
    pyscope_runtime.start_tracing(modules=OWN)
    assert service.client.post("/tasks", json={"project_id": 1}).status_code == 422
    names = {call.qualname for call in pyscope_runtime.get_traces()}
    assert "TaskManager.create_task" not in names


def test_after_the_stop_nothing_more_is_traced_and_the_service_goes_on(
    service: Service, pyscope_runtime: Any
) -> None:
    pyscope_runtime.start_tracing(modules=OWN)
    service.create_task()
    pyscope_runtime.stop_tracing()
    before = len(pyscope_runtime.get_traces())
    service.create_task()
    assert len(pyscope_runtime.get_traces()) == before
    assert service.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("traced", [False, True])
def test_answers_are_the_same_traced_or_not(service: Service, pyscope_runtime: Any, traced: bool) -> None:
    if traced:
        pyscope_runtime.start_tracing(modules=["*"])
    answers: list[httpx2.Response] = [
        service.client.get("/projects", params={"limit": 2}),
        service.client.get("/tasks/1"),
        service.client.get("/tasks/0"),
        service.client.post("/tasks", content=b"{"),
        service.client.get("/nothing"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 422, 422, 404]
    assert answers[1].json()["id"] == 1
