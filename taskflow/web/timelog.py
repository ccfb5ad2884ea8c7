"""`POST /tasks/{id}/time`, with its lost update on purpose and the fixed twin beside it."""

from fastapi import APIRouter

from taskflow.data.database import Database
from taskflow.data.models import Task
from taskflow.faults import LOST_UPDATE
from taskflow.web.dependencies import CurrentDatabase, CurrentSettings, PathId
from taskflow.web.problems import documented
from taskflow.web.schemas import TaskOut, TimeSpent

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.post("/{task_id}/time", responses=documented(404, 422))
async def log_time(
    task_id: PathId, body: TimeSpent, database: CurrentDatabase, settings: CurrentSettings
) -> TaskOut:
    """Add to the time that was spent on a task."""
    add = _add_in_python if LOST_UPDATE.name in settings.faults else _add_in_database
    return TaskOut.model_validate(await add(database, task_id, body.minutes))


async def _add_in_python(database: Database, task_id: int, minutes: int) -> Task:
    """Fault `lost_update`: what others add between the read and the write is overwritten."""
    async with database.writing_unguarded() as repo:
        task = await repo.task(task_id)
        return await repo.set_minutes(task_id, task.minutes_spent + minutes)


async def _add_in_database(database: Database, task_id: int, minutes: int) -> Task:
    """The fixed twin: read and write are one statement."""
    async with database.writing() as repo:
        return await repo.add_minutes(task_id, minutes)
