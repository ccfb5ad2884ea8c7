"""The application factory: `create_app()` gives the FastAPI application around TaskFlow's parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from taskflow.application import Application
from taskflow.data.models import Task
from taskflow.recording import mount_dashboard, recording, watch
from taskflow.settings import Settings
from taskflow.web import (
    board,
    dashboard,
    export,
    health,
    notifications,
    people,
    problems,
    projects,
    reports,
    search,
    tasks,
    timelog,
    users,
    watchers,
)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    application: Application = app.state.taskflow
    with recording(application.settings.pyscope):
        async with application:
            _watch(application)
            yield


def _watch(application: Application) -> None:
    """What PyScope follows beside calls and probes; with a dashboard also what it has views of."""
    actors = application.actors
    if application.settings.pyscope_token is None:
        watch(actors.supervisor)
    else:
        manager = actors.task_manager()
        watch(actors.supervisor, states=[Task], shared=[] if manager is None else [manager])


def create_app(settings: Settings | None = None) -> FastAPI:
    """The TaskFlow application.

    `settings` come from the environment when left out. The parts are started and closed in the
    application's lifespan. `app.state.taskflow` is its `Application`.
    """
    settings = settings or Settings()
    app = FastAPI(title="TaskFlow", version="0.1.0", lifespan=_lifespan)
    app.state.taskflow = Application(settings)
    problems.install(app)
    # search before tasks: /tasks/search is not a task whose id is "search".
    for part in (
        search, tasks, timelog, watchers, projects, dashboard, people, export, board, users, reports,
        notifications, health,
    ):  # fmt: skip
        app.include_router(part.router)
    mount_dashboard(app, settings.pyscope_token, settings.pyscope_hosts)
    app.mount("/static", StaticFiles(directory=board.STATIC), name="static")
    return app
