"""Real services for the integration tests: databases, a cache, a seeded TaskFlow served by uvicorn."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from taskflow.process import ServerProcess
from tests.integration.servers import Postgres, Valkey, postgres_server, valkey_server
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for all tests of the session."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """The URL of a PostgreSQL database of this test's own, new and empty."""
    return postgres.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new and empty database; the test runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'taskflow.db'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.new_database()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey server of this test's own."""
    with valkey_server(tmp_path) as server:
        yield server


@pytest.fixture
def taskflow_process(tmp_path: Path) -> Iterator[ServerProcess]:
    """A seeded TaskFlow server of this test's own, to be stopped or broken."""
    settings = taskflow_settings(tmp_path)
    seed_taskflow(settings)
    with ServerProcess(tmp_path, {"DATABASE_URL": settings.database_url}) as server:
        yield server


@pytest.fixture(scope="session")
def taskflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a seeded TaskFlow server that all tests share; they add to it, each its own things."""
    directory = tmp_path_factory.mktemp("taskflow")
    settings = taskflow_settings(directory)
    seed_taskflow(settings)
    with ServerProcess(directory, {"DATABASE_URL": settings.database_url}) as server:
        yield server.url


@pytest.fixture(scope="session")
def taskflow(taskflow_url: str) -> Iterator[httpx2.Client]:
    """A client of the shared TaskFlow server."""
    with httpx2.Client(base_url=taskflow_url, timeout=30, trust_env=False) as client:
        yield client
