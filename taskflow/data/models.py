"""The tables: who does the work (User), where (Project), and the work itself (Task)."""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
)
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

TITLE_LENGTH = 200
DESCRIPTION_LENGTH = 10_000
EMAIL_LENGTH = 254


def now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


class TaskStatus(StrEnum):
    """The life of a task; it only ever moves forward, one step at a time."""

    OPEN = "open"
    ASSIGNED = "assigned"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"

    @property
    def predecessor(self) -> "TaskStatus | None":
        """The only status from which this one can be reached."""
        order = list(TaskStatus)
        position = order.index(self)
        return order[position - 1] if position else None


class Priority(StrEnum):
    """How urgent a task is."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC on every backend; SQLite would forget the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive datetimes, convert the others to UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give SQLite's naive values their zone back."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def _stored_as_text(kind: type[StrEnum]) -> Enum:
    """A VARCHAR with a CHECK constraint: the same on SQLite and PostgreSQL, and easy to extend."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        length=16,
        name=f"{kind.__name__.lower()}_is_known",
        values_callable=lambda members: [member.value for member in members],
    )


class Base(AsyncAttrs, DeclarativeBase):
    """Common base; `awaitable_attrs` lets coroutines load relationships lazily."""

    def __repr__(self) -> str:
        identity: Any = self.__dict__.get("id")
        return f"{type(self).__name__}(id={identity!r})"


task_watchers = Table(
    "task_watchers",
    Base.metadata,
    Column("task_id", ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
)


class User(Base):
    """Someone who owns projects, is assigned tasks and watches others."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    email: Mapped[str] = mapped_column(String(EMAIL_LENGTH), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)

    projects: Mapped[list["Project"]] = relationship(back_populates="owner")
    tasks: Mapped[list["Task"]] = relationship(back_populates="assignee")


class Project(Base):
    """A named body of work with an owner."""

    __tablename__ = "projects"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(TITLE_LENGTH), unique=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)

    owner: Mapped[User] = relationship(back_populates="projects")
    tasks: Mapped[list["Task"]] = relationship(back_populates="project")


class Task(Base):
    """One piece of work in a project."""

    __tablename__ = "tasks"
    __table_args__ = (
        Index("tasks_by_project_and_status", "project_id", "status"),
        CheckConstraint("status = 'open' OR assignee_id IS NOT NULL", name="work_has_an_assignee"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    assignee_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    title: Mapped[str] = mapped_column(String(TITLE_LENGTH))
    description: Mapped[str] = mapped_column(Text, default="")
    status: Mapped[TaskStatus] = mapped_column(_stored_as_text(TaskStatus), default=TaskStatus.OPEN)
    priority: Mapped[Priority] = mapped_column(_stored_as_text(Priority), default=Priority.NORMAL)
    due_date: Mapped[date | None] = mapped_column(index=True)
    minutes_spent: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, onupdate=now)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    project: Mapped[Project] = relationship(back_populates="tasks")
    assignee: Mapped[User | None] = relationship(back_populates="tasks")
    watchers: Mapped[list[User]] = relationship(secondary=task_watchers, order_by=User.id)
