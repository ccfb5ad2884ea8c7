"""Annual reports: asked for here, made by a process each, under supervision.

A report's process that dies is started again, up to the restart intensity of the settings; one that
cannot make its report says so, and the report has failed. When the service stops or is killed its
processes end with it, and the reports they were at are made anew at its next start.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from pykka import ActorDeadError

from taskflow.data.database import Database
from taskflow.data.reports import PROBLEM_LENGTH, Report, Reports, ReportStatus
from taskflow.errors import NothingToReport, ReportNotReady, ReportsUnavailable
from taskflow.faults import CHECK_THEN_ACT_AWAIT
from taskflow.integrations.storage import FileStorage
from taskflow.services.report_messages import Failed, Finished, Message, Order, Progress, file_name
from taskflow.services.report_process import ReportProcess
from taskflow.settings import Settings
from taskflow.supervision import (
    ChildSpec,
    ChildType,
    EventKind,
    NoSuchChild,
    Restart,
    Supervisor,
    SupervisorEvent,
)

logger = logging.getLogger(__name__)

MOST_PROCESSES: Final = 2

Argument = TypeVar("Argument")


@dataclass(frozen=True, slots=True)
class ReportView:
    """How a report stands. `progress` goes from 0 to 1 and never back; `restarts` counts processes that died."""

    id: int
    year: int
    status: ReportStatus
    progress: float
    restarts: int
    problem: str | None
    tasks: int | None
    cpu_seconds: float | None
    peak_memory: int | None
    created_at: datetime
    finished_at: datetime | None


class _Run:
    """A report in the making, as its process and its supervisor tell of it. `noted`: also in the database."""

    def __init__(self, report_id: int, year: int) -> None:
        self.report_id = report_id
        self.year = year
        self.progress = 0.0
        self.restarts = 0
        self.noted = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Finished | Failed] = self._loop.create_future()

    def tell(self, message: Message) -> None:
        """Called in other threads with what the process says."""
        self._in_loop(self._take, message)

    def on_event(self, event: SupervisorEvent) -> None:
        """Called in the supervisor's thread with what it does about the process."""
        if event.kind is EventKind.CHILD_RESTARTED:
            self._in_loop(self._count_restart, event.restart_count)
        elif event.kind is EventKind.MAX_RESTARTS_EXCEEDED:
            died = f"{event.reason}; that was {event.restart_count} times in a row"
            self._in_loop(self._take, Failed(died))

    def _take(self, message: Message) -> None:
        if isinstance(message, Progress):
            # One that was started again begins anew; what is seen does not go back.
            self.progress = max(self.progress, message.done)
        elif not self.outcome.done():
            self.outcome.set_result(message)

    def _count_restart(self, restarts: int) -> None:
        self.restarts = restarts

    def _in_loop(self, call: Callable[[Argument], None], argument: Argument) -> None:
        try:
            self._loop.call_soon_threadsafe(call, argument)
        except RuntimeError:  # the loop has ended: nobody waits for this report any more
            pass


class ReportGenerator:
    """Makes annual reports, as an async context manager. Of a year one report is made at a time.

    `supervisor` is the root of the tree that its processes live in.
    """

    def __init__(self, settings: Settings, database: Database, storage: FileStorage) -> None:
        self._settings = settings
        self._reports = Reports(database)
        self._storage = storage
        self._begins_late = CHECK_THEN_ACT_AWAIT.name in settings.faults
        # Replaced, never changed, so that each look and each note is one access to an attribute.
        self._under_way: dict[int, asyncio.Future[Report]] = {}
        self._runs: dict[int, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._free_places = asyncio.Semaphore(MOST_PROCESSES)
        self.supervisor = Supervisor("reports", max_restarts=0)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.supervisor.launch)
        for report in await self._reports.unfinished():
            self._note_under_way(report)
            self._start(report)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the processes; their reports stay unfinished until the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self.supervisor.shutdown)

    async def request(self, year: int) -> ReportView:
        """Begin a report on the tasks created in `year`, unless one is under way: then that is the answer.

        NothingToReport when there are no tasks; ReportsUnavailable when its process could not store it.
        """
        if not self._storage.shared:
            raise ReportsUnavailable(
                "Reports are made by another process; memory:// as TASKFLOW_STORAGE_URL is private to this one."
            )
        begin = self._begin_unless_under_way_late if self._begins_late else self._begin_unless_under_way
        report = await begin(year)
        return _view(report, self._runs.get(report.id))

    async def _begin_unless_under_way(self, year: int) -> Report:
        """The fixed twin: whoever comes second finds the note of the first."""
        begun = self._under_way.get(year)
        if begun is None:
            begun = asyncio.ensure_future(self._begin(year))
            self._under_way = {**self._under_way, year: begun}
        return await asyncio.shield(begun)

    async def _begin_unless_under_way_late(self, year: int) -> Report:
        """Fault `check_then_act_await`: while the first awaits, the second finds no note, and begins as well."""
        if year in self._under_way:
            return await asyncio.shield(self._under_way[year])
        report = await self._begin(year)
        self._note_under_way(report)
        return report

    def _note_under_way(self, report: Report) -> None:
        begun: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        begun.set_result(report)
        self._under_way = {**self._under_way, report.year: begun}

    async def generate_annual_report(self, year: int) -> ReportView:
        """`request` a report and wait for it; it may have failed."""
        begun = await self.request(year)
        return await self.finished(begun.id)

    async def finished(self, report_id: int) -> ReportView:
        """The report, once it is finished or has failed. NotFound."""
        if (run := self._runs.get(report_id)) is not None:
            await run.noted.wait()
        return await self.view(report_id)

    async def view(self, report_id: int) -> ReportView:
        """How a report stands. NotFound."""
        run = self._runs.get(report_id)  # before the row is read: the run may end meanwhile
        return _view(await self._reports.get(report_id), run)

    async def page(self, after: int, limit: int) -> Sequence[ReportView]:
        """A page of reports in order of id."""
        runs = dict(self._runs)
        return [_view(report, runs.get(report.id)) for report in await self._reports.page(after, limit)]

    async def file(self, report_id: int, kind: str) -> bytes:
        """The report itself, as html or json. NotFound, ReportNotReady."""
        report = await self._reports.get(report_id)
        if report.status != ReportStatus.FINISHED:
            raise ReportNotReady(f"Report {report_id} is {report.status}; it has no file.")
        return await asyncio.to_thread(self._storage.read, file_name(report.id, report.year, kind))

    # In the making

    async def _begin(self, year: int) -> Report:
        try:
            if not await self._reports.tasks_of(year):
                raise NothingToReport(year)
            report = await self._reports.new(year)
        except BaseException:
            self._forget(year)
            raise
        self._start(report)
        return report

    def _start(self, report: Report) -> None:
        run = _Run(report.id, report.year)
        self._runs[report.id] = run
        task = asyncio.create_task(self._see_through(run), name=f"report {report.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_through(self, run: _Run) -> None:
        name = f"report {run.report_id}"
        try:
            async with self._free_places:
                await self._reports.change(run.report_id, ReportStatus.RUNNING)
                await asyncio.to_thread(self.supervisor.start_child, self._specification(name, run))
                try:
                    outcome = await run.outcome
                finally:
                    await asyncio.to_thread(self._end, name)
            await self._note(run, outcome)
        except Exception:
            logger.exception("%s cannot be seen through; the next start of the service tries again", name)
        finally:
            self._forget(run.year)
            del self._runs[run.report_id]
            run.noted.set()

    async def _note(self, run: _Run, outcome: Finished | Failed) -> None:
        match outcome:
            case Finished():
                values: dict[str, Any] = asdict(outcome)
                status = ReportStatus.FINISHED
            case Failed(reason):
                logger.warning("report %d on %d failed: %s", run.report_id, run.year, reason)
                values = {"problem": reason[:PROBLEM_LENGTH]}
                status = ReportStatus.FAILED
        await self._reports.change(
            run.report_id, status, progress=run.progress, restarts=run.restarts, **values
        )

    def _forget(self, year: int) -> None:
        self._under_way = {other: begun for other, begun in self._under_way.items() if other != year}

    def _end(self, name: str) -> None:
        try:
            self.supervisor.terminate_child(name)
        except (NoSuchChild, ActorDeadError):
            pass  # it gave up by itself, or all of it has ended

    def _specification(self, name: str, run: _Run) -> ChildSpec:
        """A supervisor of its own for each report: one that gives up takes no other with it."""
        order = Order.of(run.report_id, run.year, self._settings)
        process = ChildSpec(name, lambda: ReportProcess(order, run.tell), Restart.TRANSIENT)
        return ChildSpec(
            name,
            lambda: Supervisor(
                name,
                [process],
                max_restarts=self._settings.report_max_restarts,
                max_seconds=self._settings.report_restart_seconds,
                listeners=[run],
            ),
            Restart.TEMPORARY,
            type=ChildType.SUPERVISOR,
        )


def _view(report: Report, run: _Run | None) -> ReportView:
    return ReportView(
        report.id,
        report.year,
        ReportStatus(report.status),
        run.progress if run else report.progress,
        run.restarts if run else report.restarts,
        report.problem,
        report.tasks,
        report.cpu_seconds,
        report.peak_memory,
        report.created_at,
        report.finished_at,
    )
