"""`/healthz` says that the process answers, `/readyz` that requests can be served, and by which parts."""

from fastapi import APIRouter, HTTPException
from sqlalchemy.exc import SQLAlchemyError

from taskflow.web.dependencies import CurrentApplication
from taskflow.web.problems import documented
from taskflow.web.schemas import Health, Readiness

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Health:
    """Is the process alive?"""
    return Health()


@router.get("/readyz", responses=documented(503))
async def readyz(application: CurrentApplication) -> Readiness:
    """Can requests be served now? Without the database they cannot; without another part they are, degraded."""
    try:
        await application.database.ping()
    except (SQLAlchemyError, OSError) as error:
        raise HTTPException(503, "The database cannot be reached.") from error
    if (actors := application.actors.condition) != "ok":
        raise HTTPException(503, f"No command can be carried out: {actors}.")
    parts = {"database": "ok", "actors": actors} | await application.condition()
    degraded = any(condition.startswith("degraded") for condition in parts.values())
    return Readiness(status="degraded" if degraded else "ok", parts=parts)
