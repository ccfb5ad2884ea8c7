"""The annual reports that were asked for: their table, and the statements around a year's tasks."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import BigInteger, Select, String, Update, func, select, update
from sqlalchemy.orm import Mapped, mapped_column

from taskflow.data.database import Database
from taskflow.data.models import Base, Task, UtcDateTime, now
from taskflow.errors import NotFound

ROWS_AT_A_TIME: Final = 1_000
PROBLEM_LENGTH: Final = 1_000


class ReportStatus(StrEnum):
    """The life of a report."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class Report(Base):
    """One report on one year. What it took is known once it is finished: seconds of CPU, bytes of memory.

    `restarts` is how often its process died and was started again; it and `progress` are stored at the end.
    """

    __tablename__ = "reports"

    id: Mapped[int] = mapped_column(primary_key=True)
    year: Mapped[int]
    status: Mapped[str] = mapped_column(String(16), default=ReportStatus.WAITING)
    problem: Mapped[str | None] = mapped_column(String(PROBLEM_LENGTH))
    progress: Mapped[float] = mapped_column(default=0.0)
    restarts: Mapped[int] = mapped_column(default=0)
    tasks: Mapped[int | None]
    cpu_seconds: Mapped[float | None]
    peak_memory: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Reports:
    """The reports of one database, for coroutines."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def new(self, year: int) -> Report:
        """Note a report that was asked for; it waits."""
        async with self._database.writing() as repo:
            return await repo.insert(Report(year=year))

    async def get(self, report_id: int) -> Report:
        """The report with that id, or NotFound."""
        async with self._database.reading() as repo:
            report = await repo.session.get(Report, report_id)
        if report is None:
            raise NotFound("report", report_id)
        return report

    async def page(self, after: int, limit: int) -> Sequence[Report]:
        """A page of reports in order of id."""
        async with self._database.reading() as repo:
            statement = select(Report).where(Report.id > after).order_by(Report.id).limit(limit)
            return (await repo.session.scalars(statement)).all()

    async def unfinished(self) -> Sequence[Report]:
        """The reports that wait or run, in order of id."""
        async with self._database.reading() as repo:
            statement = select(Report).where(Report.status.in_([ReportStatus.WAITING, ReportStatus.RUNNING]))
            return (await repo.session.scalars(statement.order_by(Report.id))).all()

    async def change(self, report_id: int, status: ReportStatus, **values: Any) -> None:
        """Note how a report stands."""
        async with self._database.writing() as repo:
            await repo.session.execute(_change(report_id, status, **values))

    async def tasks_of(self, year: int) -> int:
        """How many tasks were created in a year (UTC)."""
        async with self._database.reading() as repo:
            return await repo.session.scalar(count_tasks_of(year)) or 0


def _change(report_id: int, status: ReportStatus, **values: Any) -> Update:
    if status in (ReportStatus.FINISHED, ReportStatus.FAILED):
        values["finished_at"] = now()
    return (
        update(Report)
        .where(Report.id == report_id)
        .values(status=status, **values)
        .execution_options(synchronize_session=False)
    )


def count_tasks_of(year: int) -> Select[int]:
    """How many tasks were created in a year."""
    begin, end = _bounds(year)
    return select(func.count()).select_from(Task).where(Task.created_at >= begin, Task.created_at < end)


def stream_tasks_of(year: int) -> Select[*tuple[Any, ...]]:
    """The columns a report needs of each task of a year, from a cursor on the server, a thousand at a time."""
    begin, end = _bounds(year)
    return (
        select(
            Task.project_id,
            Task.assignee_id,
            Task.title,
            Task.description,
            Task.status,
            Task.priority,
            Task.due_date,
            Task.created_at,
            Task.completed_at,
        )
        .where(Task.created_at >= begin, Task.created_at < end)
        .execution_options(yield_per=ROWS_AT_A_TIME)
    )


def all_tasks_of(year: int) -> Select[Task]:
    """Every task of a year as an object."""
    begin, end = _bounds(year)
    return select(Task).where(Task.created_at >= begin, Task.created_at < end)


def _bounds(year: int) -> tuple[datetime, datetime]:
    return datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
