"""The dashboard on a running TaskFlow: what happens there is seen in the browser, and faults become cards."""

from __future__ import annotations

import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from pyscope import runtime
from taskflow.actors.task_manager import TaskManager
from taskflow.data.reports import Reports
from taskflow.integrations.retries import DeliveryFailed
from taskflow.process import ServerProcess
from taskflow.sinks import WebhookSink
from tests.browser.conftest import OpenWindow
from tests.browser.page import card, rows, visit
from tests.diagnosis.service import Service, serving
from tests.diagnosis.test_race_conditions import Meeting, at_once, leave, meeting_before, watched_by_two
from tests.diagnosis.test_resources_during_report import YEAR, fill_with_text, finished
from tests.integration.taskflow_client import new_task
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

TOKEN = "a-token-that-only-the-tests-know"
SECRET = "the-secret-of-the-webhooks"
MOST_SEARCHES = 50
FAULTS = [
    "n_plus_one_dashboard", "n_plus_one_get_loop", "assign_race", "lost_update", "write_skew", "check_then_act_await",
    "worker_crash", "hanging_email", "flaky_webhook", "failing_storage", "blocking_call", "slow_endpoint",
]  # fmt: skip


def dashboard(window: Any, url: str, place: str = "") -> Page:
    """The service's dashboard, opened as its user does: by the address with the token."""
    page = window.new_page()
    page.goto(f"{url}/admin/pyscope/?token={TOKEN}#/{place}")
    expect(page.locator("#connection")).to_have_text("Live")
    return page


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A TaskFlow that commits most faults, records itself and shows itself."""
    folder = tmp_path_factory.mktemp("shown")
    with WebhookSink(SECRET) as hooks:
        values = {
            "faults": ",".join(FAULTS),
            "pyscope": folder / "run.pyscope",
            "pyscope_token": TOKEN,
            "webhook_urls": hooks.url,
            "webhook_secret": SECRET,
            "external_backoff_seconds": 0.02,
            "external_step_seconds": 0.3,
            "notification_retry_seconds": 3600,
            "database_pool_size": MOST_SEARCHES,
        }
        with serving(folder, tasks=1500, **values) as running:
            assert runtime.is_recording()
            runtime.monitor_concurrency([running.application.reports])
            yield running
    runtime.stop_all()


@pytest.fixture(scope="module")
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """One page that stays open while everything happens."""
    window = browser.new_context(viewport={"width": 1280, "height": 800})
    errors: list[str] = []
    window.on("weberror", lambda error: errors.append(str(error.error)))
    yield dashboard(window, str(service.client.base_url).rstrip("/"))
    window.close()
    assert errors == []


def titled(page: Page, kind: str, text: str) -> Locator:
    """The card of a kind that speaks of something."""
    visit(page, "findings")
    found = card(page, kind).filter(has_text=text).first
    expect(found).to_be_visible()
    return found


def test_a_task_that_is_created_is_seen_with_all_that_was_done_for_it(page: Page, service: Service) -> None:
    visit(page, "requests")
    before = rows(page).filter(has_text="POST /tasks").count()
    service.create_task(title="Seen at once")
    created = rows(page).filter(has=page.get_by_text("POST /tasks", exact=True))
    expect(created).to_have_count(before + 1)
    expect(created.first).to_contain_text("201")
    created.first.get_by_role("link").click()
    expect(page.locator(".request-head h2")).to_have_text("POST /tasks")
    expect(page.locator(".rows.spans")).to_contain_text("create_task")
    page.go_back()
    message = rows(page).filter(has_text="TaskManager.create_task").first
    message.get_by_role("link").click()
    expect(page.locator(".rows.spans [data-row]").filter(has_text="INSERT INTO tasks").first).to_be_visible()


def test_the_steps_of_a_task_are_state_changes_with_the_old_and_the_new(page: Page, service: Service) -> None:
    visit(page, "states")
    task = service.create_task()
    service.post(f"/tasks/{task}/assign", {"assignee_id": 1})
    changed = rows(page).filter(has_text=f"Task {task}").filter(has_text="task assigned")
    expect(changed.locator("del")).to_have_text("open")
    expect(changed.locator("ins")).to_have_text("assigned")


def test_figures_and_charts_are_filled_while_the_service_works(page: Page, service: Service) -> None:
    visit(page, "overview")
    service.get("/tasks")
    expect(page.locator(".tiles")).to_contain_text(re.compile(r"Latency p50\d"))
    expect(page.locator(".tiles")).to_contain_text(re.compile(r"Memory[\d.]+ MiB"))
    for view, text in [("queries", "SELECT"), ("functions", "taskflow.")]:
        visit(page, view)
        expect(rows(page).filter(has_text=text).first).to_be_visible()
    visit(page, "flame")
    expect(page.locator(".flame-bar").nth(2)).to_be_visible()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/projects/1/dashboard", "Task.watchers"),
        ("/projects/1/dashboard?variant=awaited", "_lines_awaited"),
        ("/projects/1/people", "SELECT users"),
    ],
)
def test_queries_in_a_loop_are_a_card_with_statement_and_cure(
    page: Page, service: Service, path: str, text: str
) -> None:
    service.get(path)
    found = titled(page, "n_plus_one_query", text)
    found.get_by_role("link", name="Evidence").click()
    expect(found.locator(".evidence .sql").first).to_contain_text("SELECT")
    expect(found.locator(".advice")).to_contain_text("What to change")


def assigned_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = service.application.actors.task_manager()
    assert isinstance(manager, TaskManager)
    monkeypatch.setattr(manager, "in_race_window", threading.Barrier(2).wait)
    at_once([lambda: service.post("/projects/1/assign-next", {"assignee_id": 1})] * 2)


def minutes_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    task = service.create_task()
    meeting_before(monkeypatch, "set_minutes")
    at_once([lambda: service.post(f"/tasks/{task}/time", {"minutes": 1})] * 2)


def watchers_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    task = watched_by_two(service)
    meeting_before(monkeypatch, "remove_watcher")
    leave(service, task)


def reports_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks_of, meeting = Reports.tasks_of, Meeting(2)

    async def meet_and_count(reports: Reports, year: int) -> int:
        await meeting.meet()
        return await tasks_of(reports, year)

    monkeypatch.setattr(Reports, "tasks_of", meet_and_count)
    at_once([lambda: service.post("/reports", {"year": 2025})] * 2)


@pytest.mark.parametrize(
    ("overlap", "kind", "subject"),
    [
        (assigned_at_once, "check_then_act", "TaskManager.assignments"),
        (minutes_at_once, "lost_update", "tasks.minutes_spent"),
        (watchers_at_once, "write_skew", "task_watchers.task_id"),
        (reports_at_once, "check_then_act", "ReportGenerator._under_way"),
    ],
)
def test_a_race_is_a_card_with_what_each_side_did(
    page: Page,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    overlap: Callable[[Service, pytest.MonkeyPatch], None],
    kind: str,
    subject: str,
) -> None:
    overlap(service, monkeypatch)
    found = titled(page, kind, subject)
    found.get_by_role("link", name="Evidence").click()
    expect(found.locator(".evidence")).to_contain_text("observed")
    accesses = found.locator(".access")
    expect(accesses.nth(1)).to_be_visible()
    for index in range(accesses.count()):
        expect(accesses.nth(index).locator(".stack li").first).to_contain_text(".py:")


def test_a_storage_that_fails_is_a_card_with_its_attempts(page: Page, service: Service) -> None:
    with pytest.raises(DeliveryFailed):
        service.application.storage.write("page.html", b"<p>")
    found = titled(page, "external_call", "FileStorage._attempt_to_write")
    found.get_by_role("link", name="Evidence").click()
    expect(found.locator(".evidence tbody tr")).to_have_count(4)


def test_a_worker_that_crashes_is_a_card_and_its_restart_stands_in_the_tree(
    page: Page, service: Service
) -> None:
    service.complete_task(project_id=1)
    expect(titled(page, "crash", "project 1")).to_contain_text("SimulatedCrash")
    visit(page, "supervision")
    expect(page.locator('[data-node="project 1"]')).to_contain_text("1 restart")
    expect(page.locator('[data-event="child_restarted"]').first).to_contain_text("project 1")


def test_a_mail_server_that_hangs_is_a_timeout_with_four_attempts(page: Page, service: Service) -> None:
    service.post(f"/tasks/{service.create_task()}/assign", {"assignee_id": 1})
    found = titled(page, "timeout", "smtp")
    found.get_by_role("link", name="Evidence").click()
    expect(found.locator(".evidence tbody tr")).to_have_count(4)
    expect(found.locator(".evidence .backoff").first).to_be_visible()
    visit(page, "external")
    page.get_by_role("button", name="Timed out").click()
    expect(rows(page).first).to_contain_text("smtp")


def test_a_webhook_that_needs_three_attempts_is_shown_with_them(page: Page, service: Service) -> None:
    service.create_task()
    visit(page, "external")
    page.get_by_role("button", name="Retried").click()
    call = rows(page).filter(has_text="http").filter(has_text="succeeded").first
    expect(call.locator(".attempt.failed")).to_have_count(2)
    expect(call.locator(".attempt.succeeded")).to_have_count(1)


def test_a_call_that_blocks_the_event_loop_and_a_slow_search_are_cards(page: Page, service: Service) -> None:
    service.client.get("/projects/1/export").raise_for_status()
    expect(titled(page, "blocking_call_in_event_loop", "export.py")).to_contain_text("blocks the event loop")
    begun = time.perf_counter()
    service.get("/tasks/search", params={"q": "no task has this name"})
    # One alone may be quick on this machine; together they hold each other up for a second or more.
    together = min(MOST_SEARCHES, math.ceil(1.5 / (time.perf_counter() - begun)) + 1)
    slow = False
    while not slow:  # the one may have been slow by itself
        at_once([lambda: service.get("/tasks/search", params={"q": "no task has this name"})] * together)
        visit(page, "findings")
        card_of_it = card(page, "slow_call").filter(has_text="search.py").first
        try:
            expect(card_of_it).to_be_visible(timeout=10_000)
            slow = True
        except AssertionError:
            assert together < MOST_SEARCHES, "so many searches at once are not slow"
            together = min(MOST_SEARCHES, 2 * together)


@pytest.fixture(scope="module")
def stressed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A TaskFlow whose first worker cannot be restarted, whose mailboxes are flooded, and whose report is hungry."""
    folder = tmp_path_factory.mktemp("stressed")
    values = {
        "faults": "crash_loop,mailbox_flood,memory_hungry_report",
        "pyscope": folder / "run.pyscope",
        "pyscope_token": TOKEN,
    }
    with serving(folder, tasks=4_000, **values) as running:
        fill_with_text(running, 12_000)
        yield running
    runtime.stop_all()


@pytest.fixture(scope="module")
def stressed_page(browser: Browser, stressed: Service) -> Iterator[Page]:
    """A page that shows it."""
    window = browser.new_context(viewport={"width": 1280, "height": 800})
    yield dashboard(window, str(stressed.client.base_url).rstrip("/"))
    window.close()


def test_a_crash_loop_is_a_card_and_its_supervisor_has_given_up(
    stressed_page: Page, stressed: Service
) -> None:
    stressed.complete_task(project_id=1)
    assert (
        "is in a crash loop"
        in titled(stressed_page, "max_restarts_exceeded", "projects gave up").inner_text()
    )
    visit(stressed_page, "supervision")
    expect(stressed_page.locator('[data-event="max_restarts_exceeded"]').first).to_contain_text("project 1")


def test_a_flooded_mailbox_is_a_card_with_who_floods_it(stressed_page: Page, stressed: Service) -> None:
    stressed.complete_task(project_id=2)
    found = titled(stressed_page, "mailbox_backlog", "messages waited for ProjectWorker at once")
    expect(found.locator(".where")).to_contain_text("project_supervisor.py")
    found.get_by_role("link", name="Evidence").click()
    expect(found.locator(".evidence .stack li").first).to_contain_text("_flood")
    visit(stressed_page, "resources")
    expect(stressed_page.locator('[data-chart="Mailboxes"]')).to_contain_text("ProjectWorker")


def test_a_report_that_takes_much_memory_is_a_card_of_the_process_that_makes_it(
    stressed_page: Page, stressed: Service
) -> None:
    finished(stressed, stressed.post("/reports", {"year": YEAR})["id"])
    found = titled(stressed_page, "memory_growth", "MiB of memory")
    expect(found.locator(".where")).to_contain_text("report_worker.py")
    expect(found.locator(".advice")).to_contain_text("a part at a time")


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


def test_a_service_that_restarts_is_said_to_be_gone_and_then_seen_again(
    open_window: OpenWindow, tmp_path: Path
) -> None:
    settings = taskflow_settings(tmp_path)
    seed_taskflow(settings, projects=1, tasks=0)
    environment = {
        "DATABASE_URL": settings.database_url, "REDIS_URL": "off", "TASKFLOW_FAULTS": "none", "PYSCOPE_TOKEN": TOKEN,
        "TASKFLOW_PYSCOPE": str(tmp_path / "run.pyscope"),
    }  # fmt: skip
    port = free_port()
    with ServerProcess(tmp_path, environment, port=port) as first:
        page = dashboard(open_window(), first.url, "requests")
        with httpx2.Client(base_url=first.url, timeout=60, trust_env=False) as client:
            new_task(client, 1, "Before")
        expect(rows(page).filter(has_text="POST /tasks")).to_have_count(1)
        recorded_by = page.locator(".source").inner_text()
    expect(page.locator("#connection")).to_contain_text("Reconnecting")
    expect(page.locator('[data-banner="connection"]')).to_be_visible()
    with ServerProcess(tmp_path, environment, port=port) as second:
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator('[data-banner="connection"]')).to_have_count(0)
        with httpx2.Client(base_url=second.url, timeout=60, trust_env=False) as client:
            new_task(client, 1, "After")
        expect(rows(page).filter(has_text="POST /tasks")).to_have_count(1)
        assert page.locator(".source").inner_text() != recorded_by
