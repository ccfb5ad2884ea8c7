"""Redis commands against a real Valkey: names and peers, retries of the client, no keys and no values."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import valkey
import valkey.asyncio
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from services import unused_port

import pyscope
from pyscope import probes
from pyscope.analysis import external
from pyscope.analysis.ranking import FAILS, MAY_FAIL, MENDED, SLOW, Ranked
from pyscope.findings import ExternalCall
from pyscope.trace import Trace
from tests.integration.endpoints import DeafServer
from tests.integration.servers import Valkey, valkey_server

Calls = Callable[..., list[ExternalCall]]
Record = Callable[..., Trace]
Said = Callable[..., list[Ranked]]
LIBRARIES = [redis, valkey]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey_server(tmp_path_factory.mktemp("valkey")) as running:
        yield running


def client_of(library: Any, port: int, **options: Any) -> Any:
    kind = library.Redis if library.__name__.startswith("redis") else library.Valkey
    return kind(host="127.0.0.1", port=port, **options)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_command_is_a_call_with_its_name_and_peer(calls: Calls, server: Valkey, library: Any) -> None:
    results: list[Any] = []

    def body() -> None:
        with client_of(library, server.port) as client:
            results.append(client.set("key", "value"))
            results.append(client.get("key"))
            results.append(client.config_get("maxmemory")["maxmemory"])

    found = calls(body)
    assert results == [True, b"value", "0"]
    assert [(call.service, call.operation, call.peer, call.outcome, call.retries) for call in found] == [
        ("redis", name, f"127.0.0.1:{server.port}", "succeeded", 0) for name in ("SET", "GET", "CONFIG GET")
    ]
    assert found[0].call_site.file == __file__
    assert found[0].client == library.__name__


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_asynchronous_command_is_a_call(calls: Calls, server: Valkey, library: Any) -> None:
    async def run() -> list[Any]:
        async with client_of(library.asyncio, server.port) as client:
            await client.set("counter", 5)
            return list(await asyncio.gather(*(client.incr("counter") for _ in range(3))))

    results: list[Any] = []
    found = calls(lambda: results.append(sorted(asyncio.run(run()))))
    assert results == [[6, 7, 8]]
    assert [(call.operation, call.outcome, call.retries) for call in found] == [
        ("SET", "succeeded", 0),
        *[("INCRBY", "succeeded", 0)] * 3,
    ]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_pipeline_is_one_call(calls: Calls, server: Valkey, library: Any) -> None:
    async def run() -> None:
        async with client_of(library.asyncio, server.port) as client:
            pipeline = client.pipeline(transaction=False)
            assert await pipeline.set("a", 1).get("a").execute() == [True, b"1"]

    def body() -> None:
        with client_of(library, server.port) as client:
            assert client.pipeline().set("a", 1).get("a").execute() == [True, b"1"]
            assert client.pipeline().execute() == []
            with client.pipeline() as watching:
                watching.watch("a")
                assert watching.get("a") == b"1"
                watching.multi()
                watching.incr("a")
                assert watching.execute() == [2]
        asyncio.run(run())

    assert [call.operation for call in calls(body)] == ["MULTI", "WATCH", "GET", "MULTI", "PIPELINE"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_command_that_the_server_refuses_has_failed(calls: Calls, server: Valkey, library: Any) -> None:
    def body() -> None:
        with client_of(library, server.port) as client:
            client.set("text", "secret")
            with pytest.raises(library.ResponseError):
                client.lpush("text", "secret")

    _, call = calls(body)
    assert (call.operation, call.outcome, call.retries) == ("LPUSH", "failed", 0)
    assert call.attempts[0].error == f"{library.__name__}.ResponseError"


def test_retries_of_the_client_that_cannot_connect_are_attempts(calls: Calls) -> None:
    def body() -> None:
        client = client_of(redis, unused_port(), retry=Retry(ConstantBackoff(0.01), 3))
        with client, pytest.raises(redis.ConnectionError):
            client.get("key")

    [call] = calls(body)
    assert (call.operation, call.retries, call.outcome, call.timed_out) == ("GET", 3, "failed", False)
    assert {attempt.error for attempt in call.attempts} == {"redis.ConnectionError: Connection refused"}
    assert all(attempt.backoff_ns > 0.009e9 for attempt in call.attempts[1:])
    assert call.repeated_by == "redis"


def test_retries_of_the_asynchronous_client_that_gets_no_answer_are_timeouts(calls: Calls) -> None:
    async def run(port: int) -> None:
        retry = redis.asyncio.retry.Retry(ConstantBackoff(0.01), 3)
        options = {"retry": retry, "socket_timeout": 0.1, "socket_connect_timeout": 0.1}
        async with client_of(redis.asyncio, port, **options) as client:
            with pytest.raises(redis.TimeoutError):
                await client.get("key")

    def body() -> None:
        with DeafServer() as deaf:
            asyncio.run(run(deaf.port))

    [call] = calls(body)
    assert (call.retries, call.outcome, call.timed_out) == (3, "timed_out", True)
    assert call.attempts[0].timeout_ns == 0.1e9


def test_a_server_that_is_away_for_a_while(calls: Calls, tmp_path: Path) -> None:
    def body() -> None:
        with valkey_server(tmp_path) as server:
            retry = Retry(ConstantBackoff(0.05), 400)
            with client_of(redis, server.port, retry=retry) as client:
                client.set("key", "value")
                server.kill()
                again = threading.Timer(0.2, server.start)
                again.start()
                assert client.get("key") is None
                again.join()

    found = [call for call in calls(body) if call.operation == "GET"]
    assert [(call.outcome, call.retries > 0) for call in found] == [("succeeded", True)]


def test_a_cancelled_command_is_cancelled(calls: Calls, server: Valkey) -> None:
    async def run() -> None:
        async with client_of(redis.asyncio, server.port) as client:
            task = asyncio.create_task(client.blpop("nothing", 0))
            while not (await client.info("clients"))["blocked_clients"]:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    [call] = [call for call in calls(lambda: asyncio.run(run())) if call.operation == "BLPOP"]
    assert (call.outcome, call.timed_out) == ("cancelled", False)


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_keys_values_and_passwords_are_recorded(tmp_path: Path, server: Valkey, library: Any) -> None:
    path = tmp_path / "run.pyscope"
    url = f"redis://127.0.0.1:{server.port}/0"
    with pyscope.record(path, modules=[__name__], probes=["redis"]):
        with library.from_url(url) as client:
            client.set("secret-key", "secret-value")
            client.pipeline().set("secret-key", "secret-value").execute()
            client.execute_command("eval", "return 'secret-script'", 0)
            with pytest.raises(library.ResponseError):
                client.execute_command("SECRET-command secret-argument")
        refused = library.RedisError if library is redis else library.ValkeyError
        client = library.from_url(f"redis://secret-user:secret-word@127.0.0.1:{server.port}/0")
        with client, contextlib.suppress(refused):
            client.get("secret-key")
    found = external.find(pyscope.load(path))
    assert [call.operation for call in found] == ["SET", "MULTI", "EVAL", "COMMAND", "GET"]
    assert b"secret" not in path.read_bytes().lower()


def test_the_clients_are_as_they_were_after_the_probe_is_gone() -> None:
    owners = [
        owner
        for library in (redis, valkey)
        for owner in (
            getattr(library.client, library.__name__.capitalize()),
            getattr(library.asyncio.client, library.__name__.capitalize()),
            library.client.Pipeline,
            library.asyncio.client.Pipeline,
            library.retry.Retry,
            library.asyncio.retry.Retry,
        )
    ]
    before = [dict(vars(owner)) for owner in owners]
    held = probes.acquire(["redis"])
    assert all(dict(vars(owner)) != old for owner, old in zip(owners, before, strict=True))
    probes.release(held)
    for owner, old in zip(owners, before, strict=True):
        new = dict(vars(owner))
        assert old.keys() == new.keys()
        assert all(old[name] is new[name] for name in old)


# --- what is said of errors ------------------------------------------------------------------------


@pytest.fixture
def said(record: Record) -> Callable[..., list[Ranked]]:
    """`said(body)` runs `body` recorded and returns the findings of external calls, worst first."""
    return lambda body: [row for row in pyscope.diagnose(record(body)) if row.kind == "external_call"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_script_that_the_server_does_not_have_yet_is_no_finding(
    said: Said, server: Valkey, library: Any
) -> None:
    async def asynchronously() -> None:
        async with client_of(library.asyncio, server.port) as client:
            await client.script_flush()
            async with client.lock("the lock", timeout=3):
                pass

    def body() -> None:
        with client_of(library, server.port) as client:
            client.script_flush()
            assert client.register_script("return 1")() == 1
            client.script_flush()
            with client.lock("the lock", timeout=3):
                pass
        asyncio.run(asynchronously())

    assert said(body) == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_other_writers_of_a_watched_key_are_named_as_such(said: Said, server: Valkey, library: Any) -> None:
    def body() -> None:
        with client_of(library, server.port) as client, client.pipeline() as pipeline:
            pipeline.watch("key")
            client.set("key", 1)
            pipeline.multi()
            pipeline.set("key", 2)
            with pytest.raises(library.WatchError):
                pipeline.execute()

    [row] = said(body)
    assert row.what == f"redis MULTI 127.0.0.1:{server.port} met another writer"
    assert row.why == f"1 call; {library.__name__}.WatchError"
    assert "watched key" in row.change
    assert row.severity == MAY_FAIL


def test_a_transaction_that_the_client_repeats_is_mended(said: Said, server: Valkey) -> None:
    def body() -> None:
        with client_of(redis, server.port) as client:
            left = [1, 2]

            def bump(pipeline: Any) -> None:
                if left:
                    client.set("key", left.pop())
                pipeline.multi()
                pipeline.set("key", 3)

            client.transaction(bump, "key")

    [row] = said(body)
    assert row.severity == MENDED
    assert row.why == "1 call, 2 retries; redis.WatchError"
    assert "watched key" in row.change


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_command_that_the_server_refuses_is_ranked_below_an_outage(
    said: Said, server: Valkey, library: Any
) -> None:
    def body() -> None:
        with client_of(library, server.port) as client:
            client.set("text", "secret")
            with pytest.raises(library.ResponseError):
                client.lpush("text", "secret")
        with client_of(library, unused_port()) as client, pytest.raises(library.ConnectionError):
            client.get("key")

    outage, refused = said(body)
    assert outage.severity == FAILS
    assert "service is away" in outage.change
    assert refused.what.endswith("refused")
    assert refused.why == f"1 call; {library.__name__}.ResponseError"
    assert "look at what is sent" in refused.change
    assert refused.severity < SLOW  # as a blocked event loop is


class Stop(Exception):
    """What a worker's handler of a signal raises, to end it."""


def test_a_worker_that_is_told_to_end_while_it_waits_for_work_is_no_finding(
    said: Said, server: Valkey
) -> None:
    async def consume() -> None:
        async with client_of(redis.asyncio, server.port) as client:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.blpop("nothing", 0), 0.2)

    def stop(*_: Any) -> None:
        raise Stop

    def body() -> None:
        asyncio.run(consume())
        before = signal.signal(signal.SIGALRM, stop)
        try:
            with client_of(redis, server.port) as client, contextlib.suppress(Stop):
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                client.blmove("nothing", "nowhere", 0)
        finally:
            signal.signal(signal.SIGALRM, before)

    assert said(body) == []


def test_an_answer_that_nobody_waits_for_may_be_one(said: Said) -> None:
    async def ask(port: int) -> None:
        async with client_of(redis.asyncio, port) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.get("key"), 0.1)

    def body() -> None:
        with DeafServer() as deaf:
            asyncio.run(ask(deaf.port))

    [row] = said(body)
    assert row.severity == MAY_FAIL
    assert row.what.endswith("cancelled")
    assert "did not wait" in row.change
