"""What goes over the wire: request bodies, answers, and the limits of each field."""

from datetime import date, datetime
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from taskflow.data.models import DESCRIPTION_LENGTH, EMAIL_LENGTH, TITLE_LENGTH, Priority, TaskStatus
from taskflow.data.reports import ReportStatus

LARGEST_ID = 2**31 - 1
LARGEST_PAGE = 200
MOST_MINUTES = 24 * 60


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain the NUL character")
    return value


Identity = Annotated[int, Field(ge=1, le=LARGEST_ID)]
Title = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=TITLE_LENGTH),
    AfterValidator(_without_nul),
]
Description = Annotated[str, StringConstraints(max_length=DESCRIPTION_LENGTH), AfterValidator(_without_nul)]
Email = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        to_lower=True,
        max_length=EMAIL_LENGTH,
        pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$",
    ),
]
SearchText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=TITLE_LENGTH),
    AfterValidator(_without_nul),
    Query(description="a part of the title or description"),
]
Item = TypeVar("Item")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewUser(_Body):
    """A user to create."""

    name: Title
    email: Email


class NewProject(_Body):
    """A project to create."""

    name: Title
    owner_id: Identity


class NewTask(_Body):
    """A task to create; it starts open."""

    project_id: Identity
    title: Title
    description: Description = ""
    priority: Priority = Priority.NORMAL
    due_date: date | None = None


class Assignment(_Body):
    """Who is to do a task."""

    assignee_id: Identity


class TimeSpent(_Body):
    """Time to add to a task."""

    minutes: int = Field(ge=1, le=MOST_MINUTES)


class NewWatcher(_Body):
    """Who is to watch a task."""

    user_id: Identity


class _Stored(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    created_at: datetime


class UserOut(_Stored):
    """A stored user."""

    name: str
    email: str


class ProjectOut(_Stored):
    """A stored project."""

    name: str
    owner_id: int


class TaskOut(_Stored):
    """A stored task."""

    project_id: int
    assignee_id: int | None
    title: str
    description: str
    status: TaskStatus
    priority: Priority
    due_date: date | None
    minutes_spent: int
    updated_at: datetime
    completed_at: datetime | None


class Page(BaseModel, Generic[Item]):
    """Part of a list. `next_after` is the `after` of the next page, or null at the end."""

    items: list[Item]
    next_after: int | None


class Line(BaseModel):
    """One task as the dashboard shows it."""

    id: int
    title: str
    status: TaskStatus
    priority: Priority
    assignee: str | None
    watchers: list[str]


class Dashboard(BaseModel):
    """A project at a glance: its numbers and its newest tasks with the people around them."""

    project: ProjectOut
    by_status: dict[TaskStatus, int]
    overdue: int
    latest: list[Line]


class Statistics(BaseModel):
    """A project's numbers on `day`; `changes` is how many its worker has seen since it started."""

    model_config = ConfigDict(from_attributes=True)

    project_id: int
    by_status: dict[TaskStatus, int]
    overdue: int
    changes: int
    day: date


class NewReport(_Body):
    """A report to make on the tasks created in a year (UTC)."""

    year: Annotated[int, Field(ge=1970, le=9998)]


class ReportOut(BaseModel):
    """How a report stands. `progress` goes from 0 to 1; `restarts` counts processes that died over it.

    What it took (`cpu_seconds`, `peak_memory` in bytes) and how many `tasks` it covers is known when finished.
    """

    model_config = ConfigDict(from_attributes=True)

    id: int
    year: int
    status: ReportStatus
    progress: float
    restarts: int
    problem: str | None
    tasks: int | None
    cpu_seconds: float | None
    peak_memory: int | None
    created_at: datetime
    finished_at: datetime | None


class ChannelFigures(BaseModel):
    """Of one channel: deliveries since the start that arrived and that failed; notifications kept now that
    wait for a further delivery, and that were refused for good.
    """

    model_config = ConfigDict(from_attributes=True)

    sent: int
    failed: int
    waiting: int
    refused: int


class NotificationFigures(BaseModel):
    """How notifications stand; `missed` events came faster than they could be kept."""

    model_config = ConfigDict(from_attributes=True)

    email: ChannelFigures
    webhook: ChannelFigures
    missed: int


class Health(BaseModel):
    """The process is alive."""

    status: str = "ok"


class Readiness(BaseModel):
    """Requests are served: `ok`, or `degraded` while a part is missing that TaskFlow can do without.

    `parts` has the condition of each: `ok`, `off` by its setting, or `degraded: …` with the reason.
    """

    status: Literal["ok", "degraded"]
    parts: dict[str, str]
