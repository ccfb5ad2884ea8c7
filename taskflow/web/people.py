"""`GET /projects/{id}/people`, with one query a person on purpose and the fixed twin beside it."""

from collections.abc import Sequence

from fastapi import APIRouter

from taskflow.data import queries
from taskflow.data.models import User
from taskflow.data.repo import Repo
from taskflow.faults import N_PLUS_ONE_GET_LOOP
from taskflow.web.dependencies import CurrentDatabase, CurrentSettings, PathId
from taskflow.web.problems import documented
from taskflow.web.schemas import UserOut

router = APIRouter(prefix="/projects", tags=["projects"])


@router.get("/{project_id}/people", responses=documented(404, 422))
async def project_people(
    project_id: PathId, database: CurrentDatabase, settings: CurrentSettings
) -> list[UserOut]:
    """Everyone who owns a project, does its tasks or watches them, in order of id."""
    load = _one_by_one if N_PLUS_ONE_GET_LOOP.name in settings.faults else _all_at_once
    async with database.reading() as repo:
        await repo.project(project_id)
        identities = (await repo.session.scalars(queries.people_of_project(project_id))).all()
        return [UserOut.model_validate(user) for user in await load(repo, identities)]


async def _one_by_one(repo: Repo, identities: Sequence[int]) -> Sequence[User]:
    """Fault `n_plus_one_get_loop`: a SELECT for each person."""
    return [await repo.user(identity) for identity in identities]


async def _all_at_once(repo: Repo, identities: Sequence[int]) -> Sequence[User]:
    """The fixed twin: everyone in one SELECT."""
    return (await repo.session.scalars(queries.users_by_id(identities))).all()
