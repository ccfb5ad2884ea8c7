"""A TaskFlow database of a test's own: its settings and its seeds."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from taskflow.data.database import Database
from taskflow.data.seeds import seed
from taskflow.settings import Settings

SEEDED_PROJECTS = 4
SEEDED_TASKS = 400


def taskflow_settings(directory: Path, **values: object) -> Settings:
    """Settings for a TaskFlow whose database is a new SQLite file in `directory`."""
    return Settings.model_validate({"database_url": f"sqlite:///{directory / 'taskflow.db'}", **values})


def seed_taskflow(settings: Settings, projects: int = SEEDED_PROJECTS, tasks: int = SEEDED_TASKS) -> None:
    """Fill the database of `settings`, which must be empty."""

    async def run() -> None:
        database = Database(settings)
        try:
            await seed(database, projects, tasks)
        finally:
            await database.close()

    # In a thread of its own: while a browser is open, Playwright's event loop runs in the caller's.
    with ThreadPoolExecutor(1) as apart:
        apart.submit(asyncio.run, run()).result()
