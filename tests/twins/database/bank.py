"""A bank on PostgreSQL or SQLite: models, a small database, and workers whose transactions meet where they are told to.

No sleep decides who comes first. At a rendezvous a worker waits until every other one is there too, has ended, or hangs
in a lock of the database: so a pair of transactions that exclude each other passes it as well as one that does not.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import psycopg
from sqlalchemy import ForeignKey, UniqueConstraint, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import NullPool

PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.002


class Base(DeclarativeBase):
    """The base of the models."""


class Account(Base):
    """An account without protection."""

    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    balance: Mapped[int]
    status: Mapped[str] = mapped_column(default="open")
    note: Mapped[str] = mapped_column(default="")
    seen: Mapped[datetime | None] = mapped_column()


class VersionedAccount(Base):
    """An account whose updates say which version they rest on."""

    __tablename__ = "versioned_accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int]
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


class Ward(Base):
    """A ward that must not be without a doctor."""

    __tablename__ = "wards"
    id: Mapped[int] = mapped_column(primary_key=True)
    beds: Mapped[int] = mapped_column(default=1)
    doctors: Mapped[list[Doctor]] = relationship(order_by="Doctor.id")


class Doctor(Base):
    """A doctor, on call or not."""

    __tablename__ = "doctors"
    id: Mapped[int] = mapped_column(primary_key=True)
    ward_id: Mapped[int] = mapped_column(ForeignKey("wards.id"))
    on_call: Mapped[bool] = mapped_column(default=True)


class Patient(Base):
    """A patient in a bed; nothing in the schema limits them."""

    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    ward_id: Mapped[int]
    name: Mapped[str]


class UniquePatient(Base):
    """A patient whose name the schema keeps unique."""

    __tablename__ = "unique_patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    __table_args__ = (UniqueConstraint("name"),)


class Rendezvous:
    """Where workers wait for each other."""

    def __init__(self, bank: Bank, parties: int) -> None:
        self._bank = bank
        self._parties = parties
        self._lock = threading.Lock()
        self._arrived: dict[str, int] = {}
        self.ended = 0

    def _arrive(self, place: str) -> None:
        with self._lock:
            self._arrived[place] = self._arrived.get(place, 0) + 1

    def _is_complete(self, place: str) -> bool:
        return self._arrived[place] + self.ended + self._bank.waiting() >= self._parties

    def meet(self, place: str = "read") -> None:
        """Waits for the others."""
        self._arrive(place)
        end = time.monotonic() + PATIENCE_SECONDS
        while not self._is_complete(place):
            assert time.monotonic() < end, f"nobody came to {place!r}"
            time.sleep(_PAUSE_SECONDS)

    async def meet_async(self, place: str = "read") -> None:
        """Waits for the other tasks."""
        self._arrive(place)
        end = time.monotonic() + PATIENCE_SECONDS
        while not self._is_complete(place):
            assert time.monotonic() < end, f"nobody came to {place!r}"
            await asyncio.sleep(_PAUSE_SECONDS)


class Bank:
    """A database of accounts and a hospital."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self.is_postgres = self._url.get_backend_name() == "postgresql"
        driver, async_driver = ("psycopg", "psycopg") if self.is_postgres else ("pysqlite", "aiosqlite")
        name = self._url.get_backend_name()
        self.engine = create_engine(self._url.set(drivername=f"{name}+{driver}"), poolclass=NullPool)
        self.async_engine = create_async_engine(
            self._url.set(drivername=f"{name}+{async_driver}"), poolclass=NullPool
        )
        self._watcher = psycopg.connect(url, autocommit=True) if self.is_postgres else None
        self._watching = threading.Lock()

    def session(self, isolation: str = "", **options: bool) -> Session:
        """A synchronous session, at the database's own isolation level unless one is given."""
        engine = self.engine.execution_options(isolation_level=isolation) if isolation else self.engine
        return Session(engine, **options)

    def async_session(self) -> AsyncSession:
        """An asynchronous session."""
        return AsyncSession(self.async_engine)

    def waiting(self) -> int:
        """How many transactions hang in a lock."""
        if self._watcher is None:
            return 0
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with self._watching:
            row = self._watcher.execute(query).fetchone()
        return row[0] if row else 0

    def run(self, *workers: Callable[[Rendezvous], None]) -> None:
        """Runs each in a thread; raises what the first failed with."""
        rendezvous = Rendezvous(self, len(workers))
        failures: list[BaseException] = []

        def work(worker: Callable[[Rendezvous], None]) -> None:
            try:
                worker(rendezvous)
            except BaseException as error:
                failures.append(error)
            finally:
                rendezvous.ended += 1

        threads = [threading.Thread(target=work, args=[worker]) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def run_tasks(self, *workers: Callable[[Rendezvous], Awaitable[None]]) -> None:
        """Runs each in an asyncio task; raises what one failed with."""
        rendezvous = Rendezvous(self, len(workers))

        async def work(worker: Callable[[Rendezvous], Awaitable[None]]) -> None:
            try:
                await worker(rendezvous)
            finally:
                rendezvous.ended += 1

        async def everything() -> None:
            await asyncio.gather(*(work(worker) for worker in workers))

        asyncio.run(everything())

    def balance(self, model: type[Account] | type[VersionedAccount] = Account, key: int = 1) -> int:
        """What an account holds."""
        with self.session() as session:
            return session.get_one(model, key).balance

    def fill(self) -> None:
        """The tables as new, two accounts of 100 of each kind, a ward of two doctors, no patients."""
        Base.metadata.drop_all(self.engine)
        Base.metadata.create_all(self.engine)
        with self.session() as session:
            session.add_all(Account(id=key, owner="ann", balance=100) for key in (1, 2))
            session.add_all(VersionedAccount(id=key, balance=100) for key in (1, 2))
            session.add(Ward(id=1, doctors=[Doctor(id=1), Doctor(id=2)]))
            session.commit()

    def close(self) -> None:
        """Ends the connection that watches the others."""
        if self._watcher is not None:
            self._watcher.close()
        self.engine.dispose()


@contextmanager
def opened(url: str) -> Iterator[Bank]:
    """A bank on a database."""
    bank = Bank(url)
    try:
        yield bank
    finally:
        bank.close()
