"""`/healthz` says that the process answers, `/readyz` that it can also reach its database."""

from fastapi import APIRouter, HTTPException
from sqlalchemy.exc import SQLAlchemyError

from taskflow.web.dependencies import CurrentDatabase
from taskflow.web.problems import documented
from taskflow.web.schemas import Health

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Health:
    """Is the process alive?"""
    return Health()


@router.get("/readyz", responses=documented(503))
async def readyz(database: CurrentDatabase) -> Health:
    """Can requests be served now?"""
    try:
        await database.ping()
    except (SQLAlchemyError, OSError) as error:
        raise HTTPException(503, "The database cannot be reached.") from error
    return Health()
