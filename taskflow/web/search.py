"""`GET /tasks/search`, with its slow way on purpose and the fixed twin beside it."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from taskflow.data import queries
from taskflow.data.models import Task
from taskflow.data.repo import Repo
from taskflow.faults import SLOW_ENDPOINT
from taskflow.web.dependencies import CurrentDatabase, CurrentSettings
from taskflow.web.problems import documented
from taskflow.web.schemas import LARGEST_PAGE, SearchText, TaskOut

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.get("/search", responses=documented(422))
async def search_tasks(
    q: SearchText,
    database: CurrentDatabase,
    settings: CurrentSettings,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="at most so many tasks")] = 50,
) -> list[TaskOut]:
    """Find tasks by a part of their title or description, upper and lower case alike, in order of id."""
    search = _match_in_python if SLOW_ENDPOINT.name in settings.faults else _match_in_database
    async with database.reading() as repo:
        return [TaskOut.model_validate(task) for task in await search(repo, q, limit)]


async def _match_in_python(repo: Repo, text: str, limit: int) -> Sequence[Task]:
    """Fault `slow_endpoint`: every task of the database becomes an object, to be looked at and dropped."""
    wanted = text.casefold()
    tasks = (await repo.session.scalars(queries.all_tasks())).all()
    found = [task for task in tasks if wanted in f"{task.title}\n{task.description}".casefold()]
    return found[:limit]


async def _match_in_database(repo: Repo, text: str, limit: int) -> Sequence[Task]:
    """The fixed twin: only what was found leaves the database."""
    return (await repo.session.scalars(queries.search_tasks(text, limit))).all()
