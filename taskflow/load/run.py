"""What the clients of one load share: where they work, how many requests are left, what came of them."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from gevent.event import Event
from locust.exception import StopUser

from taskflow.load.ledger import Ledger
from taskflow.load.plan import LoadPlan
from taskflow.load.report import Tally


@dataclass
class LoadRun:
    """One load while it runs.

    `projects` are the service's own. `queues` were made for this load: only there are tasks taken with
    assign-next, so that nobody takes a task which its creator is about to assign. `shared` are urgent tasks
    that clients work on together. `gate` opens when all clients stand ready; once `ending` is set no further
    request begins.
    """

    plan: LoadPlan
    projects: Sequence[int]
    users: Sequence[int]
    tally: Tally = field(default_factory=Tally)
    gate: Event = field(default_factory=Event)
    ending: Event = field(default_factory=Event)
    queues: list[int] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger(title=f"Load {uuid.uuid4().hex}")
        self._left = self.plan.requests
        self._numbers = count(1)

    def join(self) -> tuple[int, random.Random]:
        """The number of a new client and its own source of chance."""
        number = next(self._numbers)
        return number, random.Random(f"{self.plan.random_seed}/{number}")

    def take_ticket(self) -> None:
        """Permission for one request; StopUser when there is none left, or the load is ending."""
        if self.ending.is_set() or self._left == 0:
            raise StopUser
        if self._left is not None:
            self._left -= 1
