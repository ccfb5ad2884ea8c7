"""`GET /projects/{id}/export`, with a blocking call on purpose and the fixed twin beside it."""

import asyncio
import csv
import hashlib
import io
import time
from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Response

from taskflow.data import queries
from taskflow.data.models import Task
from taskflow.faults import BLOCKING_CALL
from taskflow.web.dependencies import CurrentDatabase, CurrentSettings, PathId
from taskflow.web.problems import documented

router = APIRouter(prefix="/projects", tags=["projects"])

COLUMNS: Final = (
    "id", "title", "status", "priority", "assignee", "due", "minutes spent", "created", "completed"
)  # fmt: skip
FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r")
DISK_SECONDS: Final = 0.1  # stands for the slow disk of a real export
SEAL_ROUNDS: Final = 20_000


class CsvResponse(Response):
    """A table as comma-separated values."""

    media_type = "text/csv"


@router.get("/{project_id}/export", response_class=CsvResponse, responses=documented(404, 422))
async def export_project(
    project_id: PathId, database: CurrentDatabase, settings: CurrentSettings
) -> CsvResponse:
    """All tasks of a project as a CSV file; its ETag seals the content."""
    async with database.reading() as repo:
        await repo.project(project_id)
        tasks = (await repo.session.scalars(queries.tasks_of_project(project_id))).all()
    if BLOCKING_CALL.name in settings.faults:
        # The fault: until the file is written nobody else is served.
        content, seal = _write(tasks)
    else:
        content, seal = await asyncio.to_thread(_write, tasks)
    disposition = f'attachment; filename="project-{project_id}.csv"'
    return CsvResponse(content, headers={"ETag": f'"{seal}"', "Content-Disposition": disposition})


def _write(tasks: Sequence[Task]) -> tuple[str, str]:
    """The file and its seal. It sleeps and computes: no work for an event loop."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    writer.writerows(map(_row, tasks))
    time.sleep(DISK_SECONDS)
    content = file.getvalue()
    seal = hashlib.sha256(content.encode()).digest()
    for _ in range(SEAL_ROUNDS):
        seal = hashlib.sha256(seal).digest()
    return content, seal.hex()


def _row(task: Task) -> list[object]:
    return [
        task.id,
        _inert(task.title),
        task.status.value,
        task.priority.value,
        _inert(task.assignee.name) if task.assignee else "",
        task.due_date or "",
        task.minutes_spent,
        task.created_at.isoformat(),
        task.completed_at.isoformat() if task.completed_at else "",
    ]


def _inert(text: str) -> str:
    """Text that a spreadsheet shows and does not run."""
    return f"'{text}" if text.startswith(FORMULA_SIGNS) else text
