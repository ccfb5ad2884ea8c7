"""TaskFlow's actors behind the web layer: crashes, crash loops, floods and races, each with its fixed twin."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from fastapi import FastAPI

from taskflow.actors.project_worker import ProjectWorker
from taskflow.actors.system import ActorSystem
from taskflow.actors.task_manager import TaskManager
from taskflow.process import ServerProcess
from taskflow.settings import Settings
from tests.integration.taskflow_client import running
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings
from tests.taskflow.children import Recorder, Stuck, wait_until

ASSIGNERS = 10
PROJECT_TASKS = 100
Result = TypeVar("Result")
Work = Callable[[FastAPI, httpx2.AsyncClient], Awaitable[Result]]


def with_taskflow(url: str, faults: str, work: Work[Result], **values: object) -> Result:
    """What `work` returns, done with a seeded TaskFlow of two projects that has `faults`."""
    settings = Settings.model_validate({"database_url": url, "faults": faults, "redis_url": "off", **values})
    seed_taskflow(settings, projects=2, tasks=2 * PROJECT_TASKS)
    before = set(threading.enumerate())

    async def run() -> Result:
        async with running(settings) as (app, client):
            return await work(app, client)

    result = asyncio.run(run())
    wait_until(lambda: set(threading.enumerate()) <= before)
    return result


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'taskflow.db'}"


def actors_of(app: FastAPI) -> ActorSystem:
    actors: ActorSystem = app.state.taskflow.actors
    return actors


def manager_of(app: FastAPI) -> TaskManager:
    manager = actors_of(app).task_manager()
    assert manager is not None
    return manager


def worker_of(app: FastAPI, project: int = 1) -> ProjectWorker:
    projects = actors_of(app).project_supervisor()
    assert projects is not None
    return projects.worker(project)


@contextmanager
def watching(app: FastAPI) -> Iterator[Recorder]:
    recorder = Recorder()
    actors_of(app).supervisor.add_listener(recorder)
    yield recorder
    actors_of(app).supervisor.remove_listener(recorder)


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, condition)


async def post(client: httpx2.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(path, json=body or None)
    assert answer.is_success, answer.text
    result: dict[str, Any] = answer.json()
    return result


async def completed_task(client: httpx2.AsyncClient, project: int = 1) -> int:
    task: int = (await post(client, "/tasks", project_id=project, title="To be done"))["id"]
    await post(client, f"/tasks/{task}/assign", assignee_id=1)
    await post(client, f"/tasks/{task}/start")
    await post(client, f"/tasks/{task}/complete")
    return task


async def stored_numbers(client: httpx2.AsyncClient, project: int = 1) -> dict[str, int]:
    """The project's tasks in each status, counted over all pages of the list."""
    numbers, after = Counter[str](), 0
    while after is not None:
        page = (await client.get(f"/tasks?project_id={project}&limit=200&after={after}")).json()
        numbers.update(task["status"] for task in page["items"])
        after = page["next_after"]
    return dict(numbers)


async def statistics(client: httpx2.AsyncClient, project: int = 1) -> dict[str, int]:
    answer = await client.get(f"/projects/{project}/statistics")
    assert answer.status_code == 200, answer.text
    return {status: count for status, count in answer.json()["by_status"].items() if count}


async def concurrently_assigned(app: FastAPI, client: httpx2.AsyncClient) -> list[tuple[int, int]]:
    """(task, assignee) as ten concurrent callers were told."""
    answers = await asyncio.gather(
        *(post(client, "/projects/1/assign-next", assignee_id=user) for user in range(1, ASSIGNERS + 1))
    )
    return [(answer["id"], answer["assignee_id"]) for answer in answers]


def test_assign_race_gives_one_task_to_everyone_who_comes_at_once(database_url: str) -> None:
    async def race(app: FastAPI, client: httpx2.AsyncClient) -> None:
        # Nobody leaves the window between check and act before all are in it.
        manager_of(app).in_race_window = threading.Barrier(ASSIGNERS).wait  # type: ignore[assignment]
        told = await concurrently_assigned(app, client)
        assert len({task for task, _ in told}) == 1
        assert {assignee for _, assignee in told} == set(range(1, ASSIGNERS + 1))
        task = (await client.get(f"/tasks/{told[0][0]}")).json()
        assert task["status"] == "assigned"  # to one of them; the others were told wrong

    with_taskflow(database_url, "assign_race", race)


def test_assign_race_also_shows_by_itself_in_its_natural_window(sqlite_url: str) -> None:
    async def race(app: FastAPI, client: httpx2.AsyncClient) -> None:
        for _ in range(20):
            told = await concurrently_assigned(app, client)
            if len({task for task, _ in told}) < ASSIGNERS:
                return
        pytest.fail("20 times 10 concurrent callers never got the same task")

    with_taskflow(sqlite_url, "assign_race", race)


def test_without_assign_race_everyone_gets_a_task_of_their_own(database_url: str) -> None:
    async def assign(app: FastAPI, client: httpx2.AsyncClient) -> None:
        for _ in range(2):
            told = await concurrently_assigned(app, client)
            assert len({task for task, _ in told}) == ASSIGNERS
            for task, assignee in told:
                assert (await client.get(f"/tasks/{task}")).json()["assignee_id"] == assignee
                assert manager_of(app).assignments[task] == assignee

    with_taskflow(database_url, "none", assign)


@pytest.mark.parametrize("faults", ["none", "assign_race"])
def test_the_most_urgent_then_oldest_open_task_comes_next_until_there_is_none(
    sqlite_url: str, faults: str
) -> None:
    async def assign(app: FastAPI, client: httpx2.AsyncClient) -> None:
        rank = {"urgent": 3, "high": 2, "normal": 1, "low": 0}
        for path, assignee, status in [("1", 10**6, 422), (str(10**6), 1, 404), ("0", 1, 422)]:
            answer = await client.post(f"/projects/{path}/assign-next", json={"assignee_id": assignee})
            assert answer.status_code == status, answer.text
        given = []
        while (answer := await client.post("/projects/1/assign-next", json={"assignee_id": 1})).is_success:
            given.append(answer.json())
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(given) > 10
        assert given == sorted(given, key=lambda t: (-rank[t["priority"]], t["created_at"], t["id"]))
        assert "open" not in await stored_numbers(client)

    with_taskflow(sqlite_url, faults, assign)


def test_worker_crash_restarts_the_worker_and_loses_nothing(database_url: str) -> None:
    async def complete(app: FastAPI, client: httpx2.AsyncClient) -> None:
        with watching(app) as seen:
            await completed_task(client)
            await until(lambda: ("child_restarted", "project 1") in seen.told)
            await completed_task(client)  # the second one crashes nobody
            assert await statistics(client) == await stored_numbers(client)
        crashes = [event for event in seen.events if event.kind == "child_terminated"]
        assert [(event.child, event.supervisor) for event in crashes] == [("project 1", "projects")]
        assert "SimulatedCrash: the first task completed in project 1" in crashes[0].reason
        [restarted] = [event for event in seen.events if event.kind == "child_restarted"]
        assert restarted.restart_count == 1

    with_taskflow(database_url, "worker_crash", complete)


def test_without_worker_crash_the_worker_lives(sqlite_url: str) -> None:
    async def complete(app: FastAPI, client: httpx2.AsyncClient) -> None:
        with watching(app) as seen:
            await completed_task(client)
            assert await statistics(client) == await stored_numbers(client)
        assert seen.told == [("child_started", "project 1")]

    with_taskflow(sqlite_url, "none", complete)


def test_crash_loop_exceeds_the_restart_intensity_and_the_api_keeps_answering(sqlite_url: str) -> None:
    async def provoke(app: FastAPI, client: httpx2.AsyncClient) -> None:
        with watching(app) as seen:
            await completed_task(client)
            await until(lambda: ("child_restarted", "projects") in seen.told)
        [exceeded] = [event for event in seen.events if event.kind == "max_restarts_exceeded"]
        assert (exceeded.supervisor, exceeded.child, exceeded.restart_count) == ("projects", "project 1", 21)
        assert "is in a crash loop" in exceeded.reason
        # Escalated once; from then on the unlucky project has no worker, and everyone else has one.
        with watching(app) as seen:
            answer = await client.get("/projects/1/statistics")
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert answer.json()["type"] == "urn:taskflow:problem:busy"
            assert "cannot be started" in answer.json()["detail"]
        # Perhaps twice: a change of the first task may have waited for the restarted supervisor.
        assert set(seen.told) == {("child_terminated", "project 1")}
        await completed_task(client, project=1)
        await completed_task(client, project=2)
        assert await statistics(client, project=2) == await stored_numbers(client, project=2)
        assert (await client.get("/readyz")).status_code == 200
        assert actors_of(app).supervisor.exit is None

    with_taskflow(sqlite_url, "crash_loop", provoke)


def test_without_crash_loop_nobody_gives_up(sqlite_url: str) -> None:
    async def work(app: FastAPI, client: httpx2.AsyncClient) -> None:
        with watching(app) as seen:
            for _ in range(3):
                await completed_task(client)
            assert await statistics(client) == await stored_numbers(client)
        assert {kind for kind, _ in seen.told} == {"child_started"}

    with_taskflow(sqlite_url, "none", work)


def longest_queue_after_one_completion(url: str, faults: str, **values: object) -> ProjectWorker:
    async def complete(app: FastAPI, client: httpx2.AsyncClient) -> ProjectWorker:
        worker = await asyncio.to_thread(worker_of, app)
        await completed_task(client)
        await until(lambda: worker.message_queue_length == 0)
        assert await statistics(client) == await stored_numbers(client)
        return worker

    return with_taskflow(url, faults, complete, **values)


def test_mailbox_flood_fills_the_workers_mailbox(sqlite_url: str) -> None:
    assert longest_queue_after_one_completion(sqlite_url, "mailbox_flood").mailbox.longest > PROJECT_TASKS / 2


def test_a_flooded_mailbox_drops_the_oldest_and_the_numbers_are_still_right(sqlite_url: str) -> None:
    worker = longest_queue_after_one_completion(sqlite_url, "mailbox_flood", worker_queue=10)
    assert worker.mailbox.longest == 10
    assert worker.mailbox.dropped > 0


def test_without_mailbox_flood_a_change_is_one_message(sqlite_url: str) -> None:
    assert longest_queue_after_one_completion(sqlite_url, "none").mailbox.longest <= 5


def test_a_crash_of_the_task_manager_loses_no_task_and_no_command(database_url: str) -> None:
    async def crash(app: FastAPI, client: httpx2.AsyncClient) -> None:
        manager, stuck = manager_of(app), Stuck()
        manager.in_race_window = stuck  # type: ignore[assignment]
        busy = threading.Thread(target=lambda: manager.actor_ref.proxy().in_race_window().get())
        busy.start()
        await until(stuck.entered.is_set)
        # The crash is first in line, the commands behind it die with the manager before they are begun.
        manager.actor_ref.proxy().simulate_crash()
        commands = [
            asyncio.ensure_future(post(client, "/tasks", project_id=1, title=f"Command {number}"))
            for number in range(20)
        ]
        await until(lambda: manager.message_queue_length == 21)
        before = await stored_numbers(client)
        stuck.released.set()
        created = await asyncio.gather(*commands)
        busy.join()
        assert manager.exit is not None
        successor = manager_of(app)
        assert successor is not manager
        after = await stored_numbers(client)
        assert after["open"] - before.get("open", 0) == len({task["id"] for task in created}) == 20
        # Its book is that of the database, and kept from then on.
        everywhere = Counter(after) + Counter(await stored_numbers(client, 2))
        under_way = everywhere["assigned"] + everywhere["in_progress"]
        assert len(successor.assignments) == under_way
        done = await completed_task(client)
        assert done not in successor.assignments
        assert (successor.created, successor.assigned, successor.completed) == (21, 1, 1)

    with_taskflow(database_url, "none", crash)


def test_commands_beyond_the_mailbox_get_503_and_leave_nothing(sqlite_url: str) -> None:
    async def overflow(app: FastAPI, client: httpx2.AsyncClient) -> None:
        manager, stuck = manager_of(app), Stuck()
        before = sum((await stored_numbers(client)).values())
        manager.in_race_window = stuck  # type: ignore[assignment]
        busy = threading.Thread(target=lambda: manager.actor_ref.proxy().in_race_window().get())
        busy.start()
        await until(stuck.entered.is_set)
        sent = [
            asyncio.ensure_future(client.post("/tasks", json={"project_id": 1, "title": f"Task {number}"}))
            for number in range(8)
        ]
        await until(lambda: manager.mailbox.refused == 5)
        stuck.released.set()
        answers = await asyncio.gather(*sent)
        busy.join()
        assert Counter(answer.status_code for answer in answers) == {201: 3, 503: 5}
        for answer in answers:
            if answer.status_code == 503:
                assert answer.headers["retry-after"]
                assert answer.headers["content-type"] == "application/problem+json"
        assert sum((await stored_numbers(client)).values()) == before + 3

    with_taskflow(sqlite_url, "none", overflow, command_queue=3)


def test_a_command_that_waits_too_long_gets_503_and_is_not_carried_out(sqlite_url: str) -> None:
    async def wait(app: FastAPI, client: httpx2.AsyncClient) -> None:
        manager, stuck = manager_of(app), Stuck()
        before = await stored_numbers(client)
        manager.in_race_window = stuck  # type: ignore[assignment]
        busy = threading.Thread(target=lambda: manager.actor_ref.proxy().in_race_window().get())
        busy.start()
        await until(stuck.entered.is_set)
        answer = await client.post("/tasks", json={"project_id": 1, "title": "Late"})
        assert answer.status_code == 503
        stuck.released.set()
        busy.join()
        await until(lambda: manager.message_queue_length == 0)
        assert await stored_numbers(client) == before

    with_taskflow(sqlite_url, "none", wait, command_seconds=0.2)


def test_a_tree_that_gave_up_refuses_commands_and_says_so_while_reads_go_on(sqlite_url: str) -> None:
    async def give_up(app: FastAPI, client: httpx2.AsyncClient) -> None:
        root = actors_of(app).supervisor
        while root.exit is None:
            manager = actors_of(app).task_manager()
            if manager is not None:
                manager.actor_ref.tell(lambda: None)  # unexpected messages are only logged
                manager.actor_ref.proxy().simulate_crash()
                await until(lambda manager=manager: manager.exit is not None)
        await until(root.join)
        for request in (
            client.post("/tasks", json={"project_id": 1, "title": "Refused"}),
            client.post("/projects/1/assign-next", json={"assignee_id": 1}),
            client.get("/projects/1/statistics"),
            client.get("/readyz"),
        ):
            answer = await request
            assert answer.status_code == 503, answer.text
            assert "supervision tree has ended" in answer.json()["detail"]
        assert (await client.get("/tasks?limit=1")).status_code == 200
        assert (await client.get("/healthz")).status_code == 200

    with_taskflow(sqlite_url, "none", give_up)


def test_more_active_projects_than_workers_retire_the_oldest(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskflow.actors.project_supervisor.MOST_WORKERS", 2)

    async def work(app: FastAPI, client: httpx2.AsyncClient) -> None:
        third = (await post(client, "/projects", name="A third one", owner_id=1))["id"]
        for project in (1, 2, third, 1):
            assert await statistics(client, project) == await stored_numbers(client, project)
        projects = actors_of(app).project_supervisor()
        assert projects is not None
        assert [child.name for child in projects.which_children()] == [f"project {third}", "project 1"]

    with_taskflow(sqlite_url, "none", work)


def test_statistics_of_an_unknown_project_start_no_worker(sqlite_url: str) -> None:
    async def ask(app: FastAPI, client: httpx2.AsyncClient) -> None:
        assert (await client.get("/projects/99/statistics")).status_code == 404
        assert (await client.get("/projects/x/statistics")).status_code == 422
        projects = actors_of(app).project_supervisor()
        assert projects is not None
        assert projects.which_children() == []

    with_taskflow(sqlite_url, "none", ask)


@pytest.mark.parametrize("faults", ["worker_crash,mailbox_flood", "crash_loop", "none"])
def test_a_served_taskflow_survives_its_workers_and_stops_cleanly(tmp_path: Path, faults: str) -> None:
    settings = taskflow_settings(tmp_path)
    seed_taskflow(settings, projects=2, tasks=2 * PROJECT_TASKS)
    environment = {"DATABASE_URL": settings.database_url, "TASKFLOW_FAULTS": faults}

    async def drive(url: str) -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
            tasks = await asyncio.gather(*(completed_task(client, 1 + n % 2) for n in range(20)))
            assert len(set(tasks)) == 20
            for project in (1, 2):
                while (answer := await client.get(f"/projects/{project}/statistics")).status_code == 503:
                    # A flooded worker is late, one in a crash loop stays away.
                    assert answer.headers["retry-after"]
                    if faults == "crash_loop":
                        break
                if answer.status_code != 503:
                    assert await statistics(client, project) == await stored_numbers(client, project)
            told = await asyncio.gather(
                *(post(client, "/projects/2/assign-next", assignee_id=n) for n in range(1, ASSIGNERS + 1))
            )
            assert len({task["id"] for task in told}) == ASSIGNERS

    with ServerProcess(tmp_path, environment) as server:
        asyncio.run(drive(server.url))
        assert server.stop() == 0
