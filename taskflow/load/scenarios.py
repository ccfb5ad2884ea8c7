"""What simulated clients do: the operations of TaskFlow, and their mixture in each scenario."""

from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

from locust.exception import StopUser

from taskflow.load.client import Answer, LoadEnvironment, SimulatedClient

MOST_UNFINISHED: Final = 100
NEXT_STEP: Final = {"assign": "start", "start": "complete"}


class Worker(SimulatedClient):
    """Someone who uses TaskFlow: creates tasks, moves them on, looks at lists and dashboards."""

    abstract = True

    def __init__(self, environment: LoadEnvironment) -> None:
        super().__init__(environment)
        self.user_id = self.chance.choice(self.load.users)
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
        if self.send(step, "POST", f"/tasks/{task_id}/{step}", json=body) is not None:
            self._note(task_id, step)
            if step in NEXT_STEP:
                self._unfinished.append((task_id, NEXT_STEP[step]))
        return None

    def list_tasks(self) -> None:
        """A page of a project's tasks."""
        self.send("list", "GET", f"/tasks?project_id={self.chance.choice(self.load.projects)}&limit=20")

    def dashboard(self) -> None:
        """A project at a glance."""
        self.send("dashboard", "GET", f"/projects/{self.chance.choice(self.load.projects)}/dashboard")

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
        Worker.create: 25,
        Worker.advance: 40,
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


CLIENTS: Final[dict[str, type[Worker]]] = {
    "steady": SteadyClient,
    "rush": RushClient,
    "dashboard": DashboardClient,
    "create": CreatingClient,
}
