"""`/tasks/{id}/watchers`, with write skew on purpose at the removal and the fixed twin beside it."""

from fastapi import APIRouter

from taskflow.data.database import Database
from taskflow.faults import WRITE_SKEW
from taskflow.web.dependencies import CurrentDatabase, CurrentSettings, PathId
from taskflow.web.problems import documented
from taskflow.web.schemas import NewWatcher, UserOut

router = APIRouter(prefix="/tasks/{task_id}/watchers", tags=["watchers"])


@router.get("", responses=documented(404, 422))
async def list_watchers(task_id: PathId, database: CurrentDatabase) -> list[UserOut]:
    """Who watches a task, in order of id."""
    async with database.reading() as repo:
        return [UserOut.model_validate(user) for user in await repo.watchers(task_id)]


@router.post("", status_code=201, responses=documented(404, 409, 422))
async def add_watcher(task_id: PathId, body: NewWatcher, database: CurrentDatabase) -> list[UserOut]:
    """Let a user watch a task; the answer is everyone who does. 409 when so already."""
    async with database.writing() as repo:
        await repo.add_watcher(task_id, body.user_id)
        return [UserOut.model_validate(user) for user in await repo.watchers(task_id)]


@router.delete("/{user_id}", status_code=204, responses=documented(404, 409, 422))
async def remove_watcher(
    task_id: PathId, user_id: PathId, database: CurrentDatabase, settings: CurrentSettings
) -> None:
    """Let a user no longer watch a task. The last watcher of an urgent task stays: 409."""
    remove = _remove_unlocked if WRITE_SKEW.name in settings.faults else _remove_locked
    await remove(database, task_id, user_id)


async def _remove_unlocked(database: Database, task_id: int, user_id: int) -> None:
    """Fault `write_skew`: two callers each count the other's watcher and remove their own."""
    async with database.writing_unguarded() as repo:
        await repo.remove_watcher(await repo.task(task_id), user_id)


async def _remove_locked(database: Database, task_id: int, user_id: int) -> None:
    """The fixed twin: whoever counts has locked the task, so the count holds until the commit."""
    async with database.writing() as repo:
        await repo.remove_watcher(await repo.locked_task(task_id), user_id)
