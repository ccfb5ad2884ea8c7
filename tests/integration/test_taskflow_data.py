"""Threads and coroutines over one database: the two sides agree, and writers stand in one line."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from taskflow.data.database import Database, SyncDatabase
from taskflow.data.models import Priority, Task
from taskflow.data.repo import Repo, SyncRepo
from taskflow.data.turns import Turns
from taskflow.errors import NotFound, OutdatedSchema
from taskflow.settings import Settings
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

WRITERS = 8
ROUNDS = 15


def settings_of(database_url: str) -> Settings:
    return Settings.model_validate({"database_url": database_url, "redis_url": "off"})


def test_both_sides_have_the_same_methods() -> None:
    synchronous = {name for name in vars(SyncRepo) if not name.startswith("_")}
    awaited = {name for name in vars(Repo) if not name.startswith("_")} - {"changed_projects"}
    assert awaited == synchronous - {"must_exist"}
    assert all(vars(Repo)[name].__doc__ == vars(SyncRepo)[name].__doc__ for name in awaited)


def test_threads_and_coroutines_that_write_at_once_lose_nothing(database_url: str) -> None:
    settings = settings_of(database_url)
    seed_taskflow(settings, projects=1, tasks=1)

    async def run() -> int:
        database = Database(settings)

        def in_thread() -> None:
            for _ in range(ROUNDS):
                with database.sync.writing() as repo:
                    repo.set_minutes(1, repo.locked_task(1).minutes_spent + 1)

        async def in_coroutine() -> None:
            for _ in range(ROUNDS):
                async with database.writing() as repo:
                    task = await repo.locked_task(1)
                    await repo.set_minutes(1, task.minutes_spent + 1)

        with ThreadPoolExecutor(WRITERS) as threads:
            loop = asyncio.get_running_loop()
            await asyncio.gather(
                *(loop.run_in_executor(threads, in_thread) for _ in range(WRITERS)),
                *(in_coroutine() for _ in range(WRITERS)),
            )
        async with database.reading() as repo:
            minutes = (await repo.task(1)).minutes_spent
        await database.close()
        return minutes

    with SyncDatabaseOf(settings) as database, database.writing() as repo:
        repo.set_minutes(1, 0)
    assert asyncio.run(run()) == 2 * WRITERS * ROUNDS


class SyncDatabaseOf:
    """A synchronous database alone, as a worker process has it."""

    def __init__(self, settings: Settings) -> None:
        self._database = SyncDatabase(settings)

    def __enter__(self) -> SyncDatabase:
        return self._database

    def __exit__(self, *exception: object) -> None:
        self._database.close()


def test_two_processes_that_read_and_then_write_wait_for_each_other(database_url: str) -> None:
    settings = settings_of(database_url)
    seed_taskflow(settings, projects=1, tasks=1)

    def log(start: threading.Barrier) -> None:
        # An engine and a line of its own, like another process.
        with SyncDatabaseOf(settings) as database:
            start.wait()
            for _ in range(ROUNDS):
                with database.writing() as repo:
                    repo.set_minutes(1, repo.locked_task(1).minutes_spent + 1)

    with SyncDatabaseOf(settings) as database:
        with database.writing() as repo:
            repo.set_minutes(1, 0)
        start = threading.Barrier(2)
        with ThreadPoolExecutor(2) as processes:
            for finished in [processes.submit(log, start) for _ in range(2)]:
                finished.result()
        with database.reading() as repo:
            assert repo.task(1).minutes_spent == 2 * ROUNDS


def test_a_thread_waits_for_a_coroutine_longer_than_sqlite_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskflow.data.database.BUSY_TIMEOUT_MS", 1)
    settings = taskflow_settings(tmp_path)
    seed_taskflow(settings, projects=1, tasks=1)

    async def run() -> None:
        database = Database(settings)

        def in_thread() -> None:
            with database.sync.writing() as repo:
                repo.add_minutes(1, 1)

        async with database.writing() as repo:
            await repo.add_minutes(1, 1)
            waiting = asyncio.create_task(asyncio.to_thread(in_thread))
            await asyncio.wait([waiting], timeout=0.5)
            assert not waiting.done()
        await waiting
        await database.close()

    asyncio.run(run())


def test_a_transaction_of_a_thread_that_fails_leaves_nothing_and_frees_the_turn(database_url: str) -> None:
    settings = settings_of(database_url)
    seed_taskflow(settings, projects=1, tasks=0)
    with SyncDatabaseOf(settings) as database:
        identities: list[int] = []

        def fail() -> None:
            with database.writing() as repo:
                identities.append(repo.insert(Task(project_id=1, title="Never")).id)
                raise RuntimeError("on purpose")

        with pytest.raises(RuntimeError, match="on purpose"):
            fail()
        with database.writing() as repo, pytest.raises(NotFound):
            repo.task(identities[0])
        with database.writing() as repo:
            kept = repo.create_task(1, "Kept", "", Priority.LOW, None)
            assert repo.changed_projects == {1}
        with database.reading() as repo:
            assert repo.task(kept.id).title == "Kept"


def test_a_database_of_an_older_taskflow_is_refused_with_the_way_out(tmp_path: Path) -> None:
    settings = taskflow_settings(tmp_path)
    seed_taskflow(settings, projects=1, tasks=1)
    with SyncDatabaseOf(settings) as database, database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE tasks DROP COLUMN minutes_spent"))

    async def open_again() -> None:
        database = Database(settings)
        try:
            await database.create_schema()
        finally:
            await database.close()

    with pytest.raises(OutdatedSchema, match=r"tasks lacks minutes_spent(.|\n)*python -m taskflow seed"):
        asyncio.run(open_again())


def test_turns_are_taken_in_the_order_of_asking_and_a_waiter_may_give_up() -> None:
    async def run() -> list[str]:
        turns, order = Turns(), list[str]()

        async def coroutine(name: str) -> None:
            async with turns.awaited():
                order.append(name)

        def thread(name: str) -> None:
            with turns.in_thread():
                order.append(name)

        async def queued(length: int) -> None:
            while len(turns._waiting) != length:
                await asyncio.sleep(0.001)

        threads = [threading.Thread(target=thread, args=(name,)) for name in ("second", "fifth")]
        async with turns.awaited():
            waiting = [asyncio.create_task(coroutine("first"))]
            await queued(1)
            threads[0].start()
            await queued(2)
            waiting.append(asyncio.create_task(coroutine("gives up")))
            await queued(3)
            waiting.append(asyncio.create_task(coroutine("fourth")))
            await queued(4)
            threads[1].start()
            await queued(5)
            waiting[1].cancel()
            await asyncio.gather(waiting[1], return_exceptions=True)
        await asyncio.gather(*waiting, return_exceptions=True)
        for one in threads:
            await asyncio.to_thread(one.join)
        async with turns.awaited():
            order.append("free again")
        return order

    assert asyncio.run(run()) == ["first", "second", "fourth", "fifth", "free again"]


def test_a_waiter_cancelled_just_as_its_turn_comes_passes_it_on() -> None:
    async def run() -> bool:
        turns = Turns()

        async def take() -> None:
            async with turns.awaited():
                pass

        async with turns.awaited():
            late = asyncio.create_task(take())
            while not turns._waiting:
                await asyncio.sleep(0)
        # It has been handed the turn by now, and has not run since.
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        async with asyncio.timeout(60):
            await take()
        return late.cancelled()

    assert asyncio.run(run())
