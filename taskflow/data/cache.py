"""The cache: where each project stands, kept in Redis or Valkey, looked up there before the database.

Cache-aside, with a generation for each project: whoever changes a project's tasks gives it a new one
after the commit, and a copy counts only under the generation that was there before the database was
read. So a slow reader cannot put back what a writer has just made wrong. Without a server TaskFlow
answers from the database; invalidations that could not be made are owed, and made before the next use.
"""

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from datetime import date
from threading import Lock
from typing import Any, Final
from uuid import uuid4

import redis
from redis.asyncio import BlockingConnectionPool as AwaitedPool
from redis.asyncio import Redis as AwaitedRedis
from redis.asyncio.retry import Retry as AwaitedRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from taskflow.data.models import TaskStatus
from taskflow.data.repo import Progress
from taskflow.settings import OFF, Settings

logger = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 0.5
ANSWER_SECONDS: Final = 1.0
REST_SECONDS: Final = 1.0  # a server that failed is left alone for so long
CONNECTIONS: Final = 32
CONNECTION_WAIT_SECONDS: Final = 10.0
GENERATION: Final = "generation"
PROGRESS: Final = "progress"


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a look: `progress` if there was a valid copy. `store` wants it back."""

    project_id: int
    today: date
    progress: Progress | None = None
    generation: str | None = None
    storable: bool = False


class Cache:
    """Copies of projects' numbers. `look` and `store` are for coroutines, invalidation also for threads.

    `connect` must come first; until then, and when the setting says `off`, nothing is kept.
    """

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.cache_seconds
        self.state = "off" if settings.redis_url == OFF else "not connected"
        # Several TaskFlows may share a server; their databases tell them apart.
        self._prefix = f"taskflow:{hashlib.sha256(settings.database_url.encode()).hexdigest()[:12]}"
        self._awaited: AwaitedRedis | None = None
        self._threaded: redis.Redis | None = None
        self._lock = Lock()
        self._owed: set[int] = set()
        self._resting_until = 0.0

    async def connect(self, url: str) -> None:
        """Use the server at `url`; one that cannot be reached is a warning, and tried again later."""
        times = {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": ANSWER_SECONDS}
        # One more attempt, at once: a pooled connection may have died with a server that is back.
        awaited_pool = AwaitedPool.from_url(
            url,
            decode_responses=True,
            max_connections=CONNECTIONS,
            timeout=CONNECTION_WAIT_SECONDS,
            retry=AwaitedRetry(NoBackoff(), 1),
            **times,
        )
        self._awaited = AwaitedRedis(connection_pool=awaited_pool)
        self._threaded = redis.Redis.from_url(
            url, decode_responses=True, retry=Retry(NoBackoff(), 1), **times
        )
        await self.probe()

    async def close(self) -> None:
        """Close every connection; afterwards nothing is kept."""
        awaited, threaded, self._awaited, self._threaded = self._awaited, self._threaded, None, None
        if threaded is not None:
            threaded.close()
        if awaited is not None:
            await awaited.aclose()

    async def probe(self) -> str:
        """`ok`, `off`, or why the cache is degraded, found out by asking the server."""
        if self._awaited is not None:
            try:
                await self._awaited.ping()
            except (RedisError, OSError) as error:
                self._failed(error)
            else:
                self._worked()
        return self.state

    def degrade(self, reason: str) -> None:
        """Do without a server because of `reason`; said once."""
        if not self.state.startswith("degraded"):
            logger.warning("TaskFlow runs without its cache and answers from the database: %s", reason)
        self.state = f"degraded: {reason}"

    async def look(self, project_id: int, today: date) -> Found:
        """A copy of a project's numbers if there is a valid one.

        Look before the transaction begins in which they would be computed. Otherwise a change could be
        committed after its snapshot and invalidated before the look, and old numbers be kept as new.
        """
        if self._awaited is None or not await self._settle():
            return Found(project_id, today)
        try:
            # Strings: the pool decodes answers, which the client's types do not know.
            answer: list[Any] = await self._awaited.hmget(self._key(project_id), GENERATION, PROGRESS)
        except (RedisError, OSError) as error:
            self._failed(error)
            return Found(project_id, today)
        self._worked()
        generation, stored = answer
        progress = _decoded(stored, generation, today) if stored else None
        return Found(project_id, today, progress, generation, storable=True)

    async def store(self, found: Found, progress: Progress) -> None:
        """Keep what was computed after `found` came back without a copy."""
        if self._awaited is None or not found.storable or not await self._settle():
            return
        key = self._key(found.project_id)
        try:
            async with self._awaited.pipeline(transaction=True) as pipeline:
                pipeline.hset(key, PROGRESS, _encoded(progress, found.generation, found.today))
                pipeline.expire(key, self._seconds)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            self._failed(error)

    async def forget(self, projects: set[int]) -> None:
        """Make the copies of these projects invalid, for coroutines; call it after the commit."""
        if self._awaited is None:
            return
        self._owe(projects)
        await self._settle()

    def forget_in_thread(self, projects: set[int]) -> None:
        """The same for threads."""
        if self._threaded is None:
            return
        self._owe(projects)
        owed = self._take_owed()
        if not owed:
            return
        try:
            with self._threaded.pipeline(transaction=True) as pipeline:
                self._renew(pipeline, owed)
                pipeline.execute()
        except (RedisError, OSError) as error:
            self._owe(owed)
            self._failed(error)

    async def _settle(self) -> bool:
        """Make the invalidations that are owed; False while the server is left alone or fails."""
        if self._resting_until > time.monotonic():
            return False
        owed = self._take_owed()
        if not owed:
            return True
        assert self._awaited is not None
        try:
            async with self._awaited.pipeline(transaction=True) as pipeline:
                self._renew(pipeline, owed)
                await pipeline.execute()
        except BaseException as error:
            self._owe(owed)
            if isinstance(error, (RedisError, OSError)):
                self._failed(error)
                return False
            raise
        return True

    def _renew(self, pipeline: Any, projects: set[int]) -> None:
        for project_id in projects:
            key = self._key(project_id)
            pipeline.hset(key, GENERATION, uuid4().hex)
            pipeline.hdel(key, PROGRESS)
            pipeline.expire(key, self._seconds)

    def _key(self, project_id: int) -> str:
        return f"{self._prefix}:project:{project_id}"

    def _owe(self, projects: set[int]) -> None:
        with self._lock:
            self._owed |= projects

    def _take_owed(self) -> set[int]:
        with self._lock:
            if self._resting_until > time.monotonic():
                return set()
            owed, self._owed = self._owed, set()
            return owed

    def _failed(self, error: Exception) -> None:
        self._resting_until = time.monotonic() + REST_SECONDS
        self.degrade(f"{type(error).__name__}: {error}")

    def _worked(self) -> None:
        if self.state.startswith("degraded"):
            logger.warning("TaskFlow's cache is back")
        self.state = "ok"


def _encoded(progress: Progress, generation: str | None, today: date) -> str:
    return json.dumps([generation, today.isoformat(), progress.by_status, progress.overdue])


def _decoded(stored: str, generation: str | None, today: date) -> Progress | None:
    """The copy, unless it is of another generation or day, or nothing that we wrote."""
    try:
        its_generation, its_day, by_status, overdue = json.loads(stored)
        if (its_generation, its_day) != (generation, today.isoformat()):
            return None
        return Progress({status: int(by_status[status]) for status in TaskStatus}, int(overdue))
    except (ValueError, TypeError, KeyError):
        return None
