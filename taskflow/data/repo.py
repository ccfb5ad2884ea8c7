"""The repository: what can be done with the data, each method within the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar, cast

from sqlalchemy import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from taskflow.data import queries
from taskflow.data.models import Base, Priority, Project, Task, TaskStatus, User, now
from taskflow.data.queries import TaskFilter
from taskflow.errors import InvalidTransition, NotFound, UnknownReference

Row = TypeVar("Row", bound=Base)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a project stands: tasks in each status (every status is a key), and those overdue."""

    by_status: dict[TaskStatus, int]
    overdue: int


class Repo:
    """Tasks, projects and users through one `AsyncSession`.

    It never commits: `Database.reading` and `Database.writing` say where a transaction begins and
    ends. Methods raise the errors of `taskflow.errors`.
    """

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def user(self, user_id: int) -> User:
        """The user with that id, or NotFound."""
        return await self._get(User, user_id)

    async def project(self, project_id: int) -> Project:
        """The project with that id, or NotFound."""
        return await self._get(Project, project_id)

    async def task(self, task_id: int) -> Task:
        """The task with that id, or NotFound."""
        return await self._get(Task, task_id)

    async def users(self, after: int, limit: int) -> Sequence[User]:
        """A page of users in order of id."""
        return (await self.session.scalars(queries.users_page(after, limit))).all()

    async def projects(self, after: int, limit: int) -> Sequence[Project]:
        """A page of projects in order of id."""
        return (await self.session.scalars(queries.projects_page(after, limit))).all()

    async def tasks(self, wanted: TaskFilter, after: int, limit: int) -> Sequence[Task]:
        """A page of the wanted tasks in order of id."""
        return (await self.session.scalars(queries.tasks_page(wanted, after, limit))).all()

    async def create_user(self, name: str, email: str) -> User:
        """A new user; a taken e-mail address is an IntegrityError."""
        return await self._add(User(name=name, email=email))

    async def create_project(self, name: str, owner_id: int) -> Project:
        """A new project; a taken name is an IntegrityError, an unknown owner UnknownReference."""
        await self._must_exist("owner_id", User, owner_id)
        return await self._add(Project(name=name, owner_id=owner_id))

    async def create_task(
        self, project_id: int, title: str, description: str, priority: Priority, due_date: date | None
    ) -> Task:
        """A new open task; an unknown project is UnknownReference."""
        await self._must_exist("project_id", Project, project_id)
        return await self._add(
            Task(
                project_id=project_id,
                title=title,
                description=description,
                priority=priority,
                due_date=due_date,
            )
        )

    async def assign_task(self, task_id: int, assignee_id: int) -> Task:
        """Give an open task to someone; of concurrent callers one wins, the rest get InvalidTransition."""
        await self._must_exist("assignee_id", User, assignee_id)
        return await self._advance(task_id, TaskStatus.ASSIGNED, assignee_id=assignee_id)

    async def start_task(self, task_id: int) -> Task:
        """Begin work on an assigned task."""
        return await self._advance(task_id, TaskStatus.IN_PROGRESS)

    async def complete_task(self, task_id: int) -> Task:
        """Finish a task in progress."""
        return await self._advance(task_id, TaskStatus.COMPLETED, completed_at=now())

    async def progress(self, project_id: int, today: date) -> Progress:
        """How far a project has come; one with an unknown id has no tasks."""
        counts = dict.fromkeys(TaskStatus, 0)
        for status, count in await self.session.execute(queries.count_by_status(project_id)):
            counts[status] = count
        overdue = await self.session.scalar(queries.count_overdue(project_id, today))
        return Progress(counts, overdue or 0)

    async def _get(self, kind: type[Row], identity: int) -> Row:
        row = await self.session.get(kind, identity)
        if row is None:
            raise NotFound(kind.__name__.lower(), identity)
        return row

    async def _must_exist(self, field: str, kind: type[Base], identity: int) -> None:
        if await self.session.get(kind, identity) is None:
            raise UnknownReference(field, kind.__name__.lower(), identity)

    async def _add(self, row: Row) -> Row:
        self.session.add(row)
        await self.session.flush()
        return row

    async def _advance(self, task_id: int, target: TaskStatus, **values: Any) -> Task:
        moved = await self.session.execute(queries.advance_task(task_id, target, now(), **values))
        task = await self.task(task_id)
        if cast(CursorResult[Any], moved).rowcount != 1:
            raise InvalidTransition(task_id, task.status, target)
        return task
