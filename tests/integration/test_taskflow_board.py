"""The live board in a real Chromium."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from taskflow.process import ServerProcess
from tests.integration.browser import chromium
from tests.integration.taskflow_client import move, new_project, new_task
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

PATIENCE_MS = 60_000
HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    '"><svg onload=document.title=`owned`>',
    "{{ 7 * 7 }} & &lt; ’ \u202e rtl \U0001f600",
]

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def window(browser: Browser, taskflow_url: str) -> Iterator[BrowserContext]:
    """A browser profile of this test's own; what its pages complain about fails the test."""
    context = browser.new_context(base_url=taskflow_url)
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    context.on("console", note)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context
    context.close()
    assert [text for text in complaints if "WebSocket connection" not in text] == []


def open_board(window: BrowserContext, project: int) -> Page:
    page = window.new_page()
    page.goto(f"/projects/{project}/board")
    expect(page.locator("#connection")).to_have_text("Live")
    return page


def cards(page: Page, status: str) -> Any:
    return page.locator(f'[data-status="{status}"] .card .title')


def test_two_open_boards_follow_a_task_through_all_its_steps(
    window: BrowserContext, taskflow: httpx2.Client
) -> None:
    project = new_project(taskflow, "Followed")
    pages = [open_board(window, project) for _ in range(2)]
    task = new_task(taskflow, project, "Write it down", priority="urgent", due_date="2020-02-29")
    for status, step in [("open", "assign"), ("assigned", "start"), ("in_progress", "complete")]:
        for page in pages:
            expect(cards(page, status)).to_have_text(["Write it down"])
            expect(page.locator(f'[data-status="{status}"] .count')).to_have_text("1")
        move(taskflow, task, step)
    for page in pages:
        expect(cards(page, "completed")).to_have_text(["Write it down"])
        expect(page.locator(".card")).to_have_count(1)
        expect(page.locator(".card .assignee")).to_have_text("Alan 2")
        expect(page.locator("#news")).to_have_text(f"#{task} Write it down: completed")
        expect(page.locator('[data-status="open"] .count')).to_have_text("0")


def test_a_board_is_complete_without_javascript(
    browser: Browser, taskflow_url: str, taskflow: httpx2.Client
) -> None:
    project = new_project(taskflow, "Without script")
    tasks = [new_task(taskflow, project, title) for title in ("First", *HOSTILE)]
    context = browser.new_context(base_url=taskflow_url, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"/projects/{project}/board")
    expect(cards(page, "open")).to_have_text(["First", *HOSTILE][::-1])
    assert page.locator(".card").first.get_attribute("data-task") == str(tasks[-1])
    context.close()


def test_a_hostile_title_is_shown_as_text_however_it_comes(
    window: BrowserContext, taskflow: httpx2.Client
) -> None:
    project = new_project(taskflow, HOSTILE[0])
    for title in HOSTILE:
        new_task(taskflow, project, title)
    page = open_board(window, project)
    expect(cards(page, "open")).to_have_text(HOSTILE[::-1])
    for title in HOSTILE:
        new_task(taskflow, project, title)
    expect(page.locator(".card")).to_have_count(2 * len(HOSTILE))
    expect(page.locator("h1")).to_have_text(HOSTILE[0])
    assert page.locator("#board img, #board script, #board svg, header img").count() == 0
    assert "owned" not in page.title() or page.title().startswith("<img")


def test_the_page_allows_no_script_but_its_own_file(taskflow: httpx2.Client) -> None:
    answer = taskflow.get("/projects/1/board")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert re.findall(r"<script[^>]*>([^<]*)", answer.text) == [""]
    assert not re.search(r"\son\w+=|style=", answer.text)


def test_a_board_says_that_it_lost_its_server_and_catches_up_when_that_is_back(
    browser: Browser, tmp_path: Path
) -> None:
    settings = taskflow_settings(tmp_path)
    seed_taskflow(settings, projects=1, tasks=0)
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = str(chosen.getsockname()[1])
    environment = {"DATABASE_URL": settings.database_url}
    context = browser.new_context()
    try:
        with ServerProcess(tmp_path, environment, port=int(port)) as first:
            page = context.new_page()
            page.goto(f"{first.url}/projects/1/board")
            expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#connection")).to_contain_text("Connection lost")
        with ServerProcess(tmp_path, environment, port=int(port)) as second:
            with httpx2.Client(base_url=second.url, timeout=60, trust_env=False) as client:
                new_task(client, 1, "Made while nobody listened")
            expect(page.locator("#connection")).to_have_text("Live")
            expect(cards(page, "open")).to_have_text(["Made while nobody listened"])
    finally:
        context.close()


def test_a_board_that_is_open_does_not_keep_the_server_from_stopping(
    browser: Browser, tmp_path: Path
) -> None:
    settings = taskflow_settings(tmp_path)
    seed_taskflow(settings, projects=1, tasks=0)
    context = browser.new_context()
    try:
        # A graceful stop that waited for the board would take all of the time it may.
        environment = {"DATABASE_URL": settings.database_url, "TASKFLOW_SHUTDOWN_SECONDS": "600"}
        with ServerProcess(tmp_path, environment, stop_seconds=120) as server:
            page = context.new_page()
            page.goto(f"{server.url}/projects/1/board")
            expect(page.locator("#connection")).to_have_text("Live")
            assert server.stop() == 0
    finally:
        context.close()


def test_arrow_keys_walk_over_the_cards_and_the_focus_follows_a_card_that_moves(
    window: BrowserContext, taskflow: httpx2.Client
) -> None:
    project = new_project(taskflow, "By keyboard")
    tasks = [new_task(taskflow, project, title) for title in ("One", "Two", "Three")]
    move(taskflow, tasks[0], "assign")
    page = open_board(window, project)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the tasks")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Three")
    page.keyboard.press("ArrowDown")
    expect(page.locator(":focus")).to_have_text("Two")
    page.keyboard.press("ArrowRight")
    expect(page.locator(":focus")).to_have_text("One")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(":focus")).to_have_text("Three")
    move(taskflow, tasks[2], "assign")
    expect(cards(page, "assigned")).to_have_text(["Three", "One"])
    expect(page.locator(":focus")).to_have_text("Three")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_board_fits_a_phone_and_is_readable_in_light_and_dark(
    browser: Browser, taskflow_url: str, taskflow: httpx2.Client, scheme: Any
) -> None:
    project = new_project(taskflow, f"On a phone, {scheme}")
    new_task(taskflow, project, "W" * 200, priority="urgent", due_date="2020-01-01")
    context = browser.new_context(
        base_url=taskflow_url, viewport={"width": 360, "height": 740}, color_scheme=scheme
    )
    page = open_board(context, project)
    width = page.evaluate("document.documentElement.scrollWidth")
    ratios = page.evaluate(CONTRAST)
    context.close()
    assert width <= 360
    assert ratios
    assert min(ratios.values()) >= 4.5, ratios


# The contrast of WCAG 2 between each kind of text and the nearest opaque background behind it.
CONTRAST = """
() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = channels(color).slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const backdrop = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if ((channels(color)[3] ?? 1) > 0) return color;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  document.getAnimations().forEach((animation) => animation.finish());
  const ratios = {};
  for (const kind of ["h1", "h2", ".count", ".connection", ".title", ".number", ".priority", ".due"]) {
    for (const element of document.querySelectorAll(kind)) {
      const [low, high] = [luminance(getComputedStyle(element).color), luminance(backdrop(element))].sort();
      ratios[kind] = Math.min(ratios[kind] ?? 99, (Math.max(low, high) + 0.05) / (Math.min(low, high) + 0.05));
    }
  }
  return ratios;
}
"""


def test_the_board_of_no_project_is_a_problem_document(taskflow: httpx2.Client) -> None:
    for path, status in [("/projects/2147483647/board", 404), ("/projects/x/board", 422)]:
        answer = taskflow.get(path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
