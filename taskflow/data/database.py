"""The database: engines, transactions, and what SQLite needs to behave like a server.

There are two sides over the same tables: `Database` for coroutines, `SyncDatabase` for threads and
worker processes. There are no migrations: a database of an older TaskFlow is refused with the way out.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from taskflow.data.models import Base
from taskflow.data.repo import Repo, SyncRepo
from taskflow.data.turns import Turns
from taskflow.errors import OutdatedSchema
from taskflow.settings import Settings

BUSY_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_SECONDS = 5

# How a transaction begins on SQLite. A deferred one that reads first cannot wait for a lock when it
# comes to write: SQLite fails it at once, whatever the busy timeout. So writers lock first.
READING = {"taskflow_begin": "DEFERRED"}
WRITING = {"taskflow_begin": "IMMEDIATE"}
UNGUARDED = {"taskflow_begin": None}


class Invalidation(Protocol):
    """Who has to know which projects a committed transaction has changed: the cache."""

    async def forget(self, projects: set[int]) -> None:
        """Called in the event loop, after the commit."""

    def forget_in_thread(self, projects: set[int]) -> None:
        """Called in a thread, after the commit."""


class _Nobody:
    async def forget(self, projects: set[int]) -> None:
        pass

    def forget_in_thread(self, projects: set[int]) -> None:
        pass


class SyncDatabase:
    """The synchronous engine and its transactions, for threads: actors and worker processes."""

    def __init__(
        self, settings: Settings, invalidation: Invalidation | None = None, turns: Turns | None = None
    ) -> None:
        url = settings.sync_database_url
        self.engine: Engine = create_engine(url, **_options(settings, url))
        self._invalidation = invalidation or _Nobody()
        self._turns = _prepare(self.engine, turns)

    @contextmanager
    def reading(self) -> Iterator[SyncRepo]:
        """A repository in a transaction that is rolled back at the end."""
        with Session(self.engine.execution_options(**READING), expire_on_commit=False) as session:
            yield SyncRepo(session)

    @contextmanager
    def writing(self) -> Iterator[SyncRepo]:
        """A repository in a transaction that is committed at the end, or rolled back by an exception."""
        with (
            self._turns.in_thread() if self._turns else nullcontext(),
            Session(self.engine.execution_options(**WRITING), expire_on_commit=False) as session,
        ):
            repo = SyncRepo(session)
            with session.begin():
                yield repo
        if repo.changed_projects:
            self._invalidation.forget_in_thread(repo.changed_projects)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


class Database:
    """The asynchronous engine and its transactions, for coroutines. `sync` is the other side."""

    def __init__(self, settings: Settings, invalidation: Invalidation | None = None) -> None:
        url = settings.async_database_url
        self.engine: AsyncEngine = create_async_engine(url, **_options(settings, url))
        self._invalidation = invalidation or _Nobody()
        self._turns = _prepare(self.engine.sync_engine)
        self.sync = SyncDatabase(settings, invalidation, self._turns)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Repo]:
        """A repository in a transaction that is rolled back at the end."""
        async with self._session(READING) as session:
            yield Repo(session)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Repo]:
        """A repository in a transaction that is committed at the end, or rolled back by an exception."""
        async with self._turns.awaited() if self._turns else nullcontext(), self._session(WRITING) as session:
            repo = Repo(session)
            async with session.begin():
                yield repo
        await self._tell(repo)

    @asynccontextmanager
    async def writing_unguarded(self) -> AsyncIterator[Repo]:
        """As `writing`, but nothing keeps others from writing between what it reads and what it writes.

        Only faults want this. On PostgreSQL it is a plain READ COMMITTED transaction, on SQLite each
        statement stands alone, as in a program whose author did not think of transactions.
        """
        async with self._session(UNGUARDED) as session:
            repo = Repo(session)
            async with session.begin():
                yield repo
        await self._tell(repo)

    async def create_schema(self) -> None:
        """Create the tables that do not exist yet; OutdatedSchema when one that does lacks a column."""
        async with self.engine.execution_options(**WRITING).begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.run_sync(_refuse_outdated)

    async def ping(self) -> None:
        """Run a trivial statement; raises what the driver raises when the database is away."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection of both sides."""
        self.sync.close()
        await self.engine.dispose()

    def _session(self, begin: Mapping[str, str | None]) -> AsyncSession:
        return AsyncSession(self.engine.execution_options(**begin), expire_on_commit=False)

    async def _tell(self, repo: Repo) -> None:
        if repo.changed_projects:
            await self._invalidation.forget(repo.changed_projects)


def _options(settings: Settings, url: URL) -> dict[str, Any]:
    options: dict[str, Any] = {"pool_size": settings.database_pool_size, "max_overflow": 0}
    if url.get_backend_name() == "sqlite":
        # Without this the driver begins transactions by itself, and only at the first write.
        options["connect_args"] = {"isolation_level": None}
    else:
        options["connect_args"] = {
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "options": f"-c lock_timeout={BUSY_TIMEOUT_MS}",
        }
    return options


def _prepare(engine: Engine, turns: Turns | None = None) -> Turns | None:
    """What SQLite needs; returns the line of its writers, None where the server has one of its own.

    SQLite admits one writer. Its busy handler polls, sleeps up to 100 ms each time and lets some
    callers starve; it still serves other processes, but within this one writers stand in line.
    """
    if engine.dialect.name != "sqlite":
        return None
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return turns or Turns()


def _set_pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    mode = connection.get_execution_options().get("taskflow_begin", "DEFERRED")
    if mode is not None:
        connection.exec_driver_sql(f"BEGIN {mode}")


def _refuse_outdated(connection: Connection) -> None:
    stored = inspect(connection)
    for table in Base.metadata.sorted_tables:
        columns = {column["name"] for column in stored.get_columns(table.name)}
        if missing := set(table.columns.keys()) - columns:
            raise OutdatedSchema(table.name, missing)
