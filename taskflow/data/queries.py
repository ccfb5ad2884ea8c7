"""Every statement TaskFlow runs, as values: coroutines and threads, faults and their twins share them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Delete, Insert, Select, Update, case, delete, func, insert, select, update
from sqlalchemy.orm import selectinload

from taskflow.data.models import Priority, Project, Task, TaskStatus, User, task_watchers


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


def available_tasks(project_id: int) -> Select[Task]:
    """The open tasks of a project, the most urgent first, of those the oldest."""
    urgency = case({priority: rank for rank, priority in enumerate(Priority)}, value=Task.priority, else_=-1)
    return (
        select(Task)
        .where(Task.project_id == project_id, Task.status == TaskStatus.OPEN)
        .order_by(urgency.desc(), Task.created_at, Task.id)
    )


def next_available_task(project_id: int) -> Select[Task]:
    """The first available task of a project; locked, and past rows locked by others."""
    return available_tasks(project_id).limit(1).with_for_update(skip_locked=True)


def overwrite_assignee(task_id: int, assignee_id: int, at: datetime) -> Update:
    """Give a task to someone, whoever may have it."""
    return _change_task(task_id).values(status=TaskStatus.ASSIGNED, assignee_id=assignee_id, updated_at=at)


def tasks_under_way() -> Select[int, int | None]:
    """The id and the assignee of each task that is assigned or in progress."""
    under_way = Task.status.in_((TaskStatus.ASSIGNED, TaskStatus.IN_PROGRESS))
    return select(Task.id, Task.assignee_id).where(under_way)


def locked_task(task_id: int) -> Select[Task]:
    """One task, whose row nobody else changes or locks before the transaction ends."""
    return select(Task).where(Task.id == task_id).with_for_update()


def search_tasks(text: str, limit: int) -> Select[Task]:
    """The first `limit` tasks whose title or description holds `text`, upper and lower case alike."""
    found = Task.title.icontains(text, autoescape=True) | Task.description.icontains(text, autoescape=True)
    return select(Task).where(found).order_by(Task.id).limit(limit)


def all_tasks() -> Select[Task]:
    """Every task there is, in order of id."""
    return select(Task).order_by(Task.id)


def tasks_of_project(project_id: int) -> Select[Task]:
    """Every task of a project with its assignee, in order of id."""
    return (
        select(Task)
        .where(Task.project_id == project_id)
        .order_by(Task.id)
        .options(selectinload(Task.assignee))
    )


def add_minutes(task_id: int, minutes: int, at: datetime) -> Update:
    """Log time on a task: the database adds, so that no concurrent addition is lost."""
    return _change_task(task_id).values(minutes_spent=Task.minutes_spent + minutes, updated_at=at)


def set_minutes(task_id: int, minutes: int, at: datetime) -> Update:
    """Overwrite the minutes spent on a task."""
    return _change_task(task_id).values(minutes_spent=minutes, updated_at=at)


def _change_task(task_id: int) -> Update:
    return update(Task).where(Task.id == task_id).execution_options(synchronize_session=False)


def watchers_of(task_id: int) -> Select[User]:
    """Who watches a task, in order of id."""
    return (
        select(User)
        .join(task_watchers, task_watchers.c.user_id == User.id)
        .where(task_watchers.c.task_id == task_id)
        .order_by(User.id)
    )


def count_watchers(task_id: int) -> Select[int]:
    """How many people watch a task."""
    return select(func.count()).select_from(task_watchers).where(task_watchers.c.task_id == task_id)


def is_watching(task_id: int, user_id: int) -> Select[int]:
    """1 when that user watches that task, else no row."""
    return select(1).where(task_watchers.c.task_id == task_id, task_watchers.c.user_id == user_id)


def add_watcher(task_id: int, user_id: int) -> Insert:
    """Let a user watch a task."""
    return insert(task_watchers).values(task_id=task_id, user_id=user_id)


def remove_watcher(task_id: int, user_id: int) -> Delete:
    """Let a user no longer watch a task."""
    return delete(task_watchers).where(task_watchers.c.task_id == task_id, task_watchers.c.user_id == user_id)


def people_of_project(project_id: int) -> Select[int]:
    """The ids of all who own a project, do its tasks or watch them, in order and each once."""
    owner = select(Project.owner_id.label("id")).where(Project.id == project_id)
    assignees = select(Task.assignee_id).where(Task.project_id == project_id, Task.assignee_id.is_not(None))
    watchers = (
        select(task_watchers.c.user_id)
        .join(Task, Task.id == task_watchers.c.task_id)
        .where(Task.project_id == project_id)
    )
    people = owner.union(assignees, watchers).subquery()
    return select(people.c.id).order_by(people.c.id)


def users_by_id(identities: Collection[int]) -> Select[User]:
    """The users with those ids, in order of id."""
    return select(User).where(User.id.in_(identities)).order_by(User.id)


def newest_tasks_of_status(project_id: int, status: TaskStatus, limit: int) -> Select[Task]:
    """A column of the board: the tasks of a status that changed last, with their assignees."""
    return (
        select(Task)
        .where(Task.project_id == project_id, Task.status == status)
        .order_by(Task.updated_at.desc(), Task.id.desc())
        .limit(limit)
        .options(selectinload(Task.assignee))
    )


def tasks_by_id(identities: Collection[int]) -> Select[Task]:
    """The tasks with those ids and their assignees, in order of id."""
    return select(Task).where(Task.id.in_(identities)).order_by(Task.id).options(selectinload(Task.assignee))
