"""The dashboard inside the service that it shows: what it shows of it, what it may do to it, and what it never does."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from fastapi import FastAPI
from viewing import TOKEN, Page, served, wait_until

import pyscope
from pyscope import live, recorder
from pyscope.errors import NotRecording
from pyscope.events.supervision import CHILD
from pyscope.live.controls import Controls
from pyscope.live.mounting import Dashboard
from pyscope.live.source import OwnSource
from taskflow.process import ServerProcess
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

MOUNT = "/admin/pyscope"
SETTINGS = {"modules": [__name__], "probes": ["asgi"], "ring_mb": 8}


@pytest.fixture(params=["apart", "inside"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with a_service(apart=request.param == "apart") as found:
        yield found


@contextmanager
def a_service(*, apart: bool) -> Iterator[int]:
    app = FastAPI()

    @app.get("/greet/{name}")
    async def greet(name: str) -> str:
        return f"hello {name}"

    live.mount(app, MOUNT, token=TOKEN, apart=apart, settings=SETTINGS)
    with served(app) as port:
        yield port
    if recorder.active() is not None:
        pyscope.stop()


def greet(port: int, name: str) -> None:
    assert httpx.get(f"http://127.0.0.1:{port}/greet/{name}").status_code == 200


def test_recording_is_started_stopped_dumped_and_started_again_from_the_page(
    port: int, tmp_path: Path
) -> None:
    with Page(port, MOUNT) as page:
        assert page.hear_type("status")["state"] == "waiting"
        assert page.hear_type("hello")["controls"]["start"]
        started = page.control("start")
        assert started.json()["ok"], started.text
        assert recorder.active() is not None
        page.hear(lambda: page.last["hello"]["controls"]["stop"] and page.state == "live")
        greet(port, "ann")
        page.hear(lambda: any(row["route"] == "/greet/{name}" for row in page.requests.values()))
        dumped = Path(page.control("dump").json()["message"].removeprefix("written to "))
        assert "/greet/{name}" in pyscope.load(dumped).scopes["route"]
        shutil.rmtree(dumped.parent)
        again = page.control("start")
        assert again.status_code == 409
        assert "already" in again.json()["error"]
        assert page.control("stop").json()["ok"]
        assert recorder.active() is None
        page.hear(lambda: page.state == "ended")
        page.hear(lambda: page.last["hello"]["controls"]["start"])
        assert page.last["hello"]["source"]["state"] == "stopped"
        assert page.control("stop").status_code == 409
        page.requests.clear()
        assert page.control("start").json()["ok"]
        page.hear(lambda: page.state == "live")
        greet(port, "bob")
        page.hear(lambda: any(row["name"] == "GET /greet/bob" for row in page.requests.values()))


def test_the_dashboard_does_not_show_itself(port: int) -> None:
    with Page(port, MOUNT) as page:
        page.control("start")
        page.hear(lambda: page.state == "live")
        for path in ("/", "/api/functions", "/api/queries", "/api/flame", "/none"):
            page.http.get(path)
        with Page(port, MOUNT) as second:
            second.hear_type("hello")
        greet(port, "cleo")
        page.hear(lambda: any(row["name"] == "GET /greet/cleo" for row in page.requests.values()))
        assert {row["name"] for row in page.requests.values()} == {"GET /greet/cleo"}


def test_without_viewers_it_has_no_thread_until_someone_comes() -> None:
    before = threading.active_count(), psutil.Process().num_threads()
    dashboard = Dashboard(OwnSource(), TOKEN)
    assert threading.active_count() <= before[0]  # fewer: some test's before it may be on its way out
    assert psutil.Process().num_threads() <= before[1]
    dashboard.close()


def test_it_ends_its_reading_once_nobody_has_looked_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    pyscope.start(None, mode="flight", **SETTINGS)
    dashboard = Dashboard(OwnSource(), TOKEN, resting=1.0)
    try:
        with served(dashboard.app) as port:
            with Page(port) as page:
                page.hear(lambda: page.state == "live")
                assert dashboard.feed._shown is not None
            wait_until(lambda: not dashboard.feed._thread.alive)
            assert dashboard.feed._shown is None  # nor is the ring mapped any more
            with Page(port) as page:
                page.hear(lambda: page.state == "live")
    finally:
        dashboard.close()
        pyscope.stop()


def test_a_fault_inside_the_dashboard_is_told_on_the_page_and_the_service_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pyscope.live import following

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    with a_service(apart=False) as port, Page(port, MOUNT) as page:
        page.control("start")
        page.hear(lambda: page.state == "live")
        with monkeypatch.context() as patched:
            patched.setattr(following.Slicer, "slice", fail)
            greet(port, "dan")
            page.hear(lambda: page.state == "error")
            assert "a defect" in page.last["status"]["message"]
            greet(port, "eve")
        page.hear(lambda: page.state == "live")
        page.hear(lambda: any(row["name"] == "GET /greet/dan" for row in page.requests.values()))


def test_a_recording_is_downloaded_though_nobody_looks(port: int, tmp_path: Path) -> None:
    def download() -> httpx.Response:
        url = f"http://127.0.0.1:{port}{MOUNT}/api/download"
        return httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)

    refused = download()
    assert (refused.status_code, refused.json()) == (409, {"error": "there is no recording to download"})
    with pyscope.record(tmp_path / "run.pyscope", modules=[__name__], probes=[], ring_mb=8):
        answer = download()
    assert answer.status_code == 200, answer.text
    assert "run.pyscope" in answer.headers["Content-Disposition"]
    pyscope.start(None, mode="flight", **SETTINGS)
    (tmp_path / "fetched.pyscope").write_bytes(download().content)
    pyscope.stop()
    assert pyscope.load(tmp_path / "fetched.pyscope").processes


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, while a flight recorder runs."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def controls(temporary: Path) -> Iterator[Controls]:
    pyscope.start(None, mode="flight", **SETTINGS)
    yield Controls(OwnSource(), read_only=False)
    pyscope.stop()


def test_dumps_of_one_second_and_downloads_are_apart(controls: Controls) -> None:
    first, second = (Path(controls.dump().removeprefix("written to ")) for _ in range(2))
    assert first != second
    name, pieces = controls.download(OwnSource().locate())
    assert b"".join(pieces)
    assert first.exists()
    assert second.exists()
    for path in (first, second):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.name.startswith(f"dump-{os.getpid()}-")
    assert name.endswith(".pyscope")


def test_a_download_that_is_broken_off_leaves_nothing_behind(controls: Controls, temporary: Path) -> None:
    _, pieces = controls.download(OwnSource().locate())
    assert not list(temporary.iterdir())
    assert next(pieces)  # it is read nevertheless
    pieces.close()  # type: ignore[attr-defined]


def test_a_dump_that_cannot_be_made_leaves_nothing_behind(temporary: Path) -> None:
    with pytest.raises(NotRecording, match="nothing to dump"):
        Controls(OwnSource(), read_only=False).dump()
    assert not list(temporary.iterdir())


def readers() -> list[psutil.Process]:
    """The processes that read for dashboards of this one."""
    return [
        child for child in psutil.Process().children() if "pyscope.live.reader" in " ".join(child.cmdline())
    ]


def test_a_question_before_anyone_has_looked_is_answered() -> None:
    with a_service(apart=True) as port:
        pyscope.start(None, mode="flight", **SETTINGS)
        greet(port, "gil")
        url = f"http://127.0.0.1:{port}{MOUNT}/api/functions"
        answer = httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
        assert answer.status_code in (200, 409)  # 409: the reader has not begun to read
        wait_until(
            lambda: (
                httpx.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60).json().get("total")
            )
        )
        pyscope.stop()


def test_a_reader_that_is_killed_is_begun_anew_and_the_page_goes_on() -> None:
    before = readers()
    with a_service(apart=True) as port, Page(port, MOUNT) as page:
        page.control("start")
        page.hear(lambda: page.state == "live")
        [reader] = set(readers()) - set(before)
        reader.kill()
        page.hear(lambda: page.state == "error")
        greet(port, "flo")
        page.hear(lambda: page.state == "live")
        page.hear(lambda: any(row["name"] == "GET /greet/flo" for row in page.requests.values()))
        assert page.http.get("/api/functions").status_code == 200


def test_the_reader_is_not_recorded_nor_told_of_as_a_child_and_ends_with_the_dashboard(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.pyscope"
    dashboard = Dashboard(OwnSource(), TOKEN, apart=True)
    before = set(readers())
    with pyscope.record(path, modules=[__name__], probes=["supervision"], ring_mb=8):
        with served(dashboard.app) as port, Page(port) as page:
            page.hear(lambda: page.state == "live")
            assert len(set(readers()) - before) == 1
        dashboard.close()
        assert not set(readers()) - before
    trace = pyscope.load(path)
    assert len(trace.processes) == 1
    assert not [event for event in trace.probe_events(CHILD).records() if "python" in event.child]


# --- TaskFlow ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taskflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("live-taskflow")
    settings = taskflow_settings(folder)
    seed_taskflow(settings)
    environment = {
        "DATABASE_URL": settings.database_url,
        "TASKFLOW_REDIS_URL": "off",
        "TASKFLOW_PYSCOPE": str(folder / "run.pyscope"),
        "PYSCOPE_TOKEN": TOKEN,
        "TASKFLOW_FAULTS": "n_plus_one_dashboard,worker_crash",
    }
    with ServerProcess(folder, environment) as server:
        yield server


def test_a_task_that_is_made_over_http_appears_on_taskflows_dashboard(taskflow: ServerProcess) -> None:
    port = int(taskflow.url.rpartition(":")[2])
    with Page(port, MOUNT) as page, httpx.Client(base_url=taskflow.url, timeout=60) as client:
        page.hear(lambda: page.state == "live")
        task = client.post("/tasks", json={"project_id": 1, "title": "seen at once"}).json()["id"]
        page.hear(
            lambda: (
                {("POST /tasks", "/tasks", 201), ("TaskManager.create_task", "", 0)}
                <= {
                    (row["name"], row["route"], row["status"])
                    for row in page.requests.values()
                    if row["outcome"] == "returned"
                }
            )
        )
        [message] = [row for row in page.requests.values() if row["name"] == "TaskManager.create_task"]
        assert (message["kind"], message["queries"] > 0) == ("message", True)
        client.post(f"/tasks/{task}/assign", json={"assignee_id": 2})
        page.hear(lambda: any(change["transition"] == "task_assigned" for change in page.changes))
        page.hear(lambda: page.hear_type("supervision")["tree"])
        assert not [row for row in page.requests.values() if MOUNT in row["name"]]


def test_taskflows_faults_become_cards_with_a_place_and_a_cure(taskflow: ServerProcess) -> None:
    port = int(taskflow.url.rpartition(":")[2])
    with Page(port, MOUNT) as page, httpx.Client(base_url=taskflow.url, timeout=60) as client:
        client.get("/projects/1/dashboard")
        task = client.post("/tasks", json={"project_id": 2, "title": "crashes"}).json()["id"]
        client.post(f"/tasks/{task}/assign", json={"assignee_id": 2})
        client.post(f"/tasks/{task}/start")
        client.post(f"/tasks/{task}/complete")

        def kinds() -> set[str]:
            return {finding["kind"] for finding in page.hear_type("findings")["findings"]}

        page.hear(lambda: {"n_plus_one_query", "crash"} <= kinds())
        [card] = [
            finding
            for finding in page.last["findings"]["findings"]
            if finding["kind"] == "n_plus_one_query" and "watchers" in finding["title"]
        ]
        assert card["where"]["file"].endswith("dashboard.py")
        assert card["cure"]
        assert card["details"]["query_count"] > 5
        page.hear(
            lambda: any(
                row["findings"] and row["route"].endswith("/dashboard") for row in page.requests.values()
            )
        )
