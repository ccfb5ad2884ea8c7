"""TaskFlow as a running service in the test's own process, so that the test can watch it as it runs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from taskflow.application import Application
from taskflow.settings import Settings
from taskflow.web.app import create_app
from tests.integration.taskflow_database import seed_taskflow

PATIENCE = 60.0


class Service:
    """A TaskFlow that uvicorn serves on a loopback port: a client of it, and the application behind it."""

    def __init__(self, client: httpx2.Client, application: Application) -> None:
        self.client = client
        self.application = application

    def get(self, path: str, **arguments: Any) -> Any:
        """The JSON of a GET that must succeed."""
        return self._answer("GET", path, **arguments)

    def post(self, path: str, json: Any = None) -> Any:
        """The JSON of a POST that must succeed."""
        return self._answer("POST", path, json=json)

    def create_task(self, project_id: int = 1, title: str = "Write the report", **fields: Any) -> int:
        """The id of a new task."""
        return int(self.post("/tasks", {"project_id": project_id, "title": title, **fields})["id"])

    def complete_task(self, project_id: int = 1) -> int:
        """The id of a task that has gone all the way."""
        task = self.create_task(project_id)
        self.post(f"/tasks/{task}/assign", {"assignee_id": 1})
        self.post(f"/tasks/{task}/start")
        self.post(f"/tasks/{task}/complete")
        return task

    def _answer(self, method: str, path: str, **arguments: Any) -> Any:
        response = self.client.request(method, path, **arguments)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None


@contextmanager
def serving(folder: Path, *, projects: int = 2, tasks: int = 240, **values: Any) -> Iterator[Service]:
    """A seeded service while the block runs. `values` are settings; no faults, cache or mail unless they say so."""
    settings = Settings.model_validate(
        {
            "database_url": f"sqlite:///{folder / 'taskflow.db'}",
            "faults": "none",
            "redis_url": "off",
            "storage_url": str(folder / "files"),
            "shutdown_seconds": 5,
            **values,
        }
    )
    seed_taskflow(settings, projects, tasks)
    app = create_app(settings)
    # With the protocol named, asyncio sets TCP_NODELAY; without, each answer takes 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=5, lifespan="on", loop="asyncio"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="uvicorn")
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            assert server.started
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
                yield Service(client, app.state.taskflow)
        finally:
            server.should_exit = True
            thread.join()


def wait_until(condition: Any, patience: float = PATIENCE) -> None:
    """Waits for something that is to happen soon; fails when it does not."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
