"""The news of live boards: the WebSocket spoken to by hand, and what becomes of who does not listen."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from taskflow.data.database import Database
from taskflow.data.models import Priority
from taskflow.services.board import CARDS_IN_A_COLUMN, WAITING_MESSAGES, BoardFeed
from taskflow.services.events import EventBus, TaskChange, TaskEvent
from tests.integration.taskflow_client import new_project, new_task
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings


def address(url: str, project: int) -> str:
    return f"ws://{urlsplit(url).netloc}/projects/{project}/board/ws"


def column(message: dict[str, Any], status: str) -> dict[str, Any]:
    [found] = [column for column in message["columns"] if column["status"] == status]
    return dict(found)


def open_tasks(message: dict[str, Any]) -> int:
    """How many open tasks the board has after `message`."""
    count: int = column(message, "open")["count"] if message["kind"] == "board" else message["counts"]["open"]
    return count


def test_a_socket_of_another_sites_page_is_refused(taskflow_url: str) -> None:
    with connect(address(taskflow_url, 1), origin=taskflow_url) as own:  # type: ignore[arg-type]
        assert json.loads(own.recv(timeout=60))["kind"] == "board"
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(address(taskflow_url, 1), origin="http://elsewhere.example"),  # type: ignore[arg-type]
    ):
        pass
    assert refused.value.response.status_code == 403


def test_the_socket_of_no_project_is_closed_for_good(taskflow_url: str) -> None:
    with connect(address(taskflow_url, 2147483647)) as hopeless, pytest.raises(ConnectionClosed) as closed:
        hopeless.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4404


def test_what_a_browser_says_is_ignored(taskflow_url: str, taskflow: httpx2.Client) -> None:
    project = new_project(taskflow, "Spoken to")
    with connect(address(taskflow_url, project)) as talker:
        for nonsense in ("", "{", "\0" * 1000, b"\xff\xfe"):
            talker.send(nonsense)
        assert json.loads(talker.recv(timeout=60))["kind"] == "board"
        task = new_task(taskflow, project, "Still told")
        assert json.loads(talker.recv(timeout=60))["cards"][0]["id"] == task


def test_a_browser_that_does_not_keep_up_gets_the_whole_board_instead_of_every_change(
    tmp_path: Path,
) -> None:
    settings = taskflow_settings(tmp_path, redis_url="off")
    seed_taskflow(settings, projects=2, tasks=0)

    async def watch() -> tuple[list[str], list[dict[str, Any]]]:
        database, bus = Database(settings), EventBus()
        async with BoardFeed(database, bus) as feed:
            with feed.viewer(1) as quick, feed.viewer(1) as slow:
                quick_messages, slow_messages = aiter(quick), aiter(slow)
                for messages in (quick_messages, slow_messages):
                    assert json.loads(await anext(messages))["kind"] == "board"
                seen = []
                for number in range(2 * WAITING_MESSAGES):
                    async with database.writing() as repo:
                        task = await repo.create_task(1, f"Task {number}", "", Priority.NORMAL, None)
                    bus.publish(TaskEvent.of(TaskChange.CREATED, task))
                    seen.append(json.loads(await anext(quick_messages))["cards"][0]["title"])
                late = [json.loads(await anext(slow_messages))]
                while open_tasks(late[-1]) != 2 * WAITING_MESSAGES:
                    late.append(json.loads(await anext(slow_messages)))
        await database.close()
        return seen, late

    seen, late = asyncio.run(watch())
    assert seen == [f"Task {number}" for number in range(2 * WAITING_MESSAGES)]
    assert len(late) <= WAITING_MESSAGES
    assert [message["kind"] for message in late] == ["board"] + ["changes"] * (len(late) - 1)


def test_a_board_is_not_told_of_other_projects_and_holds_no_more_than_its_columns(
    taskflow_url: str, taskflow: httpx2.Client
) -> None:
    project, other = new_project(taskflow, "Mine"), new_project(taskflow, "Another")
    with connect(address(taskflow_url, project)) as own:
        for number in range(CARDS_IN_A_COLUMN + 2):
            new_task(taskflow, other, f"Not mine {number}")
        task = new_task(taskflow, project, "Mine")
        assert json.loads(own.recv(timeout=60))["kind"] == "board"
        assert [card["id"] for card in json.loads(own.recv(timeout=60))["cards"]] == [task]
    with connect(address(taskflow_url, other)) as full:
        open_column = column(json.loads(full.recv(timeout=60)), "open")
    assert open_column["count"] == CARDS_IN_A_COLUMN + 2
    assert len(open_column["cards"]) == CARDS_IN_A_COLUMN
