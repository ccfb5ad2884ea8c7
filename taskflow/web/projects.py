"""`/projects`: create, list, look at; the dashboard of one is in `taskflow.web.dashboard`."""

from fastapi import APIRouter, Response

from taskflow.web.dependencies import CurrentActors, CurrentDatabase, CurrentPaging, PathId
from taskflow.web.problems import documented
from taskflow.web.schemas import Assignment, NewProject, Page, ProjectOut, Statistics, TaskOut

router = APIRouter(prefix="/projects", tags=["projects"])


@router.post("", status_code=201, responses=documented(409, 422))
async def create_project(body: NewProject, database: CurrentDatabase, response: Response) -> ProjectOut:
    """Create a project; its name must be new."""
    async with database.writing() as repo:
        project = await repo.create_project(body.name, body.owner_id)
    response.headers["Location"] = f"/projects/{project.id}"
    return ProjectOut.model_validate(project)


@router.get("", responses=documented(422))
async def list_projects(database: CurrentDatabase, paging: CurrentPaging) -> Page[ProjectOut]:
    """List projects in order of id."""
    async with database.reading() as repo:
        return paging.page(await repo.projects(paging.after, paging.limit + 1), ProjectOut)


@router.get("/{project_id}", responses=documented(404, 422))
async def get_project(project_id: PathId, database: CurrentDatabase) -> ProjectOut:
    """Show one project."""
    async with database.reading() as repo:
        return ProjectOut.model_validate(await repo.project(project_id))


@router.get("/{project_id}/statistics", responses=documented(404, 422, 503))
async def project_statistics(
    project_id: PathId, database: CurrentDatabase, actors: CurrentActors
) -> Statistics:
    """Show a project's numbers as its worker keeps them."""
    async with database.reading() as repo:
        await repo.project(project_id)
    return Statistics.model_validate(await actors.project_statistics(project_id))


@router.post("/{project_id}/assign-next", responses=documented(404, 422, 503))
async def assign_next_task(project_id: PathId, body: Assignment, actors: CurrentActors) -> TaskOut:
    """Give the most urgent, then oldest open task to someone; 404 when there is none."""
    return TaskOut.model_validate(await actors.assign_next_available_task(project_id, body.assignee_id))
