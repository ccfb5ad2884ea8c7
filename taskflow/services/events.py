"""The news of tasks: whoever changes a task publishes it, whoever wants to know subscribes.

Publishers are threads (actors) and coroutines alike; they never wait. A subscriber that does not keep up
loses its oldest news, and is told how many.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from threading import Lock
from typing import Final

from taskflow.data.models import Task, now

CAPACITY: Final = 1000


class TaskChange(StrEnum):
    """What happened to a task."""

    CREATED = "created"
    ASSIGNED = "assigned"
    STARTED = "started"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One change of one task, and how the task stood after it."""

    change: TaskChange
    task_id: int
    project_id: int
    title: str
    status: str
    assignee_id: int | None
    at: datetime = field(default_factory=now)

    @classmethod
    def of(cls, change: TaskChange, task: Task) -> "TaskEvent":
        """The event of a change that left `task` as it is."""
        return cls(change, task.id, task.project_id, task.title, task.status.value, task.assignee_id)


class Subscription:
    """One subscriber's end: `async for event in subscription`. `dropped` counts what it was too slow for."""

    def __init__(self, capacity: int) -> None:
        self.dropped = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[TaskEvent] = deque(maxlen=capacity)
        self._news = asyncio.Event()

    def offer(self, event: TaskEvent) -> None:
        """Hand an event over, from any thread."""
        self._loop.call_soon_threadsafe(self._accept, event)

    def _accept(self, event: TaskEvent) -> None:
        if len(self._waiting) == self._waiting.maxlen:
            self.dropped += 1
        self._waiting.append(event)
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[TaskEvent]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            self._news.clear()
            await self._news.wait()

    async def batch(self, limit: int) -> list[TaskEvent]:
        """Up to `limit` events, the oldest first, as soon as there is one."""
        while not (events := self.batch_at_hand(limit)):
            self._news.clear()
            await self._news.wait()
        return events

    def batch_at_hand(self, limit: int) -> list[TaskEvent]:
        """The same without waiting: none when there is none."""
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]


class EventBus:
    """From any number of publishers to any number of subscribers, within one process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._subscriptions: tuple[Subscription, ...] = ()

    def publish(self, event: TaskEvent) -> None:
        """Tell every subscriber; from any thread, without waiting."""
        for subscription in self._subscriptions:
            try:
                subscription.offer(event)
            except RuntimeError:  # its event loop has ended, and with it the subscriber
                self._remove(subscription)

    @contextmanager
    def subscribe(self, capacity: int = CAPACITY) -> Iterator[Subscription]:
        """A subscription to what is published while the block runs, in the running event loop."""
        subscription = Subscription(capacity)
        with self._lock:
            self._subscriptions += (subscription,)
        try:
            yield subscription
        finally:
            self._remove(subscription)

    def _remove(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(other for other in self._subscriptions if other is not subscription)
