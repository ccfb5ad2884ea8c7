"""The news of boards: what of each project is on show, and its changes, read once for all who look at it.

A change is told as the cards it left behind, read from the database, so that what a board shows is what is
stored. Changes that come close together are one message. Whoever does not keep up loses the messages that
wait and is given the whole board instead: what waits is bounded, what is shown in the end is right.
"""

import asyncio
import json
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy.exc import SQLAlchemyError

from taskflow.data import queries
from taskflow.data.database import Database
from taskflow.data.models import Task, TaskStatus
from taskflow.services.events import EventBus, Subscription

logger = logging.getLogger(__name__)

CARDS_IN_A_COLUMN: Final = 50
WAITING_MESSAGES: Final = 16
GATHERING_SECONDS: Final = 0.1
BATCH: Final = 1000
BEAT_SECONDS: Final = 15.0
BEAT: Final = json.dumps({"kind": "beat"})


@dataclass(frozen=True, slots=True)
class Card:
    """One task as the board shows it."""

    id: int
    title: str
    status: str
    priority: str
    assignee: str | None
    due: str | None
    overdue: bool

    @classmethod
    def of(cls, task: Task, today: date) -> "Card":
        """The card of a task, whose assignee is loaded."""
        return cls(
            id=task.id,
            title=task.title,
            status=task.status.value,
            priority=task.priority.value,
            assignee=task.assignee.name if task.assignee else None,
            due=task.due_date.isoformat() if task.due_date else None,
            overdue=bool(task.due_date and task.due_date < today and task.status is not TaskStatus.COMPLETED),
        )


@dataclass(frozen=True, slots=True)
class Column:
    """The tasks of one status: how many there are, and the cards of those that changed last."""

    status: str
    count: int
    cards: list[Card]


@dataclass(frozen=True, slots=True)
class Board:
    """A project's tasks, column by column."""

    project_id: int
    project_name: str
    columns: list[Column]

    def as_message(self) -> str:
        """The same as JSON, for a board that starts or has fallen behind."""
        return json.dumps({"kind": "board", "columns": [asdict(column) for column in self.columns]})


class Viewer:
    """One open board: `async for message in viewer` gives what it has to be sent, a beat when nothing is."""

    def __init__(self, feed: "BoardFeed", project_id: int) -> None:
        self._feed = feed
        self._project_id = project_id
        self._waiting: deque[str] = deque()
        self._needs_everything = True
        self._news = asyncio.Event()

    def offer(self, message: str) -> None:
        """Hand over a message; too many of them are replaced by the whole board."""
        if len(self._waiting) >= WAITING_MESSAGES:
            self.offer_everything()
        elif not self._needs_everything:
            self._waiting.append(message)
            self._news.set()

    def offer_everything(self) -> None:
        """Have the whole board sent next."""
        self._waiting.clear()
        self._needs_everything = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            while self._needs_everything or self._waiting:
                if self._needs_everything:
                    # Before the board is read: what changes from here on is offered again.
                    self._needs_everything = False
                    yield (await self._feed.board(self._project_id)).as_message()
                else:
                    yield self._waiting.popleft()
            self._news.clear()
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                yield BEAT


class BoardFeed:
    """All boards of one TaskFlow, as an asynchronous context manager that follows the bus."""

    def __init__(self, database: Database, bus: EventBus) -> None:
        self._database = database
        self._bus = bus
        self._viewers: defaultdict[int, set[Viewer]] = defaultdict(set)
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        started = asyncio.Event()
        self._following = asyncio.create_task(self._follow(started), name="boards follow the bus")
        await started.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def board(self, project_id: int) -> Board:
        """What a project's board shows now, or NotFound."""
        today = datetime.now(UTC).date()
        async with self._database.reading() as repo:
            project = await repo.project(project_id)
            counts = (await repo.progress(project_id, today)).by_status
            columns = []
            for status in TaskStatus:
                statement = queries.newest_tasks_of_status(project_id, status, CARDS_IN_A_COLUMN)
                tasks = await repo.session.scalars(statement)
                cards = [Card.of(task, today) for task in tasks]
                columns.append(Column(status.value, counts[status], cards))
        return Board(project_id, project.name, columns)

    @contextmanager
    def viewer(self, project_id: int) -> Iterator[Viewer]:
        """A viewer of a project's board while the block runs; it begins with the whole board."""
        viewer = Viewer(self, project_id)
        self._viewers[project_id].add(viewer)
        try:
            yield viewer
        finally:
            self._viewers[project_id].discard(viewer)
            if not self._viewers[project_id]:
                del self._viewers[project_id]

    async def _follow(self, started: asyncio.Event) -> None:
        with self._bus.subscribe() as subscription:
            started.set()
            dropped = 0
            while True:
                changed = await self._gather(subscription)
                if subscription.dropped > dropped:
                    dropped = subscription.dropped
                    for everyone in self._viewers.values():
                        _offer_everything(everyone)
                for project_id, tasks in changed.items():
                    if viewers := self._viewers.get(project_id):
                        await self._tell(viewers, project_id, tasks)

    async def _gather(self, subscription: Subscription) -> dict[int, set[int]]:
        """The tasks that changed within a moment, by project."""
        events = await subscription.batch(BATCH)
        await asyncio.sleep(GATHERING_SECONDS)
        events += subscription.batch_at_hand(BATCH)
        changed: defaultdict[int, set[int]] = defaultdict(set)
        for event in events:
            changed[event.project_id].add(event.task_id)
        return changed

    async def _tell(self, viewers: set[Viewer], project_id: int, tasks: set[int]) -> None:
        try:
            message = json.dumps(await self._changes(project_id, tasks))
        except Exception as error:
            # One change that cannot be told must not end the news of all boards.
            expected = isinstance(error, (SQLAlchemyError, OSError))
            logger.warning(
                "a change of project %d cannot be told: %s", project_id, error, exc_info=not expected
            )
            _offer_everything(viewers)
            return
        for viewer in list(viewers):
            viewer.offer(message)

    async def _changes(self, project_id: int, tasks: set[int]) -> dict[str, Any]:
        today = datetime.now(UTC).date()
        async with self._database.reading() as repo:
            counts = (await repo.progress(project_id, today)).by_status
            found = await repo.session.scalars(queries.tasks_by_id(tasks))
            cards = [asdict(Card.of(task, today)) for task in found]
        return {"kind": "changes", "counts": counts, "cards": cards}


def _offer_everything(viewers: Iterable[Viewer]) -> None:
    for viewer in list(viewers):
        viewer.offer_everything()
