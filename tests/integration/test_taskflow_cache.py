"""The cache of TaskFlow with a real Valkey: right answers whatever happens to it, and to the server."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
import redis
from fastapi import FastAPI
from pydantic import ValidationError

from taskflow.data.cache import ANSWER_SECONDS, Cache
from taskflow.data.models import TaskStatus
from taskflow.data.repo import Progress
from taskflow.data.valkey import EmbeddedValkey
from taskflow.settings import Settings, explain
from tests.integration.servers import Valkey, is_alive
from tests.integration.taskflow_client import running
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

PATIENCE_SECONDS = 60
TODAY = date(2025, 6, 1)
NUMBERS = Progress(dict.fromkeys(TaskStatus, 3), 1)
OTHER_NUMBERS = Progress(dict.fromkeys(TaskStatus, 4), 2)
Result = TypeVar("Result")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def with_cache(
    directory: Path, valkey: Valkey, work: Callable[[Cache], Awaitable[Result]], **settings: object
) -> Result:
    """What `work` returns, done with a cache on that server."""

    async def run() -> Result:
        cache = Cache(taskflow_settings(directory, redis_url=valkey.url, **settings))
        await cache.connect(valkey.url)
        try:
            return await work(cache)
        finally:
            await cache.close()

    return asyncio.run(run())


def with_taskflow(
    settings: Settings, work: Callable[[FastAPI, httpx2.AsyncClient], Awaitable[Result]]
) -> Result:
    seed_taskflow(settings, projects=2, tasks=40)

    async def run() -> Result:
        async with running(settings) as (app, client):
            return await work(app, client)

    return asyncio.run(run())


async def dashboard(client: httpx2.AsyncClient) -> dict[str, int]:
    answer = await client.get("/projects/1/dashboard?variant=fixed&limit=1")
    assert answer.status_code == 200, answer.text
    numbers: dict[str, int] = answer.json()["by_status"]
    return numbers


def test_what_was_stored_is_found_until_somebody_changes_it(tmp_path: Path, valkey: Valkey) -> None:
    async def work(cache: Cache) -> list[Progress | None]:
        found = [await cache.look(1, TODAY)]
        await cache.store(found[0], NUMBERS)
        found.append(await cache.look(1, TODAY))
        await cache.forget({1})
        found.append(await cache.look(1, TODAY))
        await cache.store(found[-1], OTHER_NUMBERS)
        found.append(await cache.look(1, TODAY))
        await asyncio.to_thread(cache.forget_in_thread, {1})
        found.append(await cache.look(1, TODAY))
        return [one.progress for one in found]

    assert with_cache(tmp_path, valkey, work) == [None, NUMBERS, None, OTHER_NUMBERS, None]


def test_a_slow_reader_does_not_put_back_what_a_writer_has_made_wrong(tmp_path: Path, valkey: Valkey) -> None:
    async def work(cache: Cache) -> list[Progress | None]:
        outcomes = []
        for forget in (cache.forget, lambda ids: asyncio.to_thread(cache.forget_in_thread, ids)):
            slow = await cache.look(1, TODAY)
            await forget({1})
            await cache.store(slow, NUMBERS)
            outcomes.append((await cache.look(1, TODAY)).progress)
        return outcomes

    assert with_cache(tmp_path, valkey, work) == [None, None]


def test_numbers_of_another_day_or_another_database_are_not_found(tmp_path: Path, valkey: Valkey) -> None:
    async def work(cache: Cache) -> list[Progress | None]:
        await cache.store(await cache.look(1, TODAY), NUMBERS)
        return [(await cache.look(1, day)).progress for day in (TODAY, date(2025, 6, 2))]

    assert with_cache(tmp_path, valkey, work) == [NUMBERS, None]

    async def look(cache: Cache) -> Progress | None:
        return (await cache.look(1, TODAY)).progress

    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert with_cache(tmp_path, valkey, look, database_url=other) is None
    assert with_cache(tmp_path, valkey, look) == NUMBERS


def test_a_copy_ends_by_itself_and_nonsense_is_no_copy(tmp_path: Path, valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:

        async def work(cache: Cache) -> list[Progress | None]:
            await cache.store(await cache.look(1, TODAY), NUMBERS)
            [key] = client.keys()
            assert 0 < client.ttl(key) <= 7
            outcomes = []
            for nonsense in ("", "{", "[]", "null", '[null, "2025-06-01", {}, 1]'):
                client.hset(key, "progress", nonsense)
                outcomes.append((await cache.look(1, TODAY)).progress)
            return outcomes

        assert with_cache(tmp_path, valkey, work, cache_seconds=7) == [None] * 5


def test_every_change_of_a_task_shows_at_once_although_numbers_are_cached(
    tmp_path: Path, valkey: Valkey
) -> None:
    async def work(app: FastAPI, client: httpx2.AsyncClient) -> None:
        today = datetime.now(UTC).date()
        numbers = await dashboard(client)
        for path, body, before, after in [
            ("/tasks", {"project_id": 1, "title": "Counted"}, None, "open"),
            ("/tasks/{}/assign", {"assignee_id": 1}, "open", "assigned"),
            ("/tasks/{}/start", None, "assigned", "in_progress"),
            ("/tasks/{}/complete", None, "in_progress", "completed"),
        ]:
            assert (await app.state.taskflow.cache.look(1, today)).progress is not None
            answer = await client.post(path.format(41), json=body)
            assert answer.status_code in (200, 201), answer.text
            expected = {**numbers, after: numbers[after] + 1}
            if before is not None:
                expected[before] -= 1
            numbers = await dashboard(client)
            assert numbers == expected

    with_taskflow(taskflow_settings(tmp_path, redis_url=valkey.url), work)


def test_when_the_server_dies_answers_stay_right_and_readiness_says_so_until_it_is_back(
    tmp_path: Path, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(app: FastAPI, client: httpx2.AsyncClient) -> None:
        async def condition() -> str:
            ready = await client.get("/readyz")
            assert ready.status_code == 200
            part: str = ready.json()["parts"]["cache"]
            assert ready.json()["status"] == ("ok" if part == "ok" else "degraded")
            return part

        before = await dashboard(client)
        assert await condition() == "ok"
        valkey.kill()
        for number in range(1, 6):
            created = await client.post("/tasks", json={"project_id": 1, "title": "Without a cache"})
            assert created.status_code == 201
            assert (await dashboard(client))["open"] == before["open"] + number
        assert (await condition()).startswith("degraded: ")
        valkey.start()

        async def is_back() -> bool:
            return await condition() == "ok"

        await until(is_back)
        assert (await dashboard(client))["open"] == before["open"] + 5

    with caplog.at_level(logging.WARNING, "taskflow.data.cache"):
        with_taskflow(taskflow_settings(tmp_path, redis_url=valkey.url), work)
    texts = [record.getMessage() for record in caplog.records if record.name == "taskflow.data.cache"]
    assert [text.split(":")[0] for text in texts] == [
        "TaskFlow runs without its cache and answers from the database",
        "TaskFlow's cache is back",
    ]


@pytest.mark.parametrize("in_thread", [False, True], ids=["coroutine", "thread"])
def test_what_was_changed_while_the_server_took_no_writes_is_forgotten_before_it_is_used_again(
    tmp_path: Path, valkey: Valkey, in_thread: bool
) -> None:
    with redis.Redis.from_url(valkey.url) as operator:

        async def work(cache: Cache) -> Progress | None:
            await cache.store(await cache.look(1, TODAY), NUMBERS)
            # Full: it refuses writes, and unlike a server that dies it keeps what it has.
            operator.config_set("maxmemory", 1)
            if in_thread:
                await asyncio.to_thread(cache.forget_in_thread, {1})
            else:
                await cache.forget({1})
            assert cache.state.startswith("degraded")
            operator.config_set("maxmemory", 0)

            async def usable() -> bool:
                return (await cache.look(1, TODAY)).storable

            await until(usable)
            return (await cache.look(1, TODAY)).progress

        assert with_cache(tmp_path, valkey, work) is None


def test_a_server_that_hangs_is_left_alone_for_a_while(tmp_path: Path, valkey: Valkey) -> None:
    async def work(cache: Cache) -> list[bool]:
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            first = await cache.look(1, TODAY)
            began = time.perf_counter()
            again = await cache.look(1, TODAY)
            # Far less than the timeouts of a connection and of an answer.
            asked = time.perf_counter() - began > ANSWER_SECONDS
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        return [first.storable, again.storable, asked]

    assert with_cache(tmp_path, valkey, work) == [False, False, False]


def test_without_a_cache_by_its_setting_everything_works(tmp_path: Path) -> None:
    async def work(app: FastAPI, client: httpx2.AsyncClient) -> Any:
        await dashboard(client)
        return (await client.get("/readyz")).json()

    ready = with_taskflow(taskflow_settings(tmp_path, redis_url="off"), work)
    assert (ready["status"], ready["parts"]["cache"]) == ("ok", "off")


@pytest.mark.parametrize("value", ["nonsense", "http://localhost", "redis://host:port"])
def test_a_cache_that_is_none_is_refused_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("REDIS_URL", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert "REDIS_URL" in explain(refused.value)


def test_the_embedded_server_listens_on_its_socket_alone_and_leaves_nothing_behind() -> None:
    async def run() -> tuple[int, Path]:
        async with EmbeddedValkey() as server:
            with redis.Redis.from_url(server.url, decode_responses=True) as client:
                assert client.config_get("port") == {"port": "0"}
                assert client.config_get("save") == {"save": ""}
            return server.pid, Path(server.url.removeprefix("unix://")).parent

    pid, folder = asyncio.run(run())
    assert not is_alive(pid)
    assert not folder.exists()


def test_the_embedded_server_does_not_outlive_a_taskflow_that_is_killed() -> None:
    program = (
        "import asyncio\n"
        "from taskflow.data.valkey import EmbeddedValkey\n"
        "async def live():\n"
        "    async with EmbeddedValkey() as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(live())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.kill()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
