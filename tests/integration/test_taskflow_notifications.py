"""Notifications from the bus to real mail servers and webhook endpoints: fanned out, bounded, never lost."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from taskflow.data.database import Database
from taskflow.data.outbox import Channel, Outbox
from taskflow.integrations.email import EmailService
from taskflow.integrations.webhooks import WebhookService, verify
from taskflow.services.events import EventBus, TaskChange, TaskEvent
from taskflow.services.notifications import NotificationService
from tests.integration.endpoints import DEADLINE_SECONDS, Answer, HttpEndpoint, MailServer
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

SECRET = "known to both"
QUICK: dict[str, object] = {
    "faults": "none",
    "webhook_secret": SECRET,
    "external_step_seconds": 20.0,
    "external_attempt_seconds": 30.0,
    "external_backoff_seconds": 0.01,
    "external_backoff_max_seconds": 0.05,
    "notification_retry_seconds": 0.05,
}


class Notifying:
    """A running NotificationService and the parts around it."""

    def __init__(self, service: NotificationService, bus: EventBus, database: Database) -> None:
        self.service = service
        self.bus = bus
        self.database = database

    def publish(self, change: TaskChange, task_id: int = 1, title: str = "Fix it") -> None:
        self.bus.publish(TaskEvent(change, task_id, 1, title, change.value, 2))


@asynccontextmanager
async def notifying(directory: Path, **values: object) -> AsyncIterator[Notifying]:
    settings = taskflow_settings(directory, **(QUICK | values))
    database, bus = Database(settings), EventBus()
    try:
        await database.create_schema()
        async with (
            EmailService(settings) as emails,
            WebhookService(settings) as webhooks,
            NotificationService(settings, database, bus, emails, webhooks) as service,
        ):
            yield Notifying(service, bus, database)
    finally:
        await database.close()


async def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (held := condition()) or (isinstance(held, Awaitable) and not await held):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def waiting(running: Notifying) -> tuple[int, int]:
    figures = await running.service.figures()
    return figures.email.waiting, figures.webhook.waiting


@pytest.fixture
def seeded(tmp_path: Path) -> Path:
    seed_taskflow(taskflow_settings(tmp_path), projects=2, tasks=10)
    return tmp_path


def test_a_change_goes_out_to_the_people_concerned_and_to_every_webhook(
    database_url: str, tmp_path: Path
) -> None:
    seed_taskflow(taskflow_settings(tmp_path, database_url=database_url), projects=2, tasks=10)

    async def run(mail: MailServer, one: HttpEndpoint, other: HttpEndpoint) -> None:
        urls = f"{one.url}, {other.url}"
        async with notifying(
            tmp_path, database_url=database_url, smtp_url=mail.url, webhook_urls=urls
        ) as running:
            for change in TaskChange:
                running.publish(change)
            await eventually(lambda: len(mail.mails) == 2 and len(one.requests) == len(other.requests) == 4)

            async def recorded() -> bool:
                return await waiting(running) == (0, 0)

            await eventually(recorded)
            figures = await running.service.figures()
        assert (figures.email.sent, figures.email.failed, figures.email.refused) == (2, 0, 0)
        assert (figures.webhook.sent, figures.missed) == (8, 0)

    with MailServer() as mail, HttpEndpoint() as one, HttpEndpoint() as other:
        asyncio.run(run(mail, one, other))
    contents = b"".join(sent.content for sent in mail.mails)
    assert b"Subject: Assigned to you: Fix it" in contents
    assert b"Subject: Completed: Fix it" in contents
    assert ["alan.2@taskflow.example"] in [sent.recipients for sent in mail.mails]
    types = {json.loads(request.body)["type"] for request in one.requests}
    assert types == {"task.created", "task.assigned", "task.started", "task.completed"}
    keys = [verify(SECRET, request.body, request.headers) for request in one.requests + other.requests]
    assert len(set(keys)) == 8


def test_nothing_is_lost_while_the_mail_server_is_away(seeded: Path) -> None:
    mail = MailServer()

    async def run() -> None:
        async with notifying(seeded, smtp_url=mail.url, external_retries=0) as running:
            for number in range(20):
                running.publish(TaskChange.ASSIGNED, title=f"Task {number}")

            async def failed() -> bool:
                figures = await running.service.figures()
                return figures.email.failed >= 20 and figures.email.waiting == 20

            await eventually(failed)
            await asyncio.to_thread(mail.start)
            await eventually(lambda: len(mail.mails) >= 20)

            async def recorded() -> bool:
                return (await waiting(running))[0] == 0

            await eventually(recorded)

    try:
        asyncio.run(run())
    finally:
        mail.stop()
    titles = [line for sent in mail.mails for line in sent.content.split(b"\r\n") if b"Subject" in line]
    assert sorted(titles) == sorted(
        f"Subject: Assigned to you: Task {number}".encode() for number in range(20)
    )


def test_what_waits_is_delivered_at_the_next_start_under_the_same_key(seeded: Path) -> None:
    with HttpEndpoint() as endpoint:
        endpoint.usual = Answer(503)

        async def first() -> None:
            async with notifying(
                seeded, webhook_urls=endpoint.url, external_retries=0, notification_retry_seconds=3600
            ) as running:
                running.publish(TaskChange.CREATED)

                async def failed() -> bool:
                    return (await running.service.figures()).webhook.failed == 1

                await eventually(failed)

        asyncio.run(first())
        assert len(endpoint.requests) == 1
        endpoint.usual = Answer(200)

        async def second() -> None:
            async with notifying(seeded, webhook_urls=endpoint.url) as running:
                await eventually(lambda: len(endpoint.requests) == 2)

                async def recorded() -> bool:
                    return await waiting(running) == (0, 0)

                await eventually(recorded)

        asyncio.run(second())
    before, after = (verify(SECRET, request.body, request.headers) for request in endpoint.requests)
    assert before == after


def test_what_waits_is_delivered_on_demand(seeded: Path) -> None:
    async def run(endpoint: HttpEndpoint) -> None:
        async with notifying(
            seeded, webhook_urls=endpoint.url, external_retries=0, notification_retry_seconds=3600
        ) as running:
            running.publish(TaskChange.CREATED)

            async def failed() -> bool:
                return (await running.service.figures()).webhook.failed == 1

            await eventually(failed)
            endpoint.usual = Answer(200)

            async def retried() -> bool:
                await running.service.retry_waiting()
                return (await running.service.figures()).webhook.sent == 1

            await eventually(retried)
        assert len(endpoint.requests) == 2

    with HttpEndpoint() as endpoint:
        endpoint.usual = Answer(503)
        asyncio.run(run(endpoint))


def test_a_refused_notification_is_kept_for_people_and_not_tried_again(seeded: Path) -> None:
    async def run(endpoint: HttpEndpoint) -> None:
        async with notifying(seeded, webhook_urls=endpoint.url) as running:
            running.publish(TaskChange.CREATED)

            async def refused() -> bool:
                return (await running.service.figures()).webhook.refused == 1

            await eventually(refused)
            await running.service.retry_waiting()
            running.publish(TaskChange.STARTED)
            await eventually(lambda: len(endpoint.requests) == 2)
            figures = await running.service.figures()
            assert figures.webhook.failed >= 1

    with HttpEndpoint() as endpoint:
        endpoint.usual = Answer(410)
        asyncio.run(run(endpoint))
        assert len(endpoint.requests) == 2


def test_without_a_mail_server_mail_is_kept_until_there_is_one(
    seeded: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def without() -> None:
        async with notifying(seeded) as running:
            running.publish(TaskChange.ASSIGNED)

            async def kept() -> bool:
                return await waiting(running) == (1, 0)

            await eventually(kept)

    asyncio.run(without())
    assert "TASKFLOW_SMTP_URL is not set" in caplog.text

    async def with_one(mail: MailServer) -> None:
        async with notifying(seeded, smtp_url=mail.url):
            await eventually(lambda: mail.mails)

    with MailServer() as mail:
        asyncio.run(with_one(mail))


def test_memory_and_deliveries_are_bounded_and_the_rest_waits_in_the_table(seeded: Path) -> None:
    at_work, most_at_work = 0, 0

    async def run(endpoint: HttpEndpoint) -> None:
        nonlocal at_work, most_at_work
        async with notifying(
            seeded, webhook_urls=endpoint.url, notification_queue=5, notification_concurrency=2
        ) as running:
            lane = running.service._lanes[Channel.WEBHOOK]
            deliver = running.service._webhooks.post

            async def watched(*arguments: Any) -> None:
                nonlocal at_work, most_at_work
                at_work += 1
                most_at_work = max(most_at_work, at_work)
                await gate.wait()
                await deliver(*arguments)
                at_work -= 1

            gate = asyncio.Event()
            running.service._webhooks.post = watched  # type: ignore[method-assign]
            for number in range(60):
                running.publish(TaskChange.CREATED, task_id=number)

            async def held() -> bool:
                figures = await running.service.figures()
                return figures.webhook.waiting == 60 and at_work == 2

            await eventually(held)
            assert len(lane.in_flight) <= 5 + 2
            gate.set()
            await eventually(lambda: len(endpoint.requests) == 60)
        assert most_at_work == 2

    with HttpEndpoint() as endpoint:
        asyncio.run(run(endpoint))
    numbers = [json.loads(request.body)["data"]["task_id"] for request in endpoint.requests]
    assert sorted(numbers) == list(range(60))


def test_a_hanging_mail_server_does_not_hold_up_webhooks(seeded: Path) -> None:
    async def run(endpoint: HttpEndpoint) -> None:
        async with notifying(seeded, webhook_urls=endpoint.url, faults="hanging_email") as running:
            for number in range(10):
                running.publish(TaskChange.ASSIGNED, task_id=number)
            await eventually(lambda: len(endpoint.requests) == 10)
            figures = await running.service.figures()
            assert (figures.email.sent, figures.email.waiting) == (0, 10)

    with HttpEndpoint() as endpoint:
        asyncio.run(run(endpoint))


def test_a_stop_keeps_what_was_published_just_before_and_waits_for_no_hanging_server(seeded: Path) -> None:
    async def run() -> None:
        async with notifying(seeded, faults="hanging_email") as running:
            await asyncio.to_thread(lambda: [running.publish(TaskChange.ASSIGNED) for _ in range(300)])
        database = Database(taskflow_settings(seeded))
        try:
            assert await Outbox(database).counts() == {("email", False): 300}
        finally:
            await database.close()

    began = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - began < 15  # and not the 30 s of an attempt


def test_events_wait_for_a_database_that_is_away(seeded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    put, away = Outbox.put, True

    async def failing(self: Outbox, notifications: Any) -> None:
        if away:
            raise OperationalError("INSERT", {}, Exception("the database is away"))
        await put(self, notifications)

    async def run(endpoint: HttpEndpoint) -> None:
        nonlocal away
        async with notifying(seeded, webhook_urls=endpoint.url) as running:
            running.publish(TaskChange.CREATED)
            await asyncio.sleep(0.1)
            assert not endpoint.requests
            away = False
            await eventually(lambda: endpoint.requests)

    monkeypatch.setattr(Outbox, "put", failing)
    with HttpEndpoint() as endpoint:
        asyncio.run(run(endpoint))
