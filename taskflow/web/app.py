"""The application factory: `create_app()` gives the FastAPI application around TaskFlow's parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from taskflow.application import Application
from taskflow.recording import recording, watch
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
            watch(application.actors.supervisor)
            yield


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
    app.mount("/static", StaticFiles(directory=board.STATIC), name="static")
    return app
