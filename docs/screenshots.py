"""Takes the pictures of the dashboard in docs/live/ from a TaskFlow under load: `python -m docs.screenshots`."""

from __future__ import annotations

import io
import random
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
from PIL import Image
from playwright.sync_api import Browser, Page

from taskflow.process import ServerProcess
from taskflow.sinks import MailSink, WebhookSink
from tests.integration.browser import chromium
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

FOLDER = Path(__file__).with_name("live")
FAULTS = [
    "n_plus_one_dashboard", "n_plus_one_get_loop", "assign_race", "lost_update", "worker_crash", "flaky_webhook",
    "blocking_call",
]  # fmt: skip
VIEWS = [
    "overview", "requests", "findings", "supervision", "queries", "external", "states", "flame", "resources",
    "functions",
]  # fmt: skip
CLIENTS = 3
SECONDS_BEFORE = 30  # so that the charts have something to show


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    token = secrets.token_urlsafe()
    with service(token) as url, load(url), chromium() as browser:
        page = opened(browser, url, token, "light")
        time.sleep(SECONDS_BEFORE)
        for view in VIEWS:
            show(page, view)
            take(page, view)
        show(page, "requests?q=dashboard")
        page.locator(".rows [data-row]", has_text="200").first.locator("[data-open]").click()
        page.locator(".rows.spans [data-row]").first.wait_for()
        take(page, "waterfall")
        show(page, "findings")
        race = page.locator('.card[data-kind="lost_update"], .card[data-kind="check_then_act"]').first
        race.get_by_role("link", name="Evidence").click()
        page.locator(".access").first.wait_for()
        race.evaluate("(card) => card.scrollIntoView()")
        take(page, "race")
        page.close()
        page = opened(browser, url, token, "dark")
        page.wait_for_timeout(8000)
        take(page, "overview-dark")
        page.set_viewport_size({"width": 360, "height": 740})
        show(page, "requests")
        take(page, "requests-phone")


@contextmanager
def service(token: str) -> Iterator[str]:
    """The address of a seeded, recorded TaskFlow with faults, while the block runs."""
    secret = secrets.token_hex()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskflow-pictures-")))
        settings = taskflow_settings(folder)
        seed_taskflow(settings)
        mail, hooks = stack.enter_context(MailSink()), stack.enter_context(WebhookSink(secret))
        environment = {
            "DATABASE_URL": settings.database_url,
            "PYSCOPE_TOKEN": token,
            "TASKFLOW_FAULTS": ",".join(FAULTS),
            "TASKFLOW_SMTP_URL": mail.url,
            "TASKFLOW_STORAGE_URL": str(folder / "files"),
            "TASKFLOW_WEBHOOK_SECRET": secret,
            "TASKFLOW_WEBHOOK_URLS": hooks.url,
        }
        recorder = [
            "-m",
            "pyscope",
            "run",
            "--modules",
            "taskflow.*",
            "--probes",
            "auto",
            "-o",
            "taskflow.pyscope",
        ]
        yield stack.enter_context(ServerProcess(folder, environment, [sys.executable, *recorder])).url


@contextmanager
def load(url: str) -> Iterator[None]:
    """A few clients that work with tasks while the block runs."""
    over = threading.Event()
    clients = [threading.Thread(target=work, args=(url, number, over)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        over.set()
        for client in clients:
            client.join()


def work(url: str, number: int, over: threading.Event) -> None:
    """One client: tasks from their creation to their completion, and a look around now and then."""
    chance = random.Random(number)
    with httpx2.Client(base_url=url, timeout=120, trust_env=False) as client:
        while not over.wait(0.1):
            project = chance.randrange(1, 4)
            task = client.post("/tasks", json={"project_id": project, "title": "Draw the picture"}).json()[
                "id"
            ]
            client.post(f"/tasks/{task}/assign", json={"assignee_id": chance.randrange(1, 5)})
            client.post(f"/tasks/{task}/start")
            at_once([lambda: client.post("/tasks/1/time", json={"minutes": 5})] * 3)
            at_once([lambda: client.post("/projects/1/assign-next", json={"assignee_id": 1})] * 2)
            client.post(f"/tasks/{task}/complete")
            client.get("/tasks", params={"project_id": project})
            if chance.random() < 0.3:
                client.get(f"/projects/{project}/dashboard")
            if chance.random() < 0.1:
                client.get(f"/projects/{project}/people")
            if chance.random() < 0.05:
                client.get(f"/projects/{project}/export")


def at_once(requests: list[Callable[[], object]]) -> None:
    """Sends requests together, so that they race."""
    senders = [threading.Thread(target=request) for request in requests]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def opened(browser: Browser, url: str, token: str, scheme: str) -> Page:
    """The dashboard's overview in light or dark."""
    window = browser.new_context(
        viewport={"width": 1280, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
    )
    window.set_default_timeout(120_000)
    page = window.new_page()
    page.goto(f"{url}/admin/pyscope/?token={token}")
    page.locator('#connection[data-state="live"]').wait_for()
    page.locator(".tile", has_text="MiB").first.wait_for()
    return page


def show(page: Page, place: str) -> None:
    """Go to a place of the page and give it a moment to fill."""
    page.evaluate("(place) => { location.hash = `#/${place}` }", place)
    page.locator(".rows .body [data-row], .card, .node, .flame-bar, .chart").first.wait_for()
    page.wait_for_timeout(2000)


def take(page: Page, name: str) -> None:
    """A picture with as few colours as it needs."""
    page.wait_for_timeout(1000)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
