"""`/tasks`: create, list, look at, and move through assigned and in_progress to completed."""

from datetime import date

from fastapi import APIRouter, Response

from taskflow.data.models import Priority, TaskStatus
from taskflow.data.queries import TaskFilter
from taskflow.services.events import TaskChange, TaskEvent
from taskflow.web.dependencies import CurrentActors, CurrentDatabase, CurrentPaging, PathId, QueryId
from taskflow.web.problems import documented
from taskflow.web.schemas import Assignment, NewTask, Page, TaskOut

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.post("", status_code=201, responses=documented(409, 422, 503))
async def create_task(body: NewTask, actors: CurrentActors, response: Response) -> TaskOut:
    """Create an open task in a project."""
    task = await actors.create_task(
        body.project_id, body.title, body.description, body.priority, body.due_date
    )
    response.headers["Location"] = f"/tasks/{task.id}"
    return TaskOut.model_validate(task)


@router.get("", responses=documented(422))
async def list_tasks(
    database: CurrentDatabase,
    paging: CurrentPaging,
    project_id: QueryId = None,
    assignee_id: QueryId = None,
    status: TaskStatus | None = None,
    priority: Priority | None = None,
    due_before: date | None = None,
) -> Page[TaskOut]:
    """List tasks in order of id; every filter that is given must hold."""
    wanted = TaskFilter(project_id, assignee_id, status, priority, due_before)
    async with database.reading() as repo:
        return paging.page(await repo.tasks(wanted, paging.after, paging.limit + 1), TaskOut)


@router.get("/{task_id}", responses=documented(404, 422))
async def get_task(task_id: PathId, database: CurrentDatabase) -> TaskOut:
    """Show one task."""
    async with database.reading() as repo:
        return TaskOut.model_validate(await repo.task(task_id))


@router.post("/{task_id}/assign", responses=documented(404, 409, 422, 503))
async def assign_task(task_id: PathId, body: Assignment, actors: CurrentActors) -> TaskOut:
    """Give an open task to someone. Of many concurrent requests exactly one succeeds, the others get 409."""
    return TaskOut.model_validate(await actors.assign_task(task_id, body.assignee_id))


@router.post("/{task_id}/start", responses=documented(404, 409, 422))
async def start_task(task_id: PathId, database: CurrentDatabase, actors: CurrentActors) -> TaskOut:
    """Begin work on an assigned task."""
    async with database.writing() as repo:
        task = await repo.start_task(task_id)
    actors.announce(TaskEvent.of(TaskChange.STARTED, task))
    return TaskOut.model_validate(task)


@router.post("/{task_id}/complete", responses=documented(404, 409, 422, 503))
async def complete_task(task_id: PathId, actors: CurrentActors) -> TaskOut:
    """Finish a task in progress."""
    return TaskOut.model_validate(await actors.complete_task(task_id))
