"""TaskFlow's actors as one part of the application: their supervision tree, and how coroutines use them.

taskflow (one_for_one)
├── projects: ProjectSupervisor (one_for_one)
│   └── project 1, project 2, …: ProjectWorker, transient, started on demand
└── task_manager: TaskManager
"""

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from types import TracebackType
from typing import Final, Self

from pykka import ActorDeadError

from taskflow.actors.asking import ask
from taskflow.actors.project_supervisor import ProjectSupervisor
from taskflow.actors.project_worker import ProjectStatistics, ProjectWorker, WorkerFaults
from taskflow.actors.task_manager import SimulatedCrash, TaskManager
from taskflow.data.database import SyncDatabase
from taskflow.data.models import Priority, Task
from taskflow.errors import Busy
from taskflow.faults import ASSIGN_RACE
from taskflow.services.events import EventBus, TaskEvent
from taskflow.settings import Settings
from taskflow.supervision import ChildSpec, ChildType, Exit, Listener, SupervisedActor, Supervisor

logger = logging.getLogger(__name__)

RACING_THREADS: Final = 16
STATISTICS_SECONDS: Final = 5.0
STOP_SECONDS: Final = 30.0


class ActorSystem:
    """The actors of one TaskFlow, as an asynchronous context manager.

    The methods of tasks raise what the repository's raise, and Busy (a full mailbox, no answer in time, a
    supervision tree that has given up). `supervisor` is the root of the tree.
    """

    def __init__(
        self, settings: Settings, database: SyncDatabase, bus: EventBus, listeners: Iterable[Listener] = ()
    ) -> None:
        self._settings = settings
        self._bus = bus
        # Outside the tree: a restarted ProjectSupervisor must not forget which worker crashed already.
        worker_faults = WorkerFaults(settings.faults)
        self.supervisor = Supervisor(
            "taskflow",
            [
                ChildSpec(
                    "projects",
                    partial(ProjectSupervisor, settings, database, worker_faults),
                    type=ChildType.SUPERVISOR,
                ),
                ChildSpec(
                    "task_manager", partial(TaskManager, database, self.announce, settings.command_queue)
                ),
            ],
            max_restarts=5,
            max_seconds=60.0,
            listeners=listeners,
        )
        self._racers: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.supervisor.launch, self._note_end)
        if ASSIGN_RACE.name in self._settings.faults:
            self._racers = ThreadPoolExecutor(RACING_THREADS, "racing assigner")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._racers is not None:
            await asyncio.to_thread(self._racers.shutdown)
        await asyncio.to_thread(self.supervisor.shutdown, STOP_SECONDS)

    @property
    def condition(self) -> str:
        """`ok`, or what keeps commands from being carried out."""
        if self.supervisor.exit is not None:
            return f"the supervision tree has ended: {self.supervisor.exit}"
        return "ok" if self.task_manager() is not None else "the TaskManager is being restarted"

    def task_manager(self) -> TaskManager | None:
        """The TaskManager that runs now."""
        actor = self.supervisor.whereis("task_manager")
        return actor if isinstance(actor, TaskManager) else None

    def project_supervisor(self) -> ProjectSupervisor | None:
        """The ProjectSupervisor that runs now."""
        actor = self.supervisor.whereis("projects")
        return actor if isinstance(actor, ProjectSupervisor) else None

    def announce(self, event: TaskEvent) -> None:
        """Publish a change of a task, on the bus and to the project's worker; from any thread, no waiting."""
        self._bus.publish(event)
        projects = self.project_supervisor()
        if projects is not None:
            projects.note(event)

    async def create_task(
        self, project_id: int, title: str, description: str, priority: Priority, due_date: date | None
    ) -> Task:
        """Create an open task."""
        return await self._command("create_task", project_id, title, description, priority, due_date)

    async def assign_task(self, task_id: int, assignee_id: int) -> Task:
        """Give an open task to someone."""
        return await self._command("assign_task", task_id, assignee_id)

    async def assign_next_available_task(self, project_id: int, assignee_id: int) -> Task:
        """Give the most urgent, then oldest open task of a project to someone."""
        if self._racers is not None:
            return await self._assign_racing(self._racers, project_id, assignee_id)
        return await self._command("assign_next_available_task", project_id, assignee_id)

    async def complete_task(self, task_id: int) -> Task:
        """Finish a task in progress."""
        return await self._command("complete_task", task_id)

    async def project_statistics(self, project_id: int) -> ProjectStatistics:
        """The numbers of an existing project, from its worker, which is started if need be."""
        self._must_live()
        await self._start_worker(project_id)
        try:
            statistics: ProjectStatistics = await ask(
                partial(self._running_worker, project_id), "current_statistics", seconds=STATISTICS_SECONDS
            )
        except SimulatedCrash as crash:
            # Nothing was changed, so the same question may simply be asked again.
            raise Busy(f"{crash}.".capitalize()) from crash
        return statistics

    async def _command(self, method: str, *arguments: object) -> Task:
        self._must_live()
        task: Task = await ask(self.task_manager, method, *arguments, seconds=self._settings.command_seconds)
        return task

    async def _assign_racing(self, racers: ThreadPoolExecutor, project_id: int, assignee_id: int) -> Task:
        """Fault `assign_race`: each caller in a thread of its own, past the mailbox."""
        manager = self.task_manager()
        if manager is None:
            raise Busy(f"No task can be assigned: {self.condition}.")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            racers, manager.assign_next_past_the_mailbox, project_id, assignee_id
        )

    async def _start_worker(self, project_id: int) -> None:
        projects = self.project_supervisor()
        if projects is not None and projects.running_worker(project_id) is not None:
            return
        try:
            if projects is not None:
                await asyncio.to_thread(projects.worker, project_id)
                return
        except ActorDeadError:
            pass
        raise Busy("The projects' workers are being restarted.")

    def _running_worker(self, project_id: int) -> ProjectWorker | None:
        projects = self.project_supervisor()
        return projects.running_worker(project_id) if projects is not None else None

    def _must_live(self) -> None:
        if self.supervisor.exit is not None:
            raise Busy(f"No task can be worked on: {self.condition}.")

    def _note_end(self, _supervisor: SupervisedActor, exit: Exit) -> None:
        if exit.error is not None:
            logger.critical("TaskFlow's actors have ended: %s; commands get 503 until a restart", exit)
