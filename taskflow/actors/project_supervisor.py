"""The ProjectSupervisor: a ProjectWorker for each active project, started when it is first needed."""

import logging
from typing import Any, Final

from pykka import ActorDeadError
from pykka.messages import ProxyCall

from taskflow.actors.project_worker import ProjectWorker, WorkerFaults
from taskflow.data.database import SyncDatabase
from taskflow.errors import Busy
from taskflow.faults import MAILBOX_FLOOD
from taskflow.services.events import TaskChange, TaskEvent
from taskflow.settings import Settings
from taskflow.supervision import ChildSpec, ChildStatus, Restart, SupervisionError, Supervisor

logger = logging.getLogger(__name__)

MOST_WORKERS: Final = 100
"""Each is a thread; beyond so many the one started first makes room, and is started again when needed."""


class ProjectSupervisor(Supervisor):
    """Supervises workers that know nothing of each other: one_for_one, with dynamic, transient children."""

    answers_with = (*Supervisor.answers_with, Busy)

    def __init__(self, settings: Settings, database: SyncDatabase, worker_faults: WorkerFaults) -> None:
        # Up to MOST_WORKERS children share this intensity, so it is higher than OTP's default.
        super().__init__("projects", max_restarts=20, max_seconds=10.0)
        self._settings = settings
        self._database = database
        self._worker_faults = worker_faults

    def worker(self, project_id: int) -> ProjectWorker:
        """The worker of a project, started if need be. Busy while it cannot be."""
        running = self.running_worker(project_id)
        return running if running is not None else self._call("_ready_worker", project_id)

    def running_worker(self, project_id: int) -> ProjectWorker | None:
        """The worker of a project if it runs; never waits."""
        worker = self.whereis(_name(project_id))
        return worker if isinstance(worker, ProjectWorker) else None

    def note(self, event: TaskEvent) -> None:
        """Tell the project's worker of a change; from any thread, without waiting.

        What a worker is not told, because it or its supervisor ends just now, is lost to nobody: it reads
        the database when it starts.
        """
        worker = self.running_worker(event.project_id)
        try:
            if worker is not None:
                self._tell_worker(worker, event)
            else:
                self.actor_ref.tell(_call("_start_and_tell", event))
        except ActorDeadError:
            logger.debug("nobody to tell of %s", event)

    def _start_and_tell(self, event: TaskEvent) -> None:
        try:
            self._tell_worker(self._ready_worker(event.project_id), event)
        except (Busy, ActorDeadError) as error:
            logger.warning("no worker for %s: %s", event, error)

    def _ready_worker(self, project_id: int) -> ProjectWorker:
        name = _name(project_id)
        status = {child.name: child.status for child in self._which_children()}
        try:
            if status.get(name) is ChildStatus.DOWN:
                self._restart_child(name)
            elif name not in status:
                if len(status) >= MOST_WORKERS:
                    self._retire(next(iter(status)))
                self._start_child(self._specification(project_id))
        except SupervisionError as error:
            raise Busy(f"The worker of project {project_id} cannot be started: {error}.") from error
        worker = self.running_worker(project_id)
        if worker is None:
            raise Busy(f"The worker of project {project_id} is being restarted.")
        return worker

    def _retire(self, name: str) -> None:
        self._terminate_child(name)
        self._delete_child(name)

    def _specification(self, project_id: int) -> ChildSpec:
        def make() -> ProjectWorker:
            return ProjectWorker(project_id, self._database, self._worker_faults, self._settings.worker_queue)

        return ChildSpec(_name(project_id), make, restart=Restart.TRANSIENT)

    def _tell_worker(self, worker: ProjectWorker, event: TaskEvent) -> None:
        worker.actor_ref.tell(_call("note", event))
        if event.change is TaskChange.COMPLETED and MAILBOX_FLOOD.name in self._settings.faults:
            self._flood(worker)

    def _flood(self, worker: ProjectWorker) -> None:
        """Fault `mailbox_flood`: as if each task of the project had to be looked at anew."""
        statistics = worker.statistics
        for _ in range(statistics.tasks if statistics is not None else 0):
            worker.actor_ref.tell(_call("refresh"))


def _name(project_id: int) -> str:
    return f"project {project_id}"


def _call(method: str, *arguments: Any) -> ProxyCall:
    return ProxyCall((method,), arguments, {})
