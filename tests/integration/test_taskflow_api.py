"""TaskFlow's HTTP interface, spoken to over a real connection."""

import asyncio
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from taskflow.web.app import create_app
from tests.integration.taskflow_database import SEEDED_TASKS, taskflow_settings

fresh = itertools.count(1)


def new_task(taskflow: httpx2.Client, **fields: Any) -> dict[str, Any]:
    response = taskflow.post("/tasks", json={"project_id": 1, "title": "Write the manual", **fields})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


def assert_problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["title"]
    return problem


def test_a_task_moves_from_open_to_completed_and_each_step_is_stored(taskflow: httpx2.Client) -> None:
    task = new_task(taskflow, priority="urgent", due_date="2030-02-28")
    path = f"/tasks/{task['id']}"
    assert (task["status"], task["priority"], task["due_date"]) == ("open", "urgent", "2030-02-28")
    for step, body, status in [
        ("assign", {"assignee_id": 3}, "assigned"),
        ("start", None, "in_progress"),
        ("complete", None, "completed"),
    ]:
        moved = taskflow.post(f"{path}/{step}", json=body)
        assert moved.status_code == 200, moved.text
        assert moved.json()["status"] == status
        assert taskflow.get(path).json() == moved.json()
    final = taskflow.get(path).json()
    assert final["assignee_id"] == 3
    assert final["created_at"] < final["updated_at"]
    assert final["completed_at"] is not None


def test_a_created_thing_is_found_where_its_location_header_points(taskflow: httpx2.Client) -> None:
    number = next(fresh)
    for path, body in [
        ("/users", {"name": "Grace", "email": f"grace{number}@example.org"}),
        ("/projects", {"name": f"Located {number}", "owner_id": 1}),
        ("/tasks", {"project_id": 1, "title": "Look here"}),
    ]:
        created = taskflow.post(path, json=body)
        assert created.status_code == 201, created.text
        assert taskflow.get(created.headers["Location"]).json() == created.json()


@pytest.mark.parametrize("path", ["/tasks", "/projects", "/users"])
def test_the_pages_of_a_list_together_hold_every_item_once_and_in_order(
    taskflow: httpx2.Client, path: str
) -> None:
    seen: list[int] = []
    after: int | None = 0
    while after is not None:
        page = taskflow.get(path, params={"after": after, "limit": 7 if path != "/tasks" else 150}).json()
        seen += [item["id"] for item in page["items"]]
        after = page["next_after"]
    assert seen == sorted(set(seen))
    if path == "/tasks":
        assert set(range(1, SEEDED_TASKS + 1)) <= set(seen)


@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        ({"status": "completed"}, lambda task: task["status"] == "completed"),
        ({"priority": "urgent"}, lambda task: task["priority"] == "urgent"),
        ({"project_id": 2}, lambda task: task["project_id"] == 2),
        ({"assignee_id": 5}, lambda task: task["assignee_id"] == 5),
        ({"due_before": "2025-06-01"}, lambda task: task["due_date"] and task["due_date"] < "2025-06-01"),
        (
            {"status": "assigned", "project_id": 3},
            lambda task: (task["status"], task["project_id"]) == ("assigned", 3),
        ),
    ],
)
def test_a_filtered_list_is_the_full_list_without_the_rest(
    taskflow: httpx2.Client, filters: dict[str, Any], holds: Any
) -> None:
    everything = taskflow.get("/tasks", params={"limit": 200}).json()["items"]
    wanted = [task["id"] for task in everything if holds(task)]
    assert wanted
    found = taskflow.get("/tasks", params={"limit": 200, **filters}).json()["items"]
    assert [task["id"] for task in found if task["id"] <= everything[-1]["id"]] == wanted
    assert all(holds(task) for task in found)


def test_of_fifty_concurrent_assigns_of_one_task_exactly_one_wins(
    taskflow: httpx2.Client, taskflow_url: str
) -> None:
    task = new_task(taskflow)

    async def race() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=50)
        async with httpx2.AsyncClient(
            base_url=taskflow_url, timeout=60, limits=limits, trust_env=False
        ) as client:
            return await asyncio.gather(
                *(
                    client.post(f"/tasks/{task['id']}/assign", json={"assignee_id": 1 + number % 40})
                    for number in range(50)
                )
            )

    answers = asyncio.run(race())
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 49}
    [winner] = [answer.json() for answer in answers if answer.status_code == 200]
    assert taskflow.get(f"/tasks/{task['id']}").json()["assignee_id"] == winner["assignee_id"]


@pytest.mark.parametrize(
    ("taken", "refused"),
    [
        ([], "start"),
        ([], "complete"),
        (["assign"], "assign"),
        (["assign"], "complete"),
        (["assign", "start"], "start"),
        (["assign", "start", "complete"], "assign"),
        (["assign", "start", "complete"], "complete"),
    ],
)
def test_a_step_out_of_order_is_a_conflict_and_changes_nothing(
    taskflow: httpx2.Client, taken: list[str], refused: str
) -> None:
    path = f"/tasks/{new_task(taskflow)['id']}"
    body = {"assignee_id": 1}
    for step in taken:
        assert taskflow.post(f"{path}/{step}", json=body if step == "assign" else None).status_code == 200
    before = taskflow.get(path).json()
    problem = assert_problem(taskflow.post(f"{path}/{refused}", json={"assignee_id": 2}), 409)
    assert problem["type"] == "urn:taskflow:problem:invalid-transition"
    assert taskflow.get(path).json() == before


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/tasks", b"{", 422),
        ("POST", "/tasks", b'"\xff', 400),
        ("POST", "/tasks", b"[" * 100_000, 400),
        ("POST", "/tasks", b"", 422),
        ("POST", "/tasks", b"[]", 422),
        ("POST", "/tasks", b'{"project_id": 1}', 422),
        ("POST", "/tasks", b'{"project_id": 1, "title": "   "}', 422),
        ("POST", "/tasks", b'{"project_id": 1, "title": "a\\u0000b"}', 422),
        ("POST", "/tasks", b'{"project_id": 1, "title": "\\ud800"}', 422),
        ("POST", "/tasks", b'{"project_id": 1, "title": "%s"}' % (b"x" * 201), 422),
        ("POST", "/tasks", b'{"project_id": 1, "title": "x", "priority": "huge"}', 422),
        ("POST", "/tasks", b'{"project_id": 1, "title": "x", "due_date": "2025-02-30"}', 422),
        ("POST", "/tasks", b'{"project_id": 1, "title": "x", "status": "completed"}', 422),
        ("POST", "/tasks", b'{"project_id": 1e400, "title": "x"}', 422),
        ("POST", "/tasks", b'{"project_id": NaN, "title": "x"}', 422),
        ("POST", "/tasks", b'{"project_id": 99999999999999999999, "title": "x"}', 422),
        ("POST", "/tasks", b'{"project_id": 2147483647, "title": "x"}', 422),
        ("POST", "/tasks/1/assign", b'{"assignee_id": 2147483647}', 422),
        ("POST", "/projects", b'{"name": "p", "owner_id": 2147483647}', 422),
        ("POST", "/users", b'{"name": "x", "email": "nobody"}', 422),
        ("POST", "/users", b'{"name": "x", "email": "a\\u0000@b"}', 422),
        ("POST", "/tasks/2147483647/assign", b'{"assignee_id": 1}', 404),
        ("POST", "/tasks/2147483647/start", None, 404),
        ("GET", "/tasks/2147483647", None, 404),
        ("GET", "/tasks/99999999999999999999999", None, 422),
        ("GET", "/tasks/0", None, 422),
        ("GET", "/tasks/one", None, 422),
        ("GET", "/tasks?limit=0", None, 422),
        ("GET", "/tasks?limit=201", None, 422),
        ("GET", "/tasks?after=-1", None, 422),
        ("GET", "/tasks?status=lost", None, 422),
        ("GET", "/tasks?due_before=yesterday", None, 422),
        ("GET", "/projects/2147483647/dashboard", None, 404),
        ("GET", "/projects/1/dashboard?variant=slow", None, 422),
        ("GET", "/nowhere", None, 404),
        ("GET", "/%00%ff", None, 404),
        ("DELETE", "/tasks/1", None, 405),
    ],
)
def test_bad_input_is_answered_with_a_problem_document(
    taskflow: httpx2.Client, method: str, path: str, content: bytes | None, status: int
) -> None:
    headers = {"content-type": "application/json"} if content is not None else None
    assert_problem(taskflow.request(method, path, content=content, headers=headers), status)


def test_a_name_or_address_that_is_taken_is_a_conflict(taskflow: httpx2.Client) -> None:
    number = next(fresh)
    for path, body in [
        ("/projects", {"name": f"Only once {number}", "owner_id": 1}),
        ("/users", {"name": "Ada", "email": f"once{number}@example.org"}),
    ]:
        assert taskflow.post(path, json=body).status_code == 201
        assert_problem(taskflow.post(path, json=body), 409)


def test_a_validation_problem_names_the_field(taskflow: httpx2.Client) -> None:
    problem = assert_problem(taskflow.post("/tasks", json={"project_id": 1, "title": ""}), 422)
    assert [error["where"] for error in problem["errors"]] == ["body.title"]
    problem = assert_problem(taskflow.post("/tasks", json={"project_id": 2147483647, "title": "x"}), 422)
    assert [error["where"] for error in problem["errors"]] == ["body.project_id"]


def test_a_healthy_service_is_alive_and_ready(taskflow: httpx2.Client) -> None:
    assert taskflow.get("/healthz").json() == {"status": "ok"}
    ready = taskflow.get("/readyz").json()
    assert ready["status"] == "ok"
    assert {"database", "cache"} <= ready["parts"].keys()


def test_every_operation_of_the_openapi_document_refers_to_schemas_it_holds(taskflow: httpx2.Client) -> None:
    document = taskflow.get("/openapi.json")
    schemas = document.json()["components"]["schemas"]
    references = set(document.text.split('"#/components/schemas/')[1:])
    assert {reference.split('"')[0] for reference in references} <= schemas.keys()
    assign = document.json()["paths"]["/tasks/{task_id}/assign"]["post"]["responses"]
    assert list(assign["409"]["content"]) == ["application/problem+json"]


async def _answers_without_database(directory: Path, *paths: str) -> list[httpx2.Response]:
    app = create_app(taskflow_settings(directory / "missing"))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://taskflow") as client:
        answers = [await client.get(path) for path in paths]
    await app.state.taskflow.database.close()
    return answers


def test_without_its_database_the_service_is_alive_but_not_ready(tmp_path: Path) -> None:
    alive, ready, tasks = asyncio.run(_answers_without_database(tmp_path, "/healthz", "/readyz", "/tasks"))
    assert alive.status_code == 200
    assert_problem(ready, 503)
    assert_problem(tasks, 503)
    assert tasks.headers["retry-after"]


def test_a_defect_is_answered_without_its_details(tmp_path: Path) -> None:
    app = create_app(taskflow_settings(tmp_path))

    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError("a secret")

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://taskflow") as client:
            return await client.get("/defect")

    answer = asyncio.run(ask())
    assert_problem(answer, 500)
    assert "secret" not in answer.text
