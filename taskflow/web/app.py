"""The application factory: `create_app()` gives a FastAPI application that owns its database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from taskflow.data.database import Database
from taskflow.recording import recording
from taskflow.settings import Settings
from taskflow.web import dashboard, health, problems, projects, tasks, users


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    database: Database = app.state.database
    with recording(settings.pyscope):
        try:
            await database.create_schema()
            yield
        finally:
            await database.close()


def create_app(settings: Settings | None = None) -> FastAPI:
    """The TaskFlow application.

    `settings` come from the environment when left out. The schema is created, the connections are
    opened and closed in the application's lifespan. `app.state.database` is its `Database`.
    """
    settings = settings or Settings()
    app = FastAPI(title="TaskFlow", version="0.1.0", lifespan=_lifespan)
    app.state.settings = settings
    app.state.database = Database(settings)
    problems.install(app)
    for part in (tasks, projects, dashboard, users, health):
        app.include_router(part.router)
    return app
