"""TaskFlow's work for the overhead benchmarks: POST a task, GET a dashboard with its N+1 queries.

`InProcessWorkload` runs it inside this process without a network, for benchmarks that switch a tracer
on and off between slices; `SynchronousWorkload` does only what the two requests do with the database.
`ServedWorkload` runs it over HTTP against a server process and counts that process's CPU time. New tasks
go to one project and the dashboard shows another, so that every pair of requests costs the same however
many came before it.
"""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import httpx2
import psutil

from taskflow.data.database import Database, SyncDatabase
from taskflow.data.queries import latest_tasks
from taskflow.data.seeds import seed
from taskflow.faults import N_PLUS_ONE_DASHBOARD
from taskflow.process import ServerProcess
from taskflow.settings import Settings
from taskflow.web.app import create_app
from taskflow.web.schemas import Line, NewTask, TaskOut

PROJECTS: Final = 2
TASKS: Final = 200
HAS_PROCESS_CLOCKS: Final = sys.platform == "linux"
REQUESTS_A_PAIR: Final = 2
CREATE: Final[dict[str, Any]] = {"json": {"project_id": 2, "title": "A benchmarked task"}}
SHOWN: Final = 1  # the project
SHOWN_TASKS: Final = 50
DASHBOARD: Final = f"/projects/{SHOWN}/dashboard?variant=lazy&limit={SHOWN_TASKS}"


def cpu_seconds(pid: int) -> float:
    """CPU time that process `pid` has used so far, all threads, user and system, without its children.

    In nanosecond resolution where the system has per-process CPU clocks (Linux), else psutil's.
    """
    if HAS_PROCESS_CLOCKS:
        # clock_getcpuclockid(3): the complement of the pid over the code of the scheduler's clock.
        return time.clock_gettime((~pid << 3) | 2)
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


class InProcessWorkload:
    """The application behind an ASGI transport in this process, as a context manager.

    `request_pair()` is one unit of work; it blocks until both requests are answered. `app` is the
    application. The database is a new SQLite file in `directory`.
    """

    def __init__(self, directory: Path) -> None:
        self._settings = _settings(directory)

    def __enter__(self) -> Self:
        asyncio.run(_seed(self._settings))
        self._runner = asyncio.Runner()
        self.app = create_app(self._settings)
        self._lifespan = self.app.router.lifespan_context(self.app)
        self._client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url="http://taskflow", trust_env=False
        )
        self._runner.run(self._open())
        return self

    def __exit__(self, *exception: object) -> None:
        self._runner.run(self._close())
        self._runner.close()

    def request_pair(self) -> None:
        """POST a task and GET the N+1 dashboard; an answer other than success is an error."""
        self._runner.run(self._pair())

    def request_pairs(self, pairs: int) -> None:
        """`pairs` units of work inside one run of the event loop."""
        self._runner.run(self._pairs(pairs))

    async def _open(self) -> None:
        await self._lifespan.__aenter__()

    async def _close(self) -> None:
        await self._client.aclose()
        await self._lifespan.__aexit__(None, None, None)

    async def _pairs(self, pairs: int) -> None:
        for _ in range(pairs):
            await self._pair()

    async def _pair(self) -> None:
        (await self._client.post("/tasks", **CREATE)).raise_for_status()
        (await self._client.get(DASHBOARD)).raise_for_status()


class SynchronousWorkload:
    """The statements and objects of the two requests on one thread, without web, event loop and greenlets.

    It is for peers that cannot follow greenlets, through which SQLAlchemy's asynchronous engine runs.
    """

    def __init__(self, directory: Path) -> None:
        self._settings = _settings(directory)

    def __enter__(self) -> Self:
        asyncio.run(_seed(self._settings))
        self._database = SyncDatabase(self._settings)
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def request_pairs(self, pairs: int) -> None:
        """`pairs` times: create a task, read a project with its newest tasks and the people around each."""
        for _ in range(pairs):
            with self._database.writing() as repo:
                new = NewTask.model_validate(CREATE["json"])
                task = repo.create_task(
                    new.project_id, new.title, new.description, new.priority, new.due_date
                )
                TaskOut.model_validate(task)
            with self._database.reading() as repo:
                repo.project(SHOWN)
                repo.progress(SHOWN, datetime.now(UTC).date())
                for task in repo.session.scalars(latest_tasks(SHOWN, SHOWN_TASKS)):
                    Line(
                        id=task.id,
                        title=task.title,
                        status=task.status,
                        priority=task.priority,
                        assignee=task.assignee.name if task.assignee else None,
                        watchers=[watcher.name for watcher in task.watchers],
                    )


@dataclass(frozen=True, slots=True)
class Slice:
    """What one slice of requests cost the server: CPU and wall time in seconds."""

    requests: int
    cpu_seconds: float
    wall_seconds: float

    @property
    def cpu_seconds_a_request(self) -> float:
        """CPU time of the server process for each request."""
        return self.cpu_seconds / self.requests


class ServedWorkload:
    """The same work over HTTP: a uvicorn process and a client with one connection kept alive.

    `launcher` and `environment` are those of `taskflow.process.ServerProcess`: they say what the
    server runs under. The database is a new SQLite file in `directory`.
    """

    def __init__(
        self,
        directory: Path,
        launcher: Sequence[str] = (sys.executable,),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = _settings(directory)
        # Faults and recording are set here, so that the caller's environment does not change the work.
        surroundings = {
            "DATABASE_URL": self._settings.database_url,
            "TASKFLOW_FAULTS": N_PLUS_ONE_DASHBOARD.name,
            "TASKFLOW_PYSCOPE": "",
        }
        self.server = ServerProcess(directory, surroundings | dict(environment or {}), launcher)

    def __enter__(self) -> Self:
        asyncio.run(_seed(self._settings))
        self.server.start()
        self._client = httpx2.Client(base_url=self.server.url, timeout=60, trust_env=False)
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()
        self.server.stop()

    def run_slice(self, pairs: int) -> Slice:
        """Send `pairs` pairs of requests one after the other and say what they cost the server."""
        pid = self.server.pid
        cpu, wall = cpu_seconds(pid), time.perf_counter()
        for _ in range(pairs):
            self._client.post("/tasks", **CREATE).raise_for_status()
            self._client.get(DASHBOARD).raise_for_status()
        return Slice(pairs * REQUESTS_A_PAIR, cpu_seconds(pid) - cpu, time.perf_counter() - wall)


def _settings(directory: Path) -> Settings:
    return Settings(
        database_url=f"sqlite:///{directory / 'taskflow.db'}",
        faults=frozenset({N_PLUS_ONE_DASHBOARD.name}),
        pyscope=None,
    )


async def _seed(settings: Settings) -> None:
    database = Database(settings)
    try:
        await seed(database, PROJECTS, TASKS)
    finally:
        await database.close()
