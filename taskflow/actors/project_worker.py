"""The ProjectWorker: keeps the statistics of one project, and commits the faults of workers."""

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime
from threading import Lock

from sqlalchemy.exc import SQLAlchemyError

from taskflow.actors.task_manager import SimulatedCrash
from taskflow.data.database import SyncDatabase
from taskflow.data.models import TaskStatus
from taskflow.errors import TaskFlowError
from taskflow.faults import CRASH_LOOP, WORKER_CRASH
from taskflow.services.events import TaskChange, TaskEvent
from taskflow.supervision import Overflow, SupervisedActor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProjectStatistics:
    """Where a project stands on `day`, and how many changes its worker has seen since it started."""

    project_id: int
    by_status: dict[TaskStatus, int]
    overdue: int
    changes: int
    day: date

    @property
    def tasks(self) -> int:
        """How many tasks the project has."""
        return sum(self.by_status.values())


class WorkerFaults:
    """Who crashes when, of the faults `worker_crash` and `crash_loop`; it outlives the workers."""

    def __init__(self, faults: frozenset[str]) -> None:
        self._faults = faults
        self._lock = Lock()
        self._crashed: set[int] = set()
        self._looping: int | None = None

    def at_start(self, project_id: int) -> None:
        """`crash_loop`: the worker that got into it fails at each start."""
        if self._looping == project_id:
            raise SimulatedCrash(f"the worker of project {project_id} is in a crash loop")

    def at_message(self, project_id: int, event: TaskEvent | None = None) -> None:
        """`crash_loop`: the first worker with a message gets into it. `worker_crash`: once a project."""
        with self._lock:
            if CRASH_LOOP.name in self._faults and self._looping in (None, project_id):
                self._looping = project_id
                raise SimulatedCrash(f"the worker of project {project_id} is in a crash loop")
            completed = event is not None and event.change is TaskChange.COMPLETED
            if WORKER_CRASH.name in self._faults and completed and project_id not in self._crashed:
                self._crashed.add(project_id)
                raise SimulatedCrash(f"the first task completed in project {project_id}")


class ProjectWorker(SupervisedActor):
    """Told of each change of the project's tasks, it reads the project's numbers anew.

    Its mailbox drops the oldest message when it overflows: any later one leads to the same numbers. What
    it knows comes from the database, so a restarted worker knows as much.
    """

    overflow = Overflow.DROP_OLDEST
    answers_with = (TaskFlowError, SQLAlchemyError, OSError)

    def __init__(
        self, project_id: int, database: SyncDatabase, faults: WorkerFaults, capacity: int | None = None
    ) -> None:
        self.capacity = capacity
        super().__init__()
        self.project_id = project_id
        self.statistics: ProjectStatistics | None = None
        self.changes = 0
        self._database = database
        self._faults = faults

    def on_start(self) -> None:
        """Read the project's numbers."""
        self._faults.at_start(self.project_id)
        self.refresh()

    def note(self, event: TaskEvent) -> None:
        """A task of the project has changed."""
        self._faults.at_message(self.project_id, event)
        self.changes += 1
        self.refresh()

    def refresh(self) -> None:
        """Read the project's numbers anew; without the database they are read when somebody asks."""
        try:
            self.statistics = self._read()
        except (SQLAlchemyError, OSError) as error:
            self.statistics = None
            logger.warning("the worker of project %d cannot read its numbers: %s", self.project_id, error)

    def current_statistics(self) -> ProjectStatistics:
        """The project's numbers as of today."""
        self._faults.at_message(self.project_id)
        if self.statistics is None or self.statistics.day != _today():
            self.statistics = self._read()
        return self.statistics

    def simulate_crash(self) -> None:
        """Crash, as a defect in a handler would make it."""
        raise SimulatedCrash(f"the worker of project {self.project_id} was told to crash")

    def _read(self) -> ProjectStatistics:
        day = _today()
        with self._database.reading() as repo:
            progress = repo.progress(self.project_id, day)
        return ProjectStatistics(self.project_id, progress.by_status, progress.overdue, self.changes, day)


def _today() -> date:
    return datetime.now(UTC).date()
