"""`GET /projects/{id}/dashboard`, with its N+1 queries on purpose and the fixed twin beside them."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from taskflow.data import queries
from taskflow.data.models import Task, User
from taskflow.faults import N_PLUS_ONE_DASHBOARD, N_PLUS_ONE_DASHBOARD_AWAITED
from taskflow.settings import Settings
from taskflow.web.dependencies import CurrentCache, CurrentDatabase, CurrentSettings, PathId
from taskflow.web.problems import documented
from taskflow.web.schemas import Dashboard, Line, ProjectOut

router = APIRouter(prefix="/projects", tags=["projects"])


class Variant(StrEnum):
    """How the dashboard loads the people around its tasks."""

    LAZY = "lazy"
    AWAITED = "awaited"
    FIXED = "fixed"


@router.get("/{project_id}/dashboard", responses=documented(404, 422))
async def project_dashboard(
    project_id: PathId,
    database: CurrentDatabase,
    cache: CurrentCache,
    settings: CurrentSettings,
    limit: Annotated[int, Query(ge=1, le=200, description="how many of the newest tasks to show")] = 50,
    variant: Annotated[Variant | None, Query(description="the default follows TASKFLOW_FAULTS")] = None,
) -> Dashboard:
    """Show where a project stands and who works on its newest tasks."""
    found = await cache.look(project_id, today=datetime.now(UTC).date())
    async with database.reading() as repo:
        project = await repo.project(project_id)
        progress = found.progress or await repo.progress(project_id, found.today)
        lines = await _LOADERS[variant or _asked_for(settings)](repo.session, project_id, limit)
    if found.progress is None:
        await cache.store(found, progress)
    return Dashboard(
        project=ProjectOut.model_validate(project),
        by_status=progress.by_status,
        overdue=progress.overdue,
        latest=lines,
    )


def _asked_for(settings: Settings) -> Variant:
    if N_PLUS_ONE_DASHBOARD.name in settings.faults:
        return Variant.LAZY
    if N_PLUS_ONE_DASHBOARD_AWAITED.name in settings.faults:
        return Variant.AWAITED
    return Variant.FIXED


async def _lines_lazily(session: AsyncSession, project_id: int, limit: int) -> list[Line]:
    """Fault `n_plus_one_dashboard`: plain attributes, so each task costs up to two SELECTs."""
    return await session.run_sync(_read_lines_one_by_one, project_id, limit)


def _read_lines_one_by_one(session: Session, project_id: int, limit: int) -> list[Line]:
    tasks = session.scalars(queries.latest_tasks(project_id, limit))
    return [_line(task, task.assignee, task.watchers) for task in tasks]


async def _lines_awaited(session: AsyncSession, project_id: int, limit: int) -> list[Line]:
    """Fault `n_plus_one_dashboard_awaited`: the same SELECTs, awaited one by one."""
    tasks = await session.scalars(queries.latest_tasks(project_id, limit))
    return [
        _line(task, await task.awaitable_attrs.assignee, await task.awaitable_attrs.watchers)
        for task in tasks
    ]


async def _lines_fixed(session: AsyncSession, project_id: int, limit: int) -> list[Line]:
    """The fixed twin: everyone around all tasks in two SELECTs."""
    tasks = await session.scalars(queries.latest_tasks_with_people(project_id, limit))
    return [_line(task, task.assignee, task.watchers) for task in tasks]


def _line(task: Task, assignee: User | None, watchers: list[User]) -> Line:
    return Line(
        id=task.id,
        title=task.title,
        status=task.status,
        priority=task.priority,
        assignee=assignee.name if assignee else None,
        watchers=[watcher.name for watcher in watchers],
    )


_LOADERS: Final[dict[Variant, Callable[[AsyncSession, int, int], Awaitable[list[Line]]]]] = {
    Variant.LAZY: _lines_lazily,
    Variant.AWAITED: _lines_awaited,
    Variant.FIXED: _lines_fixed,
}
