"""How a viewer is served over its WebSocket, and what is left when that ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest
from fastapi import WebSocketDisconnect

from pyscope.live.app import _serve


class Viewer:
    gone = False

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    async def take(self) -> list[str]:
        if not self.texts:
            await asyncio.sleep(3600)
        texts, self.texts = self.texts, []
        return texts


class BrokenViewer(Viewer):
    async def take(self) -> list[str]:
        raise ValueError("a defect")


class Browser:
    """A WebSocket to a browser that sends `sends`, and then nothing."""

    def __init__(self, *sends: str) -> None:
        self.sends = list(sends)
        self.got: list[str] = []

    async def receive(self) -> dict[str, Any]:
        if not self.sends:
            await asyncio.sleep(3600)
        return {"type": self.sends.pop(0)}

    async def send_text(self, text: str) -> None:
        self.got.append(text)


class GoneBrowser(Browser):
    async def send_text(self, text: str) -> None:
        raise WebSocketDisconnect(1006)


def served(browser: Browser, viewer: Viewer, *, cancelled: bool = False) -> int:
    """How many tasks are left once a viewer has been served."""

    async def run() -> int:
        serving = asyncio.ensure_future(_serve(browser, viewer))  # type: ignore[arg-type]
        if cancelled:
            await asyncio.sleep(0.01)
            serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(serving, 30)
        return len(asyncio.all_tasks()) - 1

    return asyncio.run(run())


@pytest.mark.parametrize("cancelled", [False, True])
def test_nothing_is_left_of_a_viewer_that_was_served(cancelled: bool) -> None:
    browser = Browser("websocket.receive", *(() if cancelled else ("websocket.disconnect",)))
    assert served(browser, Viewer("hello"), cancelled=cancelled) == 0
    if cancelled:
        assert browser.got == ["hello"]


def test_a_defect_ends_the_serving_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pyscope.live"):
        assert served(Browser(), BrokenViewer()) == 0
    [record] = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "a defect"


def test_a_browser_that_goes_away_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    assert served(GoneBrowser(), Viewer("hello")) == 0
    assert served(Browser("websocket.disconnect"), Viewer()) == 0
    assert not caplog.records
