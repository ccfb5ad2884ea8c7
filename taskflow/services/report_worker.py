"""`python -m taskflow.services.report_worker`: the process that makes one annual report.

It is started by `taskflow.services.report_process` and speaks JSON, one message a line: an `Order` comes
in on standard input, `Progress`, then `Finished` or `Failed` go out on standard output. Standard input
stays open as long as the service lives: when it ends, however the service died, so does this process.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from taskflow.data.database import SyncDatabase
from taskflow.data.models import Project, Task, User, now
from taskflow.data.reports import all_tasks_of, count_tasks_of, stream_tasks_of
from taskflow.errors import TaskFlowError
from taskflow.faults import MEMORY_HUNGRY_REPORT
from taskflow.integrations.storage import FileStorage
from taskflow.services.report_messages import (
    Failed,
    Finished,
    Message,
    Order,
    Progress,
    file_name,
    to_line,
)
from taskflow.services.report_statistics import ReportedTask, YearStatistics
from taskflow.settings import Settings

PROGRESS_SECONDS: Final = 0.1
READING_SHARE: Final = 0.9  # of the progress; the rest is drawing and storing
DRAWN_SHARE: Final = 0.97
ORPHANED: Final = 3
COPIES: Final = 3


def write_annual_report(order: Order, tell: Callable[[Message], None]) -> None:
    """Make the report and store its two files, telling of the progress; the last message is the outcome."""
    settings = Settings.model_validate(order.settings)
    database = SyncDatabase(settings)
    try:
        storage = FileStorage(settings)
        statistics = YearStatistics(order.year, now().date())
        hungry = MEMORY_HUNGRY_REPORT.name in settings.faults
        with database.reading() as repo:
            total = repo.session.scalar(count_tasks_of(order.year)) or 0
            tasks = (_tasks_at_once if hungry else _tasks_streamed)(repo.session, order.year)
            for task in _counted(tasks, total, tell):
                statistics.add(task)
            figures = _figures(statistics, repo.session)
        from taskflow.services.report_page import page  # a second's import, so not before it is needed

        html = page(figures).encode()
        tell(Progress(DRAWN_SHARE))
        storage.write(file_name(order.report_id, order.year, "json"), json.dumps(figures, indent=2).encode())
        storage.write(file_name(order.report_id, order.year, "html"), html)
    except TaskFlowError as error:
        tell(Failed(str(error)))
    else:
        tell(Progress(1.0))
        tell(Finished(statistics.tasks, round(time.process_time(), 3), peak_memory()))
    finally:
        database.close()


def _tasks_streamed(session: Session, year: int) -> Iterable[ReportedTask]:
    """The fixed twin: a thousand rows in memory at a time."""
    return session.execute(stream_tasks_of(year))


def _tasks_at_once(session: Session, year: int) -> Iterable[ReportedTask]:
    """Fault `memory_hungry_report`: every task of the year as an object, and copies, held to the very end."""
    copies = [session.scalars(all_tasks_of(year)).all()]
    for _ in range(COPIES):
        copies.append([_copy(task) for task in copies[-1]])
    return _Held(copies)


class _Held:
    """The last of several copies, which keeps the others."""

    def __init__(self, copies: list[Sequence[Task]]) -> None:
        self._copies = copies

    def __iter__(self) -> Iterator[Task]:
        return iter(self._copies[-1])


def _copy(task: Task) -> Task:
    values = {column.key: getattr(task, column.key) for column in Task.__table__.columns}
    values["description"] = values["description"].encode().decode()  # a string of its own
    return Task(**values)


def _counted(
    tasks: Iterable[ReportedTask], total: int, tell: Callable[[Message], None]
) -> Iterator[ReportedTask]:
    told = time.monotonic()
    tell(Progress(0.0))
    for number, task in enumerate(tasks, 1):
        yield task
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            tell(Progress(round(READING_SHARE * min(1.0, number / max(1, total)), 4)))
    tell(Progress(READING_SHARE))


def _figures(statistics: YearStatistics, session: Session) -> dict[str, Any]:
    projects = select(Project.id, Project.name).where(Project.id.in_(statistics.leading_projects))
    people = select(User.id, User.name).where(User.id.in_(statistics.leading_assignees))
    return statistics.figures(
        dict(session.execute(projects).all()),
        dict(session.execute(people).all()),
    )


def peak_memory() -> int:
    """The most bytes of memory this process had at a time (`ru_maxrss` would count its parent's as well)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not tell the peak of memory")


def _end_with_the_service(orders: BinaryIO) -> None:
    orders.read()
    os._exit(ORPHANED)


def main() -> int:
    """Read the order, carry it out."""
    # What libraries print must not get between the messages.
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    orders = sys.stdin.buffer
    line = orders.readline()
    if not line:
        return ORPHANED
    threading.Thread(target=_end_with_the_service, args=(orders,), name="service watch", daemon=True).start()
    write_annual_report(Order(**json.loads(line)), lambda message: _send(messages, message))
    return 0


def _send(messages: BinaryIO, message: Message) -> None:
    messages.write(to_line(message))


if __name__ == "__main__":
    sys.exit(main())
