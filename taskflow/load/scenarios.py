"""What simulated clients do: the operations of TaskFlow, and their mixture in each scenario."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import gevent
from locust.exception import StopUser

from taskflow.data.reports import ReportStatus
from taskflow.data.seeds import FIRST_YEAR, LAST_YEAR
from taskflow.load.client import Answer, LoadEnvironment, SimulatedClient

MOST_UNFINISHED: Final = 100
MOST_MINUTES: Final = 60
WORDS: Final = ["importer", "invoice", "index", "cache", "log"]
YEARS: Final = range(FIRST_YEAR, LAST_YEAR + 1)
UNDER_WAY: Final = (ReportStatus.WAITING, ReportStatus.RUNNING)
MOST_LOOKS: Final = 200
LOOK_AGAIN_SECONDS: Final = 0.5
ALREADY_WATCHING: Final = {409: "watching already"}
LAST_WATCHER: Final = {409: "the last watcher stays"}
NOTHING_TO_REPORT: Final = {422: "no task in that year"}
NEXT_STEP: Final = {"assign": "start", "start": "complete"}


class Worker(SimulatedClient):
    """Someone who uses TaskFlow: creates tasks, moves them on, looks at lists and dashboards."""

    abstract = True
    # Refusals to expect where a fault has given one task to two clients.
    rivalry: ClassVar[Mapping[int, str]] = {}

    def __init__(self, environment: LoadEnvironment) -> None:
        super().__init__(environment)
        self.user_id = self.load.users[self.number % len(self.load.users)]
        self.queue = self.load.queues[self.number % len(self.load.queues)]
        self._unfinished: deque[tuple[int, str]] = deque(maxlen=MOST_UNFINISHED)

    def create(self) -> None:
        """A task to be assigned by whoever created it."""
        created = self._created(self.chance.choice(self.load.projects))
        if created is not None:
            self._unfinished.append((created["id"], "assign"))

    def take(self) -> None:
        """Put a task into a queue, and take the one whose turn it is: there is always one."""
        if self._created(self.queue) is None:
            return
        body = {"assignee_id": self.user_id}
        taken = self.send("assign_next", "POST", f"/projects/{self.queue}/assign-next", json=body)
        if taken is not None:
            self.load.ledger.taken.append((taken["id"], self.user_id))
            self._unfinished.append((taken["id"], "start"))

    def advance(self) -> None:
        """Move the oldest unfinished task of one's own a step on."""
        if not self._unfinished:
            return self.create()
        task_id, step = self._unfinished.popleft()
        body = {"assignee_id": self.user_id} if step == "assign" else None
        if self.send(step, "POST", f"/tasks/{task_id}/{step}", body, self.rivalry) is not None:
            self._note(task_id, step)
            if step in NEXT_STEP:
                self._unfinished.append((task_id, NEXT_STEP[step]))
        return None

    def log_time(self) -> None:
        """Time spent on a task: one that everybody works on if there are such, else one's own."""
        if self.load.shared:
            task_id = self.chance.choice(self.load.shared)
        elif self._unfinished:
            task_id = self._unfinished[-1][0]
        else:
            return
        minutes = self.chance.randint(1, MOST_MINUTES)
        if self.send("log_time", "POST", f"/tasks/{task_id}/time", json={"minutes": minutes}) is not None:
            self.load.ledger.add_minutes(task_id, minutes)

    def watch_for_a_while(self) -> None:
        """Watch an urgent task that others watch too, and then no longer; only as a user of one's own."""
        if not self.load.shared or self.number > len(self.load.users):
            return
        task_id = self.chance.choice(self.load.shared)
        body = {"user_id": self.user_id}
        if self.send("watch", "POST", f"/tasks/{task_id}/watchers", body, ALREADY_WATCHING) is not None:
            self.load.ledger.watched.append(task_id)
        self.send("unwatch", "DELETE", f"/tasks/{task_id}/watchers/{self.user_id}", expected=LAST_WATCHER)

    def list_tasks(self) -> None:
        """A page of a project's tasks."""
        self.send("list", "GET", f"/tasks?project_id={self.chance.choice(self.load.projects)}&limit=20")

    def dashboard(self) -> None:
        """A project at a glance."""
        self._look("dashboard")

    def statistics(self) -> None:
        """What a project's worker has counted."""
        self._look("statistics")

    def people(self) -> None:
        """Who works in a project."""
        self._look("people")

    def export(self) -> None:
        """Everything in a project."""
        self._look("export")

    def search(self) -> None:
        """Tasks with a word in their title."""
        self.send("search", "GET", f"/tasks/search?q={self.chance.choice(WORDS)}")

    def report(self) -> None:
        """An annual report: ask for it, see how it gets on, fetch it."""
        year = {"year": self.chance.choice(YEARS)}
        asked = self.send("report", "POST", "/reports", year, NOTHING_TO_REPORT)
        for _ in range(MOST_LOOKS):
            if asked is None or asked["status"] not in UNDER_WAY:
                break
            gevent.sleep(LOOK_AGAIN_SECONDS)
            asked = self.send("report_status", "GET", f"/reports/{asked['id']}")
        if asked is not None and asked["status"] == ReportStatus.FINISHED:
            self.send("report_file", "GET", f"/reports/{asked['id']}/file")

    def _look(self, what: str) -> None:
        self.send(what, "GET", f"/projects/{self.chance.choice(self.load.projects)}/{what}")

    def _created(self, project_id: int, **fields: Any) -> Answer | None:
        body = {"project_id": project_id, "title": self.load.ledger.title, **fields}
        created = self.send("create", "POST", "/tasks", json=body)
        if created is not None:
            self.load.ledger.created.append(created["id"])
        return created

    def _note(self, task_id: int, step: str) -> None:
        ledger = self.load.ledger
        if step == "assign":
            ledger.assigned.append((task_id, self.user_id))
        else:
            {"start": ledger.started, "complete": ledger.completed}[step].append(task_id)


Operations = dict[Callable[[Any], None], int]


class SteadyClient(Worker):
    """`steady`: the everyday mixture."""

    tasks: ClassVar[Operations] = {
        Worker.create: 20,
        Worker.take: 10,
        Worker.advance: 30,
        Worker.log_time: 5,
        Worker.list_tasks: 25,
        Worker.dashboard: 10,
    }


class DashboardClient(Worker):
    """`dashboard`: creating tasks and looking at them."""

    tasks: ClassVar[Operations] = {Worker.create: 50, Worker.dashboard: 50}


class CreatingClient(Worker):
    """`create`: nothing but new tasks."""

    tasks: ClassVar[Operations] = {Worker.create: 100}


class RushClient(Worker):
    """`rush`: everyone comes at once, puts a task into a queue, takes one, finishes it and leaves."""

    def journey(self) -> None:
        """One visit, of five requests."""
        self.take()
        self.advance()
        self.advance()
        raise StopUser

    tasks: ClassVar[list[Callable[[Any], None]]] = [journey]


class ReportClient(Worker):
    """`reports`: every second client wants one report after the other, the rest want the usual."""

    def work(self) -> None:
        """A report, or something else."""
        if self.number % 2:
            self.report()
        else:
            self.chance.choice((self.dashboard, self.list_tasks, self.create))()

    tasks: ClassVar[list[Callable[[Any], None]]] = [work]


class ChaosClient(Worker):
    """`chaos`: whatever a fault can touch, several clients at the same things."""

    rivalry: ClassVar[Mapping[int, str]] = {409: "another client was faster"}
    tasks: ClassVar[Operations] = {
        Worker.create: 10,
        Worker.take: 15,
        Worker.advance: 30,
        Worker.log_time: 15,
        Worker.watch_for_a_while: 15,
        Worker.dashboard: 8,
        Worker.statistics: 4,
        Worker.people: 4,
        Worker.export: 2,
        Worker.search: 4,
        Worker.report: 1,
        Worker.list_tasks: 8,
    }


CLIENTS: Final[dict[str, type[Worker]]] = {
    "steady": SteadyClient,
    "rush": RushClient,
    "reports": ReportClient,
    "chaos": ChaosClient,
    "dashboard": DashboardClient,
    "create": CreatingClient,
}
