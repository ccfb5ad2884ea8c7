"""Notifications: the news of tasks, kept in the outbox first, then delivered by e-mail and by webhook.

The way of an event: bus → outbox (a table) → the bounded queue of its channel → one of the channel's few
deliveries at a time. Whatever is in the outbox survives: a crash between a delivery and its record
delivers it again, under the same idempotency key. Every step is bounded: a channel that does not keep up
leaves its notifications in the table, and does not hold up the other channel.

What can be lost is what has not reached the outbox: events published in the moment before a kill -9, and
events beyond INTAKE_CAPACITY while the database does not answer (counted as `missed`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from taskflow.data.database import Database
from taskflow.data.models import now
from taskflow.data.outbox import Channel, Notification, Outbox, Outcome
from taskflow.integrations.email import EmailService
from taskflow.integrations.retries import DeliveryFailed, DeliveryRefused
from taskflow.integrations.webhooks import WebhookService
from taskflow.services.events import EventBus, Subscription, TaskEvent
from taskflow.services.letters import letters_about
from taskflow.settings import Settings

logger = logging.getLogger(__name__)

INTAKE_CAPACITY: Final = 10_000
BATCH: Final = 200
LONGEST_WAIT_SECONDS: Final = 3600.0
MOST_DOUBLINGS: Final = 12
DATABASE_PAUSE_SECONDS: Final = 0.5
STOP_GRACE_SECONDS: Final = 2.0

T = TypeVar("T")
Deliver = Callable[[Notification], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """Of one channel: deliveries since the start that arrived and that failed; notifications in the outbox
    that wait for a (further) delivery, and that were refused for good.
    """

    sent: int
    failed: int
    waiting: int
    refused: int


@dataclass(frozen=True, slots=True)
class NotificationFigures:
    """How the notifications stand; `missed` are events that came faster than they could be kept."""

    email: ChannelFigures
    webhook: ChannelFigures
    missed: int


class _Lane:
    """One channel's bounded queue and what is known of it. `more` says that the table holds more than fits."""

    def __init__(self, channel: Channel, deliver: Deliver | None, capacity: int) -> None:
        self.channel = channel
        self.deliver = deliver
        self.queue: asyncio.Queue[Notification] = asyncio.Queue(capacity)
        self.in_flight: set[int] = set()
        self.news = asyncio.Event()
        self.more = False
        self.sent = 0
        self.failed = 0


class NotificationService:
    """Delivers what EventBus tells, as an async context manager.

    At its start, and on `retry_waiting`, everything in the outbox is due. A channel that is not
    configured (no mail server) delivers nothing; its notifications wait in the outbox until it is.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        bus: EventBus,
        emails: EmailService,
        webhooks: WebhookService,
    ) -> None:
        self._database = database
        self._outbox = Outbox(database)
        self._bus = bus
        self._emails = emails
        self._webhooks = webhooks
        self._webhook_urls = settings.webhook_urls
        self._capacity = settings.notification_queue
        self._concurrency = settings.notification_concurrency
        self._retry_seconds = settings.notification_retry_seconds
        self._lanes: dict[Channel, _Lane] = {}
        self._outcomes: list[tuple[_Lane, Outcome]] = []
        self._outcomes_news = asyncio.Event()
        self._unkept: list[TaskEvent] = []
        self._told_of_undeliverable = False
        self._subscription: Subscription | None = None
        self._subscribed = ExitStack()
        self._loops: list[asyncio.Task[None]] = []
        self._transactions: set[asyncio.Task[Any]] = set()
        self._deliveries: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._outbox.make_due()
        self._lanes = {
            Channel.EMAIL: _Lane(
                Channel.EMAIL, self._mail if self._emails.configured else None, self._capacity
            ),
            Channel.WEBHOOK: _Lane(Channel.WEBHOOK, self._post, self._capacity),
        }
        self._subscription = self._subscribed.enter_context(self._bus.subscribe(INTAKE_CAPACITY))
        self._loops = [_background("intake", self._take_in()), _background("records", self._record())]
        for lane in self._lanes.values():
            if lane.deliver is None:
                continue
            self._loops.append(_background(f"{lane.channel} queue", self._fill(lane)))
            self._loops += [
                _background(f"{lane.channel} {number}", self._deliver_from(lane, lane.deliver))
                for number in range(self._concurrency)
            ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take in what was published, let deliveries under way finish for a moment; the rest waits."""
        await asyncio.sleep(0)  # what other threads have published by now is on its way into the loop
        self._subscribed.close()
        await _cancel(self._loops)
        if self._deliveries:
            await asyncio.wait(self._deliveries, timeout=STOP_GRACE_SECONDS)
        await _cancel(self._deliveries)
        await asyncio.gather(*self._transactions, return_exceptions=True)
        try:
            await self._keep_all_at_hand()
            await self._record_all()
        except SQLAlchemyError:
            logger.exception("the outbox cannot be written; %d events are lost", len(self._unkept))

    async def retry_waiting(self) -> None:
        """Deliver everything in the outbox now, whenever it was to be tried again."""
        await self._outbox.make_due()
        self._wake()

    async def figures(self) -> NotificationFigures:
        """How the notifications stand."""
        counts = await self._outbox.counts()
        by_channel = {
            channel: ChannelFigures(
                lane.sent, lane.failed, counts.get((channel, False), 0), counts.get((channel, True), 0)
            )
            for channel, lane in self._lanes.items()
        }
        missed = self._subscription.dropped if self._subscription else 0
        return NotificationFigures(by_channel[Channel.EMAIL], by_channel[Channel.WEBHOOK], missed)

    # From the bus into the outbox

    async def _take_in(self) -> None:
        assert self._subscription is not None
        while True:
            self._unkept += await self._subscription.batch(BATCH)
            await self._until_the_database_answers(self._keep)

    async def _keep(self) -> None:
        letters = await letters_about(self._unkept, self._database, self._webhook_urls)
        if letters:
            await self._outbox.put(letters)
        self._unkept = []
        if letters:
            self._wake()
        undeliverable = not self._emails.configured and any(
            letter.channel == Channel.EMAIL for letter in letters
        )
        if undeliverable and not self._told_of_undeliverable:
            self._told_of_undeliverable = True
            logger.warning("TASKFLOW_SMTP_URL is not set: e-mail is undeliverable and kept in the outbox")

    async def _keep_all_at_hand(self) -> None:
        assert self._subscription is not None
        self._unkept += self._subscription.batch_at_hand(INTAKE_CAPACITY)
        await self._keep()

    def _wake(self) -> None:
        for lane in self._lanes.values():
            lane.news.set()

    # From the outbox into the queues

    async def _fill(self, lane: _Lane) -> None:
        while True:
            lane.news.clear()
            wait_seconds = await self._until_the_database_answers(lambda: self._refill(lane))
            try:
                async with asyncio.timeout(wait_seconds):
                    await lane.news.wait()
            except TimeoutError:
                pass

    async def _refill(self, lane: _Lane) -> float | None:
        """Put what is due into the queue; returns how long nothing more is, None when only news can tell."""
        room = lane.queue.maxsize - lane.queue.qsize()
        due = await self._outbox.due(lane.channel, room, lane.in_flight) if room else ()
        for notification in due:
            lane.in_flight.add(notification.id)
            lane.queue.put_nowait(notification)
        lane.more = len(due) == room
        if lane.more:
            return None
        next_due = await self._outbox.next_due_at(lane.channel, lane.in_flight)
        return None if next_due is None else max(0.0, (next_due - now()).total_seconds())

    # From the queues to the world

    async def _deliver_from(self, lane: _Lane, deliver: Deliver) -> None:
        while True:
            notification = await lane.queue.get()
            if lane.more and lane.queue.qsize() <= lane.queue.maxsize // 2:
                lane.news.set()
            await _undisturbed(self._deliver(lane, deliver, notification), self._deliveries)

    async def _deliver(self, lane: _Lane, deliver: Deliver, notification: Notification) -> None:
        self._outcomes.append((lane, await self._outcome(lane, deliver, notification)))
        self._outcomes_news.set()

    async def _outcome(self, lane: _Lane, deliver: Deliver, notification: Notification) -> Outcome:
        try:
            await deliver(notification)
        except DeliveryRefused as error:
            lane.failed += 1
            logger.warning("notification %s is undeliverable: %s", notification.key, error)
            return Outcome(notification.id, str(error))
        except Exception as error:
            lane.failed += 1
            if not isinstance(error, DeliveryFailed):
                logger.exception("notification %s met a defect", notification.key)
            wait = min(
                self._retry_seconds * 2 ** min(notification.failures, MOST_DOUBLINGS), LONGEST_WAIT_SECONDS
            )
            logger.warning("notification %s waits %g s: %s", notification.key, wait, error)
            return Outcome(notification.id, str(error) or repr(error), now() + timedelta(seconds=wait))
        lane.sent += 1
        return Outcome(notification.id)

    async def _mail(self, notification: Notification) -> None:
        await self._emails.send(
            notification.recipient, notification.subject, notification.content, notification.key
        )

    async def _post(self, notification: Notification) -> None:
        await self._webhooks.post(notification.recipient, notification.content.encode(), notification.key)

    # What became of it

    async def _record(self) -> None:
        while True:
            await self._outcomes_news.wait()
            self._outcomes_news.clear()
            await self._until_the_database_answers(self._record_all)

    async def _record_all(self) -> None:
        while recorded := self._outcomes[:BATCH]:
            await self._outbox.record([outcome for _, outcome in recorded])
            del self._outcomes[: len(recorded)]
            for lane, outcome in recorded:
                lane.in_flight.discard(outcome.notification_id)
                if outcome.due_at is not None:
                    lane.news.set()

    async def _until_the_database_answers(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        while True:
            try:
                return await _undisturbed(step(), self._transactions)
            except SQLAlchemyError as error:
                logger.warning("the outbox waits for the database: %s", error)
                await asyncio.sleep(DATABASE_PAUSE_SECONDS)


async def _undisturbed(work: Coroutine[Any, Any, T], among: set[asyncio.Task[Any]]) -> T:
    """Do `work` in a task of its own, which a cancelled caller leaves to whoever looks after `among`."""
    task = asyncio.create_task(work)
    among.add(task)
    task.add_done_callback(among.discard)
    return await asyncio.shield(task)


def _background(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work, name=f"notifications: {name}")


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            logger.error("notifications met a defect", exc_info=result)
