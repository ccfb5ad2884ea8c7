"""Redis: commands and pipelines of redis-py and of valkey-py, its fork; sync and async. No keys, no values.

One command is one call; the client's own retries, of connecting too, are its attempts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import Any, ClassVar

from pyscope.probes.addresses import peer
from pyscope.probes.attempts import SILENT, Attempt, begin, fingerprint
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches

__all__ = ["RedisProbe", "patch"]

# One word; two of the commands that have subcommands. What comes behind may be an argument.
_COMMAND = re.compile(
    r"[A-Z][A-Z0-9._-]{0,30}|(?:ACL|CLIENT|CLUSTER|COMMAND|CONFIG|FUNCTION|LATENCY|MEMORY|MODULE|OBJECT|PUBSUB|SCRIPT"
    r"|SLOWLOG|XGROUP|XINFO) [A-Z-]{1,20}",
    re.ASCII,
)
_commands: dict[str, str] = {}
_MOST_COMMANDS = 1024


class RedisProbe(ClientProbe):
    """Watches the Redis clients that the program imports."""

    name = "redis"
    extra = "taskflow"
    adapters: ClassVar = {"redis": "pyscope.probes.redis", "valkey": "pyscope.probes.redis"}


class _Command:
    """A command under way, with all its attempts."""

    __slots__ = ("_blocking", "_chain", "_client", "_name", "_peer", "_same", "_timeout", "attempt")

    def __init__(
        self, name: str, where: str, client: str, blocking: bool, timeout: float | None, same: int
    ) -> None:
        self._name = name
        self._peer = where
        self._client = client
        self._blocking = blocking
        self._timeout = timeout
        self._same = same
        self._chain = 0
        self._begin()
        self._chain = self.attempt.id

    def _begin(self) -> None:
        self.attempt: Attempt = begin(
            "redis",
            self._name,
            self._peer,
            self._client,
            chain=self._chain,
            blocking=self._blocking,
            timeout=self._timeout,
            same=self._same,
        )

    def try_again(self) -> None:
        """Begins the next attempt if the one before has ended. Never raises: the first has begun in the same way."""
        try:
            if self.attempt.ended and self.attempt is not SILENT:
                self._begin()
        except Exception:
            fault("redis")


_current: ContextVar[_Command | None] = ContextVar("pyscope_redis_command", default=None)


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches execute_command of the clients, execute of the pipelines, and call_with_retry."""
    import importlib

    name = library.__name__
    client = importlib.import_module(f"{name}.client")
    async_client = importlib.import_module(f"{name}.asyncio.client")
    retry = importlib.import_module(f"{name}.retry")
    async_retry = importlib.import_module(f"{name}.asyncio.retry")
    class_name = name.capitalize()

    for method, of_pipeline in (("execute_command", False), ("immediate_execute_command", True)):
        owner = "Pipeline" if of_pipeline else class_name
        patches.replace(getattr(client, owner), method, _blocking(patches, name, _of_command))
        patches.replace(getattr(async_client, owner), method, _awaiting(patches, name, _of_command))
    patches.replace(client.Pipeline, "execute", _blocking(patches, name, _of_pipeline))
    patches.replace(async_client.Pipeline, "execute", _awaiting(patches, name, _of_pipeline))
    patches.replace(retry.Retry, "call_with_retry", _retrying)
    patches.replace(async_retry.Retry, "call_with_retry", _retrying_async)


def _blocking(
    patches: Patches, client: str, operation: Callable[[Any, Any], tuple[str, int]]
) -> Callable[[Any], Any]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def execute(self: Any, *args: Any, **options: Any) -> Any:
            command = _begin(self, client, operation, args, True) if patches.on else None
            if command is None:
                return original(self, *args, **options)
            token = _current.set(command)
            try:
                result = original(self, *args, **options)
            except BaseException as error:
                command.attempt.failed(error)
                raise
            finally:
                _current.reset(token)
            command.attempt.succeeded()
            return result

        return execute

    return make


def _awaiting(
    patches: Patches, client: str, operation: Callable[[Any, Any], tuple[str, int]]
) -> Callable[[Any], Any]:
    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def execute(self: Any, *args: Any, **options: Any) -> Any:
            command = _begin(self, client, operation, args, False) if patches.on else None
            if command is None:
                return await original(self, *args, **options)
            before = _current.get()
            _current.set(command)
            try:
                result = await original(self, *args, **options)
            except BaseException as error:
                command.attempt.failed(error)
                raise
            finally:
                _current.set(before)
            command.attempt.succeeded()
            return result

        return execute

    return make


def _begin(
    owner: Any, client: str, operation: Callable[[Any, Any], tuple[str, int]], args: Any, blocking: bool
) -> _Command | None:
    try:
        settings = owner.connection_pool.connection_kwargs
        name, same = operation(owner, args)
        if not name:
            return None
        if "path" in settings and "host" not in settings:
            where = "unix"
        else:
            where = peer(settings.get("host", "localhost"), settings.get("port", 6379))
        return _Command(name, where, client, blocking, settings.get("socket_timeout"), same)
    except Exception:
        fault("redis")
        return None


def _of_command(owner: Any, args: Any) -> tuple[str, int]:
    command = args[0]
    if type(command) is not str:
        return "COMMAND", 0
    known = _commands.get(command)
    if known is None:
        upper = command.upper()
        known = upper if _COMMAND.fullmatch(upper) else "COMMAND"
        if len(_commands) < _MOST_COMMANDS:
            _commands[command] = known
    return known, fingerprint(command, *args[1:2])


def _of_pipeline(owner: Any, args: Any) -> tuple[str, int]:
    if not owner.command_stack and not owner.watching:
        return "", 0  # nothing will be sent
    own = vars(owner)
    transaction = own.get("is_transaction", own.get("transaction")) or owner.explicit_transaction
    return ("MULTI" if transaction else "PIPELINE"), 0


def _retrying(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call_with_retry(self: Any, do: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        command = _current.get()
        if command is None:
            return original(self, do, *args, **kwargs)

        def attempt() -> Any:
            command.try_again()
            try:
                return do()
            except BaseException as error:
                command.attempt.failed(error)
                raise

        return original(self, attempt, *args, **kwargs)

    return call_with_retry


def _retrying_async(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def call_with_retry(self: Any, do: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        command = _current.get()
        if command is None:
            return await original(self, do, *args, **kwargs)

        async def attempt() -> Any:
            command.try_again()
            try:
                return await do()
            except BaseException as error:
                command.attempt.failed(error)
                raise

        return await original(self, attempt, *args, **kwargs)

    return call_with_retry
