"""The repository: what can be done with the data, each method within the caller's transaction.

`SyncRepo` holds the code. `Repo` is the same for coroutines: it runs those methods in the greenlet that
SQLAlchemy keeps for synchronous code over an asynchronous driver.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import date
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from sqlalchemy import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from taskflow.data import queries
from taskflow.data.models import Base, Priority, Project, Task, TaskStatus, User, now
from taskflow.data.queries import TaskFilter
from taskflow.errors import (
    AlreadyWatching,
    InvalidTransition,
    LastWatcher,
    NotFound,
    NothingAvailable,
    UnknownReference,
)

Row = TypeVar("Row", bound=Base)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a project stands: tasks in each status (every status is a key), and those overdue."""

    by_status: dict[TaskStatus, int]
    overdue: int


class SyncRepo:
    """Tasks, projects and users through one `Session`.

    It never commits: `reading` and `writing` of a database say where a transaction begins and ends.
    Methods raise the errors of `taskflow.errors`. `changed_projects` are the ids of the projects that
    were changed through this repository, for whoever keeps copies.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.changed_projects: set[int] = set()

    def user(self, user_id: int) -> User:
        """The user with that id, or NotFound."""
        return self._get(User, user_id)

    def project(self, project_id: int) -> Project:
        """The project with that id, or NotFound."""
        return self._get(Project, project_id)

    def task(self, task_id: int) -> Task:
        """The task with that id, or NotFound."""
        return self._get(Task, task_id)

    def users(self, after: int, limit: int) -> Sequence[User]:
        """A page of users in order of id."""
        return self.session.scalars(queries.users_page(after, limit)).all()

    def projects(self, after: int, limit: int) -> Sequence[Project]:
        """A page of projects in order of id."""
        return self.session.scalars(queries.projects_page(after, limit)).all()

    def tasks(self, wanted: TaskFilter, after: int, limit: int) -> Sequence[Task]:
        """A page of the wanted tasks in order of id."""
        return self.session.scalars(queries.tasks_page(wanted, after, limit)).all()

    def progress(self, project_id: int, today: date) -> Progress:
        """How far a project has come; one with an unknown id has no tasks."""
        counts = dict.fromkeys(TaskStatus, 0)
        for status, count in self.session.execute(queries.count_by_status(project_id)):
            counts[status] = count
        return Progress(counts, self.session.scalar(queries.count_overdue(project_id, today)) or 0)

    def insert(self, row: Row) -> Row:
        """Store a new row; it gets its id. A broken constraint is an IntegrityError."""
        self.session.add(row)
        self.session.flush()
        if isinstance(row, Task):
            self.changed_projects.add(row.project_id)
        return row

    def create_user(self, name: str, email: str) -> User:
        """A new user; a taken e-mail address is an IntegrityError."""
        return self.insert(User(name=name, email=email))

    def create_project(self, name: str, owner_id: int) -> Project:
        """A new project; a taken name is an IntegrityError, an unknown owner UnknownReference."""
        self.must_exist("owner_id", User, owner_id)
        return self.insert(Project(name=name, owner_id=owner_id))

    def create_task(
        self, project_id: int, title: str, description: str, priority: Priority, due_date: date | None
    ) -> Task:
        """A new open task; an unknown project is UnknownReference."""
        self.must_exist("project_id", Project, project_id)
        return self.insert(
            Task(
                project_id=project_id,
                title=title,
                description=description,
                priority=priority,
                due_date=due_date,
            )
        )

    def must_exist(self, field: str, kind: type[Base], identity: int) -> None:
        """UnknownReference, in the name of a request's `field`, unless there is such a row."""
        if self.session.get(kind, identity) is None:
            raise UnknownReference(field, kind.__name__.lower(), identity)

    def assign_task(self, task_id: int, assignee_id: int) -> Task:
        """Give an open task to someone; of concurrent callers one wins, the rest get InvalidTransition."""
        self.must_exist("assignee_id", User, assignee_id)
        return self._advance(task_id, TaskStatus.ASSIGNED, assignee_id=assignee_id)

    def next_available_task(self, project_id: int) -> Task | None:
        """The most urgent, then oldest open task of a project, None when there is none; NotFound without
        the project. On PostgreSQL its row stays locked until the transaction ends.
        """
        self.project(project_id)
        return self.session.scalars(queries.next_available_task(project_id)).one_or_none()

    def assign_next_available_task(self, project_id: int, assignee_id: int) -> Task:
        """Give the next available task to someone; NothingAvailable when there is none."""
        task = self.next_available_task(project_id)
        if task is None:
            raise NothingAvailable(project_id)
        return self.assign_task(task.id, assignee_id)

    def start_task(self, task_id: int) -> Task:
        """Begin work on an assigned task."""
        return self._advance(task_id, TaskStatus.IN_PROGRESS)

    def complete_task(self, task_id: int) -> Task:
        """Finish a task in progress."""
        return self._advance(task_id, TaskStatus.COMPLETED, completed_at=now())

    def add_minutes(self, task_id: int, minutes: int) -> Task:
        """Log time on a task; concurrent callers' minutes all count."""
        self.session.execute(queries.add_minutes(task_id, minutes, now()))
        return self._fresh(task_id)

    def set_minutes(self, task_id: int, minutes: int) -> Task:
        """Overwrite the time spent on a task, whatever it is by now."""
        self.session.execute(queries.set_minutes(task_id, minutes, now()))
        return self._fresh(task_id)

    def watchers(self, task_id: int) -> Sequence[User]:
        """Who watches a task, in order of id; NotFound without the task."""
        self.task(task_id)
        return self.session.scalars(queries.watchers_of(task_id)).all()

    def add_watcher(self, task_id: int, user_id: int) -> None:
        """Let a user watch a task; AlreadyWatching when so."""
        self.task(task_id)
        self.must_exist("user_id", User, user_id)
        if self.session.scalar(queries.is_watching(task_id, user_id)):
            raise AlreadyWatching(task_id, user_id)
        self.session.execute(queries.add_watcher(task_id, user_id))

    def remove_watcher(self, task: Task, user_id: int) -> None:
        """Let a user no longer watch `task`, who may not have; LastWatcher when an urgent one would have none.

        The count is only good if `task` was locked: two callers who do not lock both see the other's
        watcher, and both remove their own.
        """
        if not self.session.scalar(queries.is_watching(task.id, user_id)):
            return
        if task.priority is Priority.URGENT and self.session.scalar(queries.count_watchers(task.id)) == 1:
            raise LastWatcher(task.id)
        self.session.execute(queries.remove_watcher(task.id, user_id))

    def locked_task(self, task_id: int) -> Task:
        """The task with that id, its row locked until the transaction ends, or NotFound.

        SQLite locks no rows; there a `writing` transaction has the whole database to itself.
        """
        task = self.session.scalars(queries.locked_task(task_id)).one_or_none()
        if task is None:
            raise NotFound("task", task_id)
        return task

    def _get(self, kind: type[Row], identity: int) -> Row:
        row = self.session.get(kind, identity)
        if row is None:
            raise NotFound(kind.__name__.lower(), identity)
        return row

    def _fresh(self, task_id: int) -> Task:
        task = self.session.get(Task, task_id, populate_existing=True)
        if task is None:
            raise NotFound("task", task_id)
        self.changed_projects.add(task.project_id)
        return task

    def _advance(self, task_id: int, target: TaskStatus, **values: Any) -> Task:
        moved = self.session.execute(queries.advance_task(task_id, target, now(), **values))
        task = self._fresh(task_id)
        if cast(CursorResult[Any], moved).rowcount != 1:
            raise InvalidTransition(task_id, task.status, target)
        return task


def _awaited(
    method: Callable[Concatenate[SyncRepo, Parameters], Result],
) -> "Callable[Concatenate[Repo, Parameters], Coroutine[Any, Any, Result]]":
    """The same method for coroutines."""

    async def awaited(repo: "Repo", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await repo.session.run_sync(lambda _: method(repo.in_greenlet, *args, **kwargs))

    return update_wrapper(awaited, method)


class Repo:
    """`SyncRepo` through one `AsyncSession`: the same methods, awaited."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.in_greenlet = SyncRepo(session.sync_session)

    @property
    def changed_projects(self) -> set[int]:
        """The ids of the projects that were changed through this repository."""
        return self.in_greenlet.changed_projects

    user = _awaited(SyncRepo.user)
    project = _awaited(SyncRepo.project)
    task = _awaited(SyncRepo.task)
    locked_task = _awaited(SyncRepo.locked_task)
    users = _awaited(SyncRepo.users)
    projects = _awaited(SyncRepo.projects)
    tasks = _awaited(SyncRepo.tasks)
    progress = _awaited(SyncRepo.progress)
    insert = _awaited(SyncRepo.insert)
    create_user = _awaited(SyncRepo.create_user)
    create_project = _awaited(SyncRepo.create_project)
    create_task = _awaited(SyncRepo.create_task)
    assign_task = _awaited(SyncRepo.assign_task)
    next_available_task = _awaited(SyncRepo.next_available_task)
    assign_next_available_task = _awaited(SyncRepo.assign_next_available_task)
    start_task = _awaited(SyncRepo.start_task)
    complete_task = _awaited(SyncRepo.complete_task)
    add_minutes = _awaited(SyncRepo.add_minutes)
    set_minutes = _awaited(SyncRepo.set_minutes)
    watchers = _awaited(SyncRepo.watchers)
    add_watcher = _awaited(SyncRepo.add_watcher)
    remove_watcher = _awaited(SyncRepo.remove_watcher)
