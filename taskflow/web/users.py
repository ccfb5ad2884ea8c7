"""`/users`: create, list, look at."""

from fastapi import APIRouter, Response

from taskflow.web.dependencies import CurrentDatabase, CurrentPaging, PathId
from taskflow.web.problems import documented
from taskflow.web.schemas import NewUser, Page, UserOut

router = APIRouter(prefix="/users", tags=["users"])


@router.post("", status_code=201, responses=documented(409, 422))
async def create_user(body: NewUser, database: CurrentDatabase, response: Response) -> UserOut:
    """Create a user; the e-mail address must be new."""
    async with database.writing() as repo:
        user = await repo.create_user(body.name, body.email)
    response.headers["Location"] = f"/users/{user.id}"
    return UserOut.model_validate(user)


@router.get("", responses=documented(422))
async def list_users(database: CurrentDatabase, paging: CurrentPaging) -> Page[UserOut]:
    """List users in order of id."""
    async with database.reading() as repo:
        return paging.page(await repo.users(paging.after, paging.limit + 1), UserOut)


@router.get("/{user_id}", responses=documented(404, 422))
async def get_user(user_id: PathId, database: CurrentDatabase) -> UserOut:
    """Show one user."""
    async with database.reading() as repo:
        return UserOut.model_validate(await repo.user(user_id))
