"""`/reports`: ask for an annual report, see how far it is, fetch it."""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Response

from taskflow.web.dependencies import CurrentPaging, CurrentReports, PathId
from taskflow.web.problems import documented
from taskflow.web.schemas import NewReport, Page, ReportOut

router = APIRouter(prefix="/reports", tags=["reports"])


class Format(StrEnum):
    """What a report can be had as."""

    HTML = "html"
    JSON = "json"

    @property
    def media_type(self) -> str:
        """The content type of the file."""
        return {Format.HTML: "text/html; charset=utf-8", Format.JSON: "application/json"}[self]


@router.post("", status_code=202, responses=documented(422, 503))
async def request_report(body: NewReport, reports: CurrentReports, response: Response) -> ReportOut:
    """Begin a report on a year; while one on that year is under way, that is the answer."""
    report = await reports.request(body.year)
    response.headers["Location"] = f"/reports/{report.id}"
    return ReportOut.model_validate(report)


@router.get("", responses=documented(422))
async def list_reports(reports: CurrentReports, paging: CurrentPaging) -> Page[ReportOut]:
    """List reports in order of id."""
    return paging.page(await reports.page(paging.after, paging.limit + 1), ReportOut)


@router.get("/{report_id}", responses=documented(404, 422))
async def get_report(report_id: PathId, reports: CurrentReports) -> ReportOut:
    """Show how a report stands."""
    return ReportOut.model_validate(await reports.view(report_id))


@router.get(
    "/{report_id}/file",
    response_class=Response,
    responses=documented(404, 409, 422, 503)
    | {200: {"content": {"text/html": {}, "application/json": {}}, "description": "The report"}},
)
async def get_report_file(
    report_id: PathId,
    reports: CurrentReports,
    format: Annotated[Format, Query(description="the page with its chart, or the figures")] = Format.HTML,
) -> Response:
    """Fetch a finished report."""
    return Response(await reports.file(report_id, format), media_type=format.media_type)
