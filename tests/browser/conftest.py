"""Fixtures of the browser tests: one Chromium a module, and pages whose complaints fail the test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, expect

from tests.browser.stage import Stage
from tests.integration.browser import chromium

PATIENCE_MS = 60_000
NOT_OURS = ("WebSocket connection", "ERR_CONNECTION", "status of 4")
"""What Chromium itself says of connections that a test breaks and of answers that a test refuses."""

expect.set_options(timeout=PATIENCE_MS)

OpenWindow = Callable[..., BrowserContext]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A server that plays the live dashboard's part."""
    with Stage().open() as opened:
        yield opened


@pytest.fixture
def open_window(browser: Browser) -> Iterator[OpenWindow]:
    """Opens browser profiles of the test's own; a page that writes to the console or asks another host fails it."""
    windows: list[BrowserContext] = []
    complaints: list[str] = []
    elsewhere: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(known in message.text for known in NOT_OURS):
            complaints.append(message.text)

    def open_one(**values: Any) -> BrowserContext:
        window = browser.new_context(**values)
        window.set_default_timeout(PATIENCE_MS)
        window.on("console", note)
        window.on("weberror", lambda error: complaints.append(str(error.error)))
        window.on("request", lambda request: elsewhere.append(request.url) if foreign(request.url) else None)
        windows.append(window)
        return window

    yield open_one
    for window in windows:
        window.close()
    assert complaints == []
    assert elsewhere == []


def foreign(url: str) -> bool:
    """Whether an address is neither of this machine nor inside the page."""
    return not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "file:", "data:", "blob:"))
