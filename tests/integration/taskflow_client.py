"""Clients of TaskFlow: what tests ask of a server, and a TaskFlow in this process with its client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from fastapi import FastAPI

from taskflow.settings import Settings
from taskflow.web.app import create_app


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[FastAPI, httpx2.AsyncClient]]:
    """A started application and a client of it."""
    app = create_app(settings)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://taskflow", timeout=120) as client,
    ):
        yield app, client


def new_project(client: httpx2.Client, name: str) -> int:
    """The id of a new project; `name` must be new in that database."""
    answer = client.post("/projects", json={"name": name, "owner_id": 1})
    assert answer.status_code == 201, answer.text
    identity: int = answer.json()["id"]
    return identity


def new_task(client: httpx2.Client, project: int, title: str, **fields: Any) -> int:
    """The id of a new open task."""
    answer = client.post("/tasks", json={"project_id": project, "title": title, **fields})
    assert answer.status_code == 201, answer.text
    identity: int = answer.json()["id"]
    return identity


def move(client: httpx2.Client, task: int, step: str) -> None:
    """Take a task a step on: assign (to user 2), start or complete."""
    answer = client.post(f"/tasks/{task}/{step}", json={"assignee_id": 2} if step == "assign" else None)
    assert answer.status_code == 200, answer.text
