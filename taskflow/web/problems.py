"""Every error answer is a problem document (RFC 9457); this file is the only place that makes them."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from taskflow.errors import (
    AlreadyWatching,
    Busy,
    InvalidTransition,
    LastWatcher,
    NotFound,
    NothingAvailable,
    NothingToReport,
    ReportNotReady,
    ReportsUnavailable,
    UnknownReference,
)
from taskflow.integrations.retries import DeliveryFailed
from taskflow.integrations.storage import FileMissing

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
SCHEMAS = "#/components/schemas/"
RETRY_AFTER_SECONDS = "1"


class InvalidField(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(examples=["body.title"])
    message: str = Field(examples=["String should have at least 1 character"])


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str = Field(default="about:blank", examples=["urn:taskflow:problem:invalid-transition"])
    title: str = Field(examples=["Invalid transition"])
    status: int = Field(examples=[409])
    detail: str | None = Field(default=None, examples=["Task 7 is completed and cannot become assigned."])
    instance: str | None = Field(default=None, examples=["/tasks/7/assign"])
    errors: list[InvalidField] | None = None


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` argument of a route that may answer with these statuses, for OpenAPI."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"{SCHEMAS}Problem"}}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Make `app` answer every error with a problem document, and describe those in its OpenAPI."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        _, described = models_json_schema([(Problem, "serialization")], ref_template=SCHEMAS + "{model}")
        document.setdefault("components", {}).setdefault("schemas", {}).update(described["$defs"])
        return document

    # FastAPI could do this by itself, but would also claim the media type of the successful answer.
    app.openapi = openapi  # type: ignore[method-assign]

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        return _answer(request, error.status_code, detail=error.detail, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def of_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        # The offending input is left out: it may be large, secret, or not even encodable.
        errors = [
            InvalidField(where=".".join(map(str, item["loc"])), message=item["msg"])
            for item in error.errors()
        ]
        return _answer(
            request, 422, "invalid-request", "Invalid request", "The request is not valid.", errors=errors
        )

    @app.exception_handler(NotFound)
    async def of_missing(request: Request, error: NotFound) -> JSONResponse:
        return _answer(request, 404, "not-found", "Not found", str(error))

    @app.exception_handler(NothingAvailable)
    async def of_nothing_available(request: Request, error: NothingAvailable) -> JSONResponse:
        return _answer(request, 404, "nothing-available", "Nothing available", str(error))

    @app.exception_handler(UnknownReference)
    async def of_reference(request: Request, error: UnknownReference) -> JSONResponse:
        errors = [InvalidField(where=f"body.{error.field}", message="does not exist")]
        return _answer(request, 422, "unknown-reference", "Unknown reference", str(error), errors=errors)

    @app.exception_handler(InvalidTransition)
    async def of_transition(request: Request, error: InvalidTransition) -> JSONResponse:
        return _answer(request, 409, "invalid-transition", "Invalid transition", str(error))

    @app.exception_handler(AlreadyWatching)
    async def of_watching(request: Request, error: AlreadyWatching) -> JSONResponse:
        return _answer(request, 409, "already-watching", "Already watching", str(error))

    @app.exception_handler(LastWatcher)
    async def of_last_watcher(request: Request, error: LastWatcher) -> JSONResponse:
        return _answer(request, 409, "last-watcher", "Last watcher", str(error))

    @app.exception_handler(IntegrityError)
    async def of_constraint(request: Request, error: IntegrityError) -> JSONResponse:
        logger.info("refused by the database: %s", error.orig)
        return _answer(request, 409, "conflict", "Conflict", "The request conflicts with what is stored.")

    @app.exception_handler(OperationalError)
    @app.exception_handler(PoolTimeout)
    @app.exception_handler(ConnectionError)
    async def of_overload(request: Request, error: Exception) -> JSONResponse:
        logger.warning(
            "the database is busy or away: %s", error.orig if isinstance(error, DBAPIError) else error
        )
        return _answer(
            request,
            503,
            "database-unavailable",
            "Database unavailable",
            "The database did not answer in time; try again.",
            headers={"Retry-After": RETRY_AFTER_SECONDS},
        )

    @app.exception_handler(NothingToReport)
    async def of_nothing_to_report(request: Request, error: NothingToReport) -> JSONResponse:
        errors = [InvalidField(where="body.year", message="has no tasks")]
        return _answer(request, 422, "nothing-to-report", "Nothing to report", str(error), errors=errors)

    @app.exception_handler(ReportNotReady)
    async def of_unready_report(request: Request, error: ReportNotReady) -> JSONResponse:
        return _answer(request, 409, "report-not-ready", "Report not ready", str(error))

    @app.exception_handler(FileMissing)
    async def of_missing_file(request: Request, error: FileMissing) -> JSONResponse:
        return _answer(request, 404, "file-missing", "File missing", str(error))

    @app.exception_handler(ReportsUnavailable)
    @app.exception_handler(DeliveryFailed)
    async def of_unavailable(request: Request, error: Exception) -> JSONResponse:
        return _answer(request, 503, "unavailable", "Unavailable", str(error))

    @app.exception_handler(Busy)
    async def of_busy(request: Request, error: Busy) -> JSONResponse:
        return _answer(request, 503, "busy", "Busy", str(error), headers={"Retry-After": RETRY_AFTER_SECONDS})

    @app.exception_handler(Exception)
    async def of_defect(request: Request, error: Exception) -> JSONResponse:
        return _answer(request, 500, detail="TaskFlow failed; its log says more.")


def _answer(
    request: Request,
    status: int,
    slug: str | None = None,
    title: str | None = None,
    detail: str | None = None,
    errors: list[InvalidField] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    problem = Problem(
        type=f"urn:taskflow:problem:{slug}" if slug else "about:blank",
        title=title or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.scope["raw_path"].decode("ascii", "replace")
        if "raw_path" in request.scope
        else None,
        errors=errors,
    )
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)
