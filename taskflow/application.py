"""TaskFlow as a whole: the composition root, where its parts are built, started in order and closed in reverse."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from taskflow.actors.system import ActorSystem
from taskflow.data.cache import Cache
from taskflow.data.database import Database
from taskflow.data.valkey import EmbeddedValkey, ValkeyFailed
from taskflow.integrations.email import EmailService
from taskflow.integrations.storage import FileStorage
from taskflow.integrations.webhooks import WebhookService
from taskflow.services.board import BoardFeed
from taskflow.services.events import EventBus
from taskflow.services.notifications import NotificationService
from taskflow.services.reports import ReportGenerator
from taskflow.settings import EMBEDDED, OFF, Settings


class Application:
    """The parts of one TaskFlow, as an asynchronous context manager.

    Building it opens nothing. Entering it starts each part after those it needs; leaving it closes them in
    reverse, also when a later part could not start.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bus = EventBus()
        self.cache = Cache(settings)
        self.database = Database(settings, self.cache)
        self.actors = ActorSystem(settings, self.database.sync, self.bus)
        self.boards = BoardFeed(self.database, self.bus)
        self.emails = EmailService(settings)
        self.webhooks = WebhookService(settings)
        self.storage = FileStorage(settings)
        self.notifications = NotificationService(
            settings, self.database, self.bus, self.emails, self.webhooks
        )
        self.reports = ReportGenerator(settings, self.database, self.storage)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start_data(stack)
            await stack.enter_async_context(self.boards)
            await stack.enter_async_context(self.emails)
            await stack.enter_async_context(self.webhooks)
            await stack.enter_async_context(self.notifications)
            await stack.enter_async_context(self.reports)
            # Last in and first out: whatever the actors still publish finds its listeners.
            await stack.enter_async_context(self.actors)
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def condition(self) -> dict[str, str]:
        """How each part is that TaskFlow can do without: `ok`, `off`, or `degraded: …` with the reason."""
        return {"cache": await self.cache.probe(), "email": "ok" if self.emails.configured else "off"}

    async def _start_data(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self.database.close)
        await self.database.create_schema()
        url = self.settings.redis_url
        if url == OFF:
            return
        if url == EMBEDDED:
            try:
                url = (await stack.enter_async_context(EmbeddedValkey())).url
            except ValkeyFailed as error:
                self.cache.degrade(str(error))
                return
        stack.push_async_callback(self.cache.close)
        await self.cache.connect(url)
