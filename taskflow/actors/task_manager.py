"""The TaskManager: every command on a task goes through its mailbox, one at a time."""

import logging
import time
from collections.abc import Callable
from datetime import date
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from taskflow.data import queries
from taskflow.data.database import SyncDatabase
from taskflow.data.models import Priority, Project, Task, User, now
from taskflow.errors import NothingAvailable, TaskFlowError
from taskflow.services.events import TaskChange, TaskEvent
from taskflow.supervision import SupervisedActor

logger = logging.getLogger(__name__)

RACE_WINDOW_SECONDS: Final = 0.01


class SimulatedCrash(Exception):
    """An actor crashed because it was told to."""


class TaskManager(SupervisedActor):
    """Creates, assigns and completes tasks in the database, and publishes what it did.

    Its own state is a book kept for speed and for show: `assignments` (task to assignee, of the tasks
    assigned or in progress) and the counters `created`, `assigned` and `completed` since it started. The
    database is the truth: a restarted TaskManager reads its book from there, so a crash loses no task.

    `assignments` is replaced, never changed in place: other threads may read it as it stands.
    """

    answers_with = (TaskFlowError, SQLAlchemyError, OSError)

    def __init__(
        self, database: SyncDatabase, publish: Callable[[TaskEvent], None], capacity: int | None = None
    ) -> None:
        self.capacity = capacity
        super().__init__()
        self.assignments: dict[int, int] = {}
        self.created = 0
        self.assigned = 0
        self.completed = 0
        self.in_race_window: Callable[[], None] = _pause
        self._database = database
        self._publish = publish
        self._knows_the_database = False

    def on_start(self) -> None:
        """Read the book from the database; if that is away, with the first command that finds it."""
        try:
            self._read_book()
        except (SQLAlchemyError, OSError) as error:
            logger.warning("the TaskManager starts without the database: %s", error)

    def create_task(
        self, project_id: int, title: str, description: str, priority: Priority, due_date: date | None
    ) -> Task:
        """Create an open task; an unknown project is UnknownReference."""
        self._read_book()
        task = Task(
            project_id=project_id,
            title=title,
            description=description,
            priority=priority,
            due_date=due_date,
        )
        with self._database.writing() as repo:
            repo.must_exist("project_id", Project, project_id)
            repo.insert(task)
        self.created += 1
        self._publish(TaskEvent.of(TaskChange.CREATED, task))
        return task

    def assign_task(self, task_id: int, assignee_id: int) -> Task:
        """Give an open task to someone; NotFound, UnknownReference, InvalidTransition."""
        self._read_book()
        with self._database.writing() as repo:
            task = repo.assign_task(task_id, assignee_id)
        return self._note_assigned(task, assignee_id)

    def assign_next_available_task(self, project_id: int, assignee_id: int) -> Task:
        """Give the most urgent, then oldest open task of a project to someone; NothingAvailable, NotFound."""
        self._read_book()
        with self._database.writing() as repo:
            task = repo.assign_next_available_task(project_id, assignee_id)
        return self._note_assigned(task, assignee_id)

    def assign_next_past_the_mailbox(self, project_id: int, assignee_id: int) -> Task:
        """Fault `assign_race`: the same in the caller's thread, trusting the book alone, without a lock.

        Between the look into the book and the entry in it another caller sees the same task free.
        """
        with self._database.reading() as repo:
            repo.project(project_id)
            repo.must_exist("assignee_id", User, assignee_id)
            available = repo.session.scalars(queries.available_tasks(project_id)).all()
        task = next((task for task in available if task.id not in self.assignments), None)
        if task is None:
            raise NothingAvailable(project_id)
        self.in_race_window()
        self.assignments = {**self.assignments, task.id: assignee_id}
        self.assigned += 1
        with self._database.writing() as repo:
            repo.session.execute(queries.overwrite_assignee(task.id, assignee_id, now()))
            repo.changed_projects.add(project_id)
            task = repo.task(task.id)
        self._publish(TaskEvent.of(TaskChange.ASSIGNED, task))
        return task

    def complete_task(self, task_id: int) -> Task:
        """Finish a task in progress; NotFound, InvalidTransition."""
        self._read_book()
        with self._database.writing() as repo:
            task = repo.complete_task(task_id)
        self.assignments = {done: who for done, who in self.assignments.items() if done != task_id}
        self.completed += 1
        self._publish(TaskEvent.of(TaskChange.COMPLETED, task))
        return task

    def simulate_crash(self) -> None:
        """Crash, as a defect in a handler would make it."""
        raise SimulatedCrash("the TaskManager was told to crash")

    def _note_assigned(self, task: Task, assignee_id: int) -> Task:
        self.assignments = {**self.assignments, task.id: assignee_id}
        self.assigned += 1
        self._publish(TaskEvent.of(TaskChange.ASSIGNED, task))
        return task

    def _read_book(self) -> None:
        if self._knows_the_database:
            return
        with self._database.reading() as repo:
            rows = repo.session.execute(queries.tasks_under_way()).all()
        self.assignments = {task_id: assignee_id for task_id, assignee_id in rows if assignee_id is not None}
        self._knows_the_database = True


def _pause() -> None:
    """Long enough for another caller to come in between."""
    time.sleep(RACE_WINDOW_SECONDS)
