"""The faults that touch the database, and their fixed twins, on SQLite and on PostgreSQL."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import event

from taskflow.data.models import Task
from taskflow.settings import Settings
from taskflow.web.export import DISK_SECONDS
from tests.integration.taskflow_client import running
from tests.integration.taskflow_database import seed_taskflow

AT_ONCE = 16
TRIES = 50  # until a fault shows
TRIALS = 5  # of code that has no fault
Result = TypeVar("Result")


def with_taskflow(
    database_url: str, faults: str, work: Callable[[FastAPI, httpx2.AsyncClient], Awaitable[Result]]
) -> Result:
    """What `work` returns, done with a seeded TaskFlow that has `faults`."""
    settings = Settings.model_validate({"database_url": database_url, "faults": faults, "redis_url": "off"})
    seed_taskflow(settings, projects=2, tasks=200)

    async def run() -> Result:
        async with running(settings) as (app, client):
            return await work(app, client)

    return asyncio.run(run())


async def new_task(client: httpx2.AsyncClient, **fields: Any) -> int:
    answer = await client.post("/tasks", json={"project_id": 1, "title": "Contended", **fields})
    assert answer.status_code == 201, answer.text
    identity: int = answer.json()["id"]
    return identity


async def logged_and_stored_minutes(app: FastAPI, client: httpx2.AsyncClient) -> tuple[int, int]:
    """Minutes that concurrent callers were told are logged, and what is stored; the first pair that differs."""
    logged = stored = 0
    for _ in range(TRIES if app.state.taskflow.settings.faults else TRIALS):
        task = await new_task(client)
        answers = await asyncio.gather(
            *(client.post(f"/tasks/{task}/time", json={"minutes": 1}) for _ in range(AT_ONCE))
        )
        logged = sum(answer.status_code == 200 for answer in answers)
        stored = (await client.get(f"/tasks/{task}")).json()["minutes_spent"]
        if stored != logged:
            break
    return logged, stored


def test_lost_update_loses_minutes_of_concurrent_callers(database_url: str) -> None:
    logged, stored = with_taskflow(database_url, "lost_update", logged_and_stored_minutes)
    assert 0 < stored < logged


def test_without_lost_update_every_minute_counts(database_url: str) -> None:
    assert with_taskflow(database_url, "none", logged_and_stored_minutes) == (AT_ONCE, AT_ONCE)


async def watchers_left(app: FastAPI, client: httpx2.AsyncClient) -> tuple[list[int], int]:
    """What two concurrent removals of both watchers of an urgent task were answered, and who is left."""
    statuses: list[int] = []
    left = 0
    for _ in range(TRIES if app.state.taskflow.settings.faults else TRIALS):
        task = await new_task(client, priority="urgent")
        path = f"/tasks/{task}/watchers"
        for user in (1, 2):
            assert (await client.post(path, json={"user_id": user})).status_code == 201
        answers = await asyncio.gather(*(client.delete(f"{path}/{user}") for user in (1, 2)))
        statuses = sorted(answer.status_code for answer in answers)
        left = len((await client.get(path)).json())
        if left != 1:
            break
    return statuses, left


def test_write_skew_leaves_an_urgent_task_without_watchers(database_url: str) -> None:
    assert with_taskflow(database_url, "write_skew", watchers_left) == ([204, 204], 0)


def test_without_write_skew_an_urgent_task_keeps_a_watcher(database_url: str) -> None:
    assert with_taskflow(database_url, "none", watchers_left) == ([204, 409], 1)


async def people_with_statements(app: FastAPI, client: httpx2.AsyncClient) -> tuple[list[Any], int]:
    """The people of a project, and how many SELECTs of users they took."""
    statements: list[str] = []
    engine = app.state.taskflow.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    answer = await client.get("/projects/1/people")
    assert answer.status_code == 200, answer.text
    return answer.json(), sum("FROM users" in statement for statement in statements)


def test_n_plus_one_get_loop_asks_for_each_person_and_its_twin_once(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    faulty, many = with_taskflow(database_url, "n_plus_one_get_loop", people_with_statements)
    other = f"sqlite:///{tmp_path_factory.mktemp('twin') / 'taskflow.db'}"
    fixed, few = with_taskflow(other, "none", people_with_statements)
    assert len(faulty) > 10
    assert (many, few) == (len(faulty), 1)
    assert [person["id"] for person in faulty] == [person["id"] for person in fixed]


async def found_and_loaded(app: FastAPI, client: httpx2.AsyncClient) -> tuple[list[Any], int]:
    """What a search finds, and how many rows its statements brought."""
    loaded = 0

    def count(*_call: Any) -> None:
        nonlocal loaded
        loaded += 1

    event.listen(Task, "load", count)
    try:
        answer = await client.get("/tasks/search", params={"q": "INVOICE", "limit": 3})
    finally:
        event.remove(Task, "load", count)
    assert answer.status_code == 200, answer.text
    return [(task["id"], task["title"]) for task in answer.json()], loaded


@pytest.mark.parametrize(("faults", "rows"), [("slow_endpoint", 200), ("none", 3)])
def test_slow_endpoint_loads_every_task_and_its_twin_only_what_it_shows(
    database_url: str, faults: str, rows: int
) -> None:
    found, loaded = with_taskflow(database_url, faults, found_and_loaded)
    assert loaded == rows
    assert len(found) == 3
    assert all("invoice" in title for _, title in found)
    assert found == sorted(found)


def test_a_search_takes_percent_and_underscore_literally(database_url: str) -> None:
    async def search(_app: FastAPI, client: httpx2.AsyncClient) -> list[Any]:
        for title in ("100% done", "100 percent", "under_score"):
            await new_task(client, title=title)
        answers = [await client.get("/tasks/search", params={"q": text}) for text in ("100%", "R_S", "%")]
        return [[task["title"] for task in answer.json()] for answer in answers]

    assert with_taskflow(database_url, "none", search) == [["100% done"], ["under_score"], ["100% done"]]


async def longest_silence(_app: FastAPI, client: httpx2.AsyncClient) -> float:
    """The longest time for which the event loop did not turn while a project was exported, in seconds."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - began)

    watching = asyncio.create_task(watch())
    answer = await client.get("/projects/1/export")
    await asyncio.sleep(0.01)
    watching.cancel()
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    return longest


def test_blocking_call_holds_the_event_loop_and_its_twin_less(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert with_taskflow(database_url, "blocking_call", longest_silence) >= DISK_SECONDS
    # On a busy machine a single silence may be long for other reasons; the fault is always there.
    folder = tmp_path_factory.mktemp("twin")
    silences = (
        with_taskflow(f"sqlite:///{folder / f'{number}.db'}", "none", longest_silence) for number in range(20)
    )
    assert any(silence < DISK_SECONDS for silence in silences)


def test_an_export_holds_every_task_and_no_formula(database_url: str) -> None:
    async def export(_app: FastAPI, client: httpx2.AsyncClient) -> list[str]:
        await new_task(client, title='=cmd|"/C calc"!A1', description="never exported")
        answer = await client.get("/projects/1/export")
        again = await client.get("/projects/1/export")
        assert answer.headers["etag"] == again.headers["etag"]
        return answer.text.splitlines()

    lines = with_taskflow(database_url, "none", export)
    assert len(lines) == 1 + 100 + 1
    assert lines[-1].startswith('201,"\'=cmd|""/C calc""!A1",open,normal,')


def test_assign_next_takes_the_most_urgent_then_oldest_and_no_task_twice(database_url: str) -> None:
    async def take_all(_app: FastAPI, client: httpx2.AsyncClient) -> tuple[list[int], list[Any]]:
        project = await client.post("/projects", json={"name": "A queue", "owner_id": 1})
        path = f"/projects/{project.json()['id']}"
        created = [
            await new_task(client, project_id=project.json()["id"], priority=priority)
            for priority in ("low", "urgent", "normal", "urgent", "high", *["low"] * AT_ONCE)
        ]
        first = [
            (await client.post(f"{path}/assign-next", json={"assignee_id": 1})).json()["id"] for _ in range(4)
        ]
        assert first == [created[index] for index in (1, 3, 4, 2)]
        answers = await asyncio.gather(
            *(client.post(f"{path}/assign-next", json={"assignee_id": 2}) for _ in range(AT_ONCE + 1))
        )
        assert {answer.status_code for answer in answers} == {200}
        taken = [answer.json()["id"] for answer in answers]
        left = await client.post(f"{path}/assign-next", json={"assignee_id": 2})
        return sorted(first + taken), [sorted(created), left.status_code, left.json()["type"]]

    taken, [created, status, kind] = with_taskflow(database_url, "none", take_all)
    assert taken == created
    assert (status, kind) == (404, "urn:taskflow:problem:nothing-available")
