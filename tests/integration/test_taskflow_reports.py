"""Annual reports by a real process: what they hold, what they cost, and what happens when it is killed."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from sqlalchemy import select

from taskflow.data.database import Database
from taskflow.data.models import Task
from taskflow.data.reports import ReportStatus
from taskflow.errors import NotFound, NothingToReport, ReportNotReady, ReportsUnavailable
from taskflow.integrations.storage import FileStorage
from taskflow.process import ServerProcess
from taskflow.services.report_messages import Failed, Finished, Message, Order, Progress, from_line, to_line
from taskflow.services.report_worker import write_annual_report as write_in_this_process
from taskflow.services.reports import (
    ReportGenerator,
    ReportView,
)
from taskflow.settings import Settings
from tests.integration.endpoints import DEADLINE_SECONDS, until
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

YEAR = 2025
DEADLINE = 4 * DEADLINE_SECONDS  # each process imports a lot before it begins
LONG_TEXT = " ".join(f"word{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" * 10) + " 0123456789" * 1500


@pytest.fixture(scope="session")
def small_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("small")
    seed_taskflow(taskflow_settings(directory), tasks=300)
    return directory / "taskflow.db"


@pytest.fixture(scope="session")
def large_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough text that a report takes a while, and that holding all of it shows."""
    directory = tmp_path_factory.mktemp("large")
    seed_taskflow(taskflow_settings(directory), tasks=4_000)
    with sqlite3.connect(directory / "taskflow.db") as connection:
        connection.execute(
            "UPDATE tasks SET description = ? || id WHERE created_at LIKE ?", (LONG_TEXT, f"{YEAR}%")
        )
    connection.close()
    return directory / "taskflow.db"


@pytest.fixture(scope="session")
def undisturbed(
    large_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ReportView, dict[str, Any]]:
    """The report on the large database, without any fault."""
    view, _, figures = made(settings_over(large_database, tmp_path_factory.mktemp("undisturbed")))
    return view, figures


def settings_over(database: Path, directory: Path, **values: object) -> Settings:
    copy = directory / "taskflow.db"
    if not copy.exists():
        shutil.copy(database, copy)
    return taskflow_settings(
        directory, **({"faults": "none", "storage_url": str(directory / "files")} | values)
    )


@asynccontextmanager
async def generating(settings: Settings) -> AsyncIterator[ReportGenerator]:
    database = Database(settings)
    try:
        await database.create_schema()
        async with ReportGenerator(settings, database, FileStorage(settings)) as generator:
            yield generator
    finally:
        await database.close()


async def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE
    while not (held := condition()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return held


def report_processes(below: int | None = None) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process(below).children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE and "taskflow.services.report_worker" in process.cmdline()
    ]


def made(settings: Settings, year: int = YEAR) -> tuple[ReportView, bytes, dict[str, Any]]:
    async def run() -> tuple[ReportView, bytes, dict[str, Any]]:
        async with generating(settings) as generator:
            view = await generator.generate_annual_report(year)
            assert view.status is ReportStatus.FINISHED, view.problem
            return (
                view,
                await generator.file(view.id, "html"),
                json.loads(await generator.file(view.id, "json")),
            )

    return asyncio.run(run())


def test_a_report_counts_the_tasks_of_its_year_and_holds_a_chart(database_url: str, tmp_path: Path) -> None:
    settings = taskflow_settings(
        tmp_path, database_url=database_url, storage_url=str(tmp_path / "files"), faults="none"
    )
    seed_taskflow(settings, tasks=300)
    view, page, figures = made(settings)

    async def tasks() -> list[Task]:
        database = Database(settings)
        async with database.reading() as repo:
            found = (await repo.session.scalars(select(Task))).all()
        await database.close()
        return [task for task in found if task.created_at.year == YEAR]

    expected = asyncio.run(tasks())
    assert 0 < len(expected) < 300
    assert view.tasks == figures["tasks"] == len(expected)
    assert (view.year, view.progress, view.restarts, view.problem) == (YEAR, 1.0, 0, None)
    assert view.cpu_seconds is not None
    assert view.cpu_seconds > 0
    assert view.finished_at is not None
    assert figures["months"][4]["created"] == sum(task.created_at.month == 5 for task in expected)
    assert page.startswith(b"<!doctype html>")
    assert b"data:image/png;base64,iVBOR" in page
    assert figures["projects"][0]["name"].startswith("Project ")
    assert not report_processes()


def test_a_process_that_keeps_dying_is_given_up_and_the_next_report_begins(
    small_database: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        settings = settings_over(small_database, tmp_path, report_max_restarts=2)
        async with generating(settings) as generator:
            doomed = await generator.request(YEAR)
            killed: set[int] = set()
            while doomed.id in generator._runs:
                for process in report_processes():
                    if process.pid not in killed:
                        killed.add(process.pid)
                        os.kill(process.pid, signal.SIGKILL)
                await asyncio.sleep(0.01)
            view = await generator.view(doomed.id)
            assert view.status is ReportStatus.FAILED
            assert len(killed) == 3
            assert "was ended by SIGKILL" in (view.problem or "")
            with pytest.raises(ReportNotReady, match="failed"):
                await generator.file(doomed.id, "html")
            assert (await generator.request(YEAR)).id != doomed.id
            await eventually(report_processes)

    asyncio.run(run())


def test_a_stopped_service_ends_its_processes_and_begins_their_reports_anew_at_its_next_start(
    large_database: Path, tmp_path: Path
) -> None:
    settings = settings_over(large_database, tmp_path)

    async def begin() -> int:
        async with generating(settings) as generator:
            report = await generator.request(YEAR)
            await eventually(lambda: generator._runs[report.id].progress > 0)
            assert report_processes()
        assert not report_processes()
        return report.id

    async def resume(report_id: int) -> None:
        async with generating(settings) as generator:
            assert (await generator.request(YEAR)).id == report_id
            await eventually(lambda: generator._runs[report_id].progress > 0)
            assert len(report_processes()) == 1

    asyncio.run(resume(asyncio.run(begin())))


def test_a_year_without_tasks_is_refused_and_leaves_nothing(small_database: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with generating(settings_over(small_database, tmp_path)) as generator:
            for _ in range(2):
                with pytest.raises(NothingToReport, match="No task was created in 1999"):
                    await generator.request(1999)
            assert await generator.page(0, 10) == []
            with pytest.raises(NotFound):
                await generator.view(1)
            with pytest.raises(NotFound):
                await generator.file(1, "html")
            assert not generator._under_way

    asyncio.run(run())


def test_storage_that_another_process_cannot_see_is_refused(small_database: Path, tmp_path: Path) -> None:
    async def run() -> None:
        settings = settings_over(small_database, tmp_path, storage_url="memory://here")
        async with generating(settings) as generator:
            with pytest.raises(ReportsUnavailable, match="private to this one"):
                await generator.request(YEAR)

    asyncio.run(run())


def test_the_fault_failing_storage_fails_the_report_without_a_restart(
    small_database: Path, tmp_path: Path
) -> None:
    async def run() -> None:
        settings = settings_over(
            small_database, tmp_path, faults="failing_storage", external_backoff_seconds=0.01
        )
        async with generating(settings) as generator:
            view = await generator.generate_annual_report(YEAR)
            assert (view.status, view.restarts) == (ReportStatus.FAILED, 0)
            assert "No space left" in (view.problem or "")
            with pytest.raises(ReportNotReady):
                await generator.file(view.id, "html")

    asyncio.run(run())


@pytest.mark.parametrize(("fault", "reports"), [("check_then_act_await", 2), ("none", 1)])
def test_two_callers_start_a_report_twice_with_the_fault_and_once_without(
    small_database: Path, tmp_path: Path, fault: str, reports: int
) -> None:
    async def run() -> None:
        async with generating(settings_over(small_database, tmp_path, faults=fault)) as generator:
            answers = await asyncio.gather(generator.request(YEAR), generator.request(YEAR))
            assert len({answer.id for answer in answers}) == reports
            assert len(await generator.page(0, 10)) == reports
            later = await generator.request(YEAR)
            assert later.id in {answer.id for answer in answers}

    asyncio.run(run())


def test_the_fault_memory_hungry_report_needs_far_more_memory_for_the_same_report(
    large_database: Path, undisturbed: tuple[ReportView, dict[str, Any]], tmp_path: Path
) -> None:
    hungry, _, figures = made(settings_over(large_database, tmp_path, faults="memory_hungry_report"))
    fixed, the_same_figures = undisturbed
    assert figures == the_same_figures
    assert hungry.peak_memory is not None
    assert fixed.peak_memory is not None
    print(hungry.peak_memory, fixed.peak_memory)
    assert hungry.peak_memory > 1.5 * fixed.peak_memory


def test_the_process_ends_when_nobody_holds_its_input_open_any_more(
    large_database: Path, tmp_path: Path
) -> None:
    settings = settings_over(large_database, tmp_path)
    order = json.dumps(
        {"report_id": 1, "year": YEAR, "settings": Order.of(1, YEAR, settings).settings}
    ).encode()
    process = subprocess.Popen(
        [sys.executable, "-m", "taskflow.services.report_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(order + b"\n")
    process.stdin.flush()
    assert from_line(process.stdout.readline()) == Progress(0.0)
    process.stdin.close()
    assert process.wait(DEADLINE) == 3
    process.stdout.close()
    assert not (tmp_path / "files").exists()


def test_messages_survive_the_pipe_and_anything_else_is_refused() -> None:
    for message in (Progress(0.5), Finished(1, 2.5, 3), Failed("“no”\n")):
        assert from_line(to_line(message)) == message
    for nonsense in (b"", b"[]", b"{}", b'{"Other": {}}', b'{"Progress": {"x": 1}}', b"\xff"):
        with pytest.raises(ValueError):
            from_line(nonsense)


def test_a_page_shows_names_as_they_are_and_runs_none_of_them(small_database: Path, tmp_path: Path) -> None:
    settings = settings_over(small_database, tmp_path)
    with sqlite3.connect(tmp_path / "taskflow.db") as connection:
        connection.execute("UPDATE projects SET name = '<script>alert(1)</script>' || id")
    connection.close()
    write_in_this_process(Order.of(1, YEAR, settings), lambda message: None)
    page = FileStorage(settings).read(f"reports/{YEAR}/annual-{YEAR}-1.html")
    assert b"&lt;script&gt;alert(1)" in page
    assert b"<script>" not in page


def test_the_worker_tells_of_its_progress_in_order(small_database: Path, tmp_path: Path) -> None:
    told: list[Message] = []
    write_in_this_process(Order.of(7, YEAR, settings_over(small_database, tmp_path)), told.append)
    *progress, outcome = told
    assert isinstance(outcome, Finished)
    done = [message.done for message in progress if isinstance(message, Progress)]
    assert len(done) == len(progress)
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0.0, 1.0)
    stored = FileStorage(settings_over(small_database, tmp_path)).names()
    assert stored == [f"reports/{YEAR}/annual-{YEAR}-7.html", f"reports/{YEAR}/annual-{YEAR}-7.json"]


def wait_for_report(client: httpx2.Client, location: str) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE
    while (report := client.get(location).json())["status"] in ("waiting", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return report  # type: ignore[no-any-return]


def test_over_http_a_report_is_asked_for_watched_and_fetched(taskflow: httpx2.Client) -> None:
    asked = taskflow.post("/reports", json={"year": YEAR})
    assert asked.status_code == 202
    location = asked.headers["location"]
    assert location == f"/reports/{asked.json()['id']}"
    early = taskflow.get(f"{location}/file")
    assert early.status_code in (409, 200)
    report = wait_for_report(taskflow, location)
    assert (report["status"], report["progress"]) == ("finished", 1.0)
    page = taskflow.get(f"{location}/file")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"Annual report {YEAR}" in page.text
    figures = taskflow.get(f"{location}/file?format=json")
    assert figures.headers["content-type"] == "application/json"
    assert figures.json()["tasks"] == report["tasks"]
    assert report["id"] in [item["id"] for item in taskflow.get("/reports").json()["items"]]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "slug"),
    [
        ("POST", "/reports", {"year": 1999}, 422, "nothing-to-report"),
        ("POST", "/reports", {"year": 1969}, 422, "invalid-request"),
        ("POST", "/reports", {"year": 9999}, 422, "invalid-request"),
        ("POST", "/reports", {"year": "soon"}, 422, "invalid-request"),
        ("POST", "/reports", {}, 422, "invalid-request"),
        ("GET", "/reports/999999", None, 404, "not-found"),
        ("GET", "/reports/0", None, 422, "invalid-request"),
        ("GET", "/reports/999999/file", None, 404, "not-found"),
        ("GET", "/reports/1/file?format=exe", None, 422, "invalid-request"),
    ],
)
def test_over_http_bad_requests_for_reports_are_problems(
    taskflow: httpx2.Client, method: str, path: str, body: object, status: int, slug: str
) -> None:
    answer = taskflow.request(method, path, json=body)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:taskflow:problem:{slug}")
    assert answer.headers["content-type"] == "application/problem+json"


def environment_of(settings: Settings) -> dict[str, str]:
    return {
        "DATABASE_URL": settings.database_url,
        "TASKFLOW_STORAGE_URL": settings.storage_url,
        "TASKFLOW_FAULTS": "none",
    }


def test_a_killed_process_is_started_again_while_the_api_keeps_answering_and_the_report_is_whole(
    large_database: Path, undisturbed: tuple[ReportView, dict[str, Any]], tmp_path: Path
) -> None:
    with (
        ServerProcess(tmp_path, environment_of(settings_over(large_database, tmp_path))) as server,
        httpx2.Client(base_url=server.url, timeout=DEADLINE, trust_env=False) as client,
    ):
        location = client.post("/reports", json={"year": YEAR}).headers["location"]
        until(lambda: client.get(location).json()["progress"] > 0, DEADLINE)
        [process] = report_processes(server.pid)
        os.kill(process.pid, signal.SIGKILL)
        seen = []
        while (report := client.get(location).json())["status"] == "running":
            seen.append(report["progress"])
            assert client.get("/tasks?limit=1").status_code == 200
        assert (report["status"], report["restarts"]) == ("finished", 1)
        assert client.get(f"{location}/file?format=json").json() == undisturbed[1]
        progress = [*seen, report["progress"]]
        assert progress[0] > 0
        assert progress == sorted(progress)
        assert len(set(progress)) > 2
    assert server.stop() == 0


def test_a_killed_service_takes_its_report_process_along_and_the_next_one_makes_the_report(
    large_database: Path, tmp_path: Path
) -> None:
    environment = environment_of(settings_over(large_database, tmp_path))
    with (
        ServerProcess(tmp_path, environment) as server,
        httpx2.Client(base_url=server.url, timeout=DEADLINE, trust_env=False) as client,
    ):
        location = client.post("/reports", json={"year": YEAR}).headers["location"]
        until(lambda: client.get(location).json()["progress"] > 0, DEADLINE)
        [process] = report_processes(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        process.wait(DEADLINE)
    with (
        ServerProcess(tmp_path, environment) as server,
        httpx2.Client(base_url=server.url, timeout=DEADLINE, trust_env=False) as client,
    ):
        assert wait_for_report(client, location)["status"] == "finished"
