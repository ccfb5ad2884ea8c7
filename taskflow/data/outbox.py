"""The outbox: notifications that still have to be delivered, in a table, so that no restart loses them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Delete, Index, Select, String, Text, Update, delete, func, insert, select, update
from sqlalchemy.orm import Mapped, mapped_column

from taskflow.data.database import Database
from taskflow.data.models import Base, UtcDateTime, now

RECIPIENT_LENGTH: Final = 2_000
PROBLEM_LENGTH: Final = 1_000


class Channel(StrEnum):
    """How a notification travels."""

    EMAIL = "email"
    WEBHOOK = "webhook"


class Notification(Base):
    """One message to one recipient: an address and a text, or a URL and a JSON payload.

    `key` is its idempotency key for as long as it lives. A refused one is kept for people to look at, and
    never becomes due again.
    """

    __tablename__ = "notifications"
    __table_args__ = (Index("notifications_by_due_time", "channel", "refused", "due_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(32), unique=True)
    channel: Mapped[str] = mapped_column(String(16))
    recipient: Mapped[str] = mapped_column(String(RECIPIENT_LENGTH))
    subject: Mapped[str] = mapped_column(Text, default="")
    content: Mapped[str] = mapped_column(Text)
    failures: Mapped[int] = mapped_column(default=0)
    problem: Mapped[str | None] = mapped_column(String(PROBLEM_LENGTH))
    refused: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one delivery: delivered when `problem` is None; else due again, unless refused."""

    notification_id: int
    problem: str | None = None
    due_at: datetime | None = None

    @property
    def refused(self) -> bool:
        """Whether trying again is of no use."""
        return self.problem is not None and self.due_at is None


class Outbox:
    """The waiting notifications of one database; one service at a time delivers them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, notifications: Sequence[Notification]) -> None:
        """Keep new notifications, all or none; they are due at once."""
        rows = [_row(notification) for notification in notifications]
        async with self._database.writing() as repo:
            await repo.session.execute(insert(Notification), rows)

    async def due(self, channel: Channel, limit: int, besides: Collection[int]) -> Sequence[Notification]:
        """Up to `limit` notifications that are due, the oldest first, without the ids in `besides`."""
        async with self._database.reading() as repo:
            return (await repo.session.scalars(_due(channel, now(), limit, besides))).all()

    async def next_due_at(self, channel: Channel, besides: Collection[int]) -> datetime | None:
        """When the next notification becomes due; None when none waits."""
        async with self._database.reading() as repo:
            return await repo.session.scalar(_next_due(channel, besides))

    async def record(self, outcomes: Sequence[Outcome]) -> None:
        """Note what became of deliveries; what was delivered is gone."""
        delivered = [outcome.notification_id for outcome in outcomes if outcome.problem is None]
        async with self._database.writing() as repo:
            if delivered:
                await repo.session.execute(_without(delivered))
            for outcome in outcomes:
                if outcome.problem is not None:
                    await repo.session.execute(_failed(outcome))

    async def make_due(self) -> None:
        """Everything that waits is due now, however long it was to wait."""
        async with self._database.writing() as repo:
            await repo.session.execute(_all_due(now()))

    async def counts(self) -> dict[tuple[str, bool], int]:
        """How many notifications there are, by channel and whether refused."""
        async with self._database.reading() as repo:
            found = await repo.session.execute(_counts())
            return {(channel, refused): count for channel, refused, count in found}


def _row(notification: Notification) -> dict[str, Any]:
    return {
        "key": notification.key,
        "channel": notification.channel,
        "recipient": notification.recipient,
        "subject": notification.subject,
        "content": notification.content,
    }


def _due(channel: Channel, at: datetime, limit: int, besides: Collection[int]) -> Select[Notification]:
    return (
        select(Notification)
        .where(
            Notification.channel == channel,
            Notification.refused.is_(False),
            Notification.due_at <= at,
            Notification.id.not_in(besides),
        )
        .order_by(Notification.id)
        .limit(limit)
    )


def _next_due(channel: Channel, besides: Collection[int]) -> Select[datetime | None]:
    return select(func.min(Notification.due_at)).where(
        Notification.channel == channel,
        Notification.refused.is_(False),
        Notification.id.not_in(besides),
    )


def _without(ids: Collection[int]) -> Delete:
    return delete(Notification).where(Notification.id.in_(ids))


def _failed(outcome: Outcome) -> Update:
    return (
        update(Notification)
        .where(Notification.id == outcome.notification_id)
        .values(
            failures=Notification.failures + 1,
            problem=(outcome.problem or "")[:PROBLEM_LENGTH],
            refused=outcome.refused,
            due_at=outcome.due_at or Notification.due_at,
        )
        .execution_options(synchronize_session=False)
    )


def _all_due(at: datetime) -> Update:
    return (
        update(Notification)
        .where(Notification.refused.is_(False), Notification.due_at > at)
        .values(due_at=at)
        .execution_options(synchronize_session=False)
    )


def _counts() -> Select[str, bool, int]:
    return select(Notification.channel, Notification.refused, func.count()).group_by(
        Notification.channel, Notification.refused
    )
