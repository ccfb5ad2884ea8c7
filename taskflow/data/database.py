"""The database: engine, transactions, and what SQLite needs to behave like a server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from taskflow.data.models import Base
from taskflow.data.repo import Repo
from taskflow.settings import Settings

BUSY_TIMEOUT_MS = 10_000


class Database:
    """One asynchronous engine and the two kinds of transaction over it."""

    def __init__(self, settings: Settings) -> None:
        url = settings.async_database_url
        options: dict[str, Any] = {"pool_size": settings.database_pool_size, "max_overflow": 0}
        if url.get_backend_name() == "sqlite":
            # Without this the driver begins transactions by itself, and only at the first write.
            options["connect_args"] = {"isolation_level": None}
        self.engine: AsyncEngine = create_async_engine(url, **options)
        self._writing_engine = self.engine
        self._turn_to_write: AbstractAsyncContextManager[None] = nullcontext()
        if url.get_backend_name() == "sqlite":
            event.listen(self.engine.sync_engine, "connect", _set_pragmas)
            event.listen(self.engine.sync_engine, "begin", _begin)
            # A deferred transaction that reads first cannot wait for a lock when it comes to write:
            # SQLite fails it at once, whatever the busy timeout. So writers lock first.
            self._writing_engine = self.engine.execution_options(taskflow_begin="IMMEDIATE")
            # SQLite admits one writer. This line is first come, first served; its busy handler polls,
            # sleeps up to 100 ms each time and lets some callers starve. It still serves other processes.
            self._turn_to_write = asyncio.Lock()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Repo]:
        """A repository in a transaction that is rolled back at the end."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            yield Repo(session)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Repo]:
        """A repository in a transaction that is committed at the end, or rolled back by an exception."""
        async with (
            self._turn_to_write,
            AsyncSession(self._writing_engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield Repo(session)

    async def create_schema(self) -> None:
        """Create the tables that do not exist yet."""
        async with self._writing_engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def ping(self) -> None:
        """Run a trivial statement; raises what the driver raises when the database is away."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


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
    connection.exec_driver_sql(f"BEGIN {mode}")
