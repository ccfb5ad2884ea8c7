"""Every statement TaskFlow runs, as values: an asynchronous and a synchronous repository share them."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Select, Update, func, select, update
from sqlalchemy.orm import selectinload

from taskflow.data.models import Priority, Project, Task, TaskStatus, User


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks a list shows; a field that is None does not restrict it."""

    project_id: int | None = None
    assignee_id: int | None = None
    status: TaskStatus | None = None
    priority: Priority | None = None
    due_before: date | None = None


def tasks_page(wanted: TaskFilter, after: int, limit: int) -> Select[Task]:
    """Up to `limit` tasks in order of id, beginning behind the task `after`."""
    statement = select(Task).where(Task.id > after).order_by(Task.id).limit(limit)
    if wanted.project_id is not None:
        statement = statement.where(Task.project_id == wanted.project_id)
    if wanted.assignee_id is not None:
        statement = statement.where(Task.assignee_id == wanted.assignee_id)
    if wanted.status is not None:
        statement = statement.where(Task.status == wanted.status)
    if wanted.priority is not None:
        statement = statement.where(Task.priority == wanted.priority)
    if wanted.due_before is not None:
        statement = statement.where(Task.due_date < wanted.due_before)
    return statement


def projects_page(after: int, limit: int) -> Select[Project]:
    """Up to `limit` projects in order of id, beginning behind the project `after`."""
    return select(Project).where(Project.id > after).order_by(Project.id).limit(limit)


def users_page(after: int, limit: int) -> Select[User]:
    """Up to `limit` users in order of id, beginning behind the user `after`."""
    return select(User).where(User.id > after).order_by(User.id).limit(limit)


def advance_task(task_id: int, target: TaskStatus, at: datetime, **values: Any) -> Update:
    """Move one task to `target`, only if it still stands right before it.

    The condition is part of the UPDATE, so of any number of concurrent callers exactly one sees a
    row count of 1; the others see 0 and have changed nothing.
    """
    return (
        update(Task)
        .where(Task.id == task_id, Task.status == target.predecessor)
        .values(status=target, updated_at=at, **values)
        .execution_options(synchronize_session=False)
    )


def count_by_status(project_id: int) -> Select[TaskStatus, int]:
    """How many tasks of a project are in each status; statuses without tasks have no row."""
    return select(Task.status, func.count()).where(Task.project_id == project_id).group_by(Task.status)


def count_overdue(project_id: int, today: date) -> Select[int]:
    """How many unfinished tasks of a project were due before `today`."""
    return (
        select(func.count())
        .select_from(Task)
        .where(Task.project_id == project_id, Task.status != TaskStatus.COMPLETED, Task.due_date < today)
    )


def latest_tasks(project_id: int, limit: int) -> Select[Task]:
    """The newest `limit` tasks of a project; their relationships load lazily, one task at a time."""
    return select(Task).where(Task.project_id == project_id).order_by(Task.id.desc()).limit(limit)


def latest_tasks_with_people(project_id: int, limit: int) -> Select[Task]:
    """The same tasks with assignees and watchers, which take one more SELECT each in total."""
    return latest_tasks(project_id, limit).options(selectinload(Task.assignee), selectinload(Task.watchers))
