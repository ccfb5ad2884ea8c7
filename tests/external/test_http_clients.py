"""Every HTTP client's requests are seen, and none behaves otherwise than without the probe."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
import urllib3
from services import TLS, Answer, Service, unused_port

import pyscope
from pyscope import emitter, probes
from pyscope.analysis import external
from pyscope.analysis.ranking import FAILS, MAY_FAIL
from pyscope.events.external import EXTERNAL_BEGIN
from pyscope.findings import ExternalCall
from pyscope.probes.addresses import operation, peer, template
from pyscope.trace import Trace

SOON = 0.3  # seconds until a client gives up
Calls = Callable[..., list[ExternalCall]]


def by_httpx(url: str, timeout: float = 30) -> tuple[int, bytes]:
    response = httpx.get(url, timeout=timeout, verify=TLS)
    return response.status_code, response.content


def by_httpx2(url: str, timeout: float = 30) -> tuple[int, bytes]:
    response = httpx2.get(url, timeout=timeout, verify=TLS)
    return response.status_code, response.content


def by_async_httpx(url: str, timeout: float = 30) -> tuple[int, bytes]:
    async def get() -> tuple[int, bytes]:
        async with httpx.AsyncClient(verify=TLS, timeout=timeout) as client:
            response = await client.get(url)
            return response.status_code, response.content

    return asyncio.run(get())


def by_async_httpx2(url: str, timeout: float = 30) -> tuple[int, bytes]:
    async def get() -> tuple[int, bytes]:
        async with httpx2.AsyncClient(verify=TLS, timeout=timeout) as client:
            response = await client.get(url)
            return response.status_code, response.content

    return asyncio.run(get())


def by_aiohttp(url: str, timeout: float = 30) -> tuple[int, bytes]:
    async def get() -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(timeout)) as session,
            session.get(url, ssl=TLS, allow_redirects=False) as response,
        ):
            return response.status, await response.read()

    return asyncio.run(get())


def by_requests(url: str, timeout: float = 30) -> tuple[int, bytes]:
    with requests.Session() as session:
        response = session.get(url, timeout=timeout, allow_redirects=False)
        return response.status_code, response.content


def by_urllib3(url: str, timeout: float = 30) -> tuple[int, bytes]:
    with urllib3.PoolManager() as pool:
        response = pool.request("GET", url, timeout=timeout, retries=False)
        return response.status, response.data


def by_urllib(url: str, timeout: float = 30) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


CLIENTS = [
    by_httpx,
    by_httpx2,
    by_async_httpx,
    by_async_httpx2,
    by_aiohttp,
    by_requests,
    by_urllib3,
    by_urllib,
]
READERS = CLIENTS[:-1]  # those whose reading of the body is watched


@pytest.mark.parametrize("client", CLIENTS)
def test_a_request_is_a_call_with_operation_peer_status_and_place(
    calls: Calls, service: Service, client: Any
) -> None:
    results: list[Any] = []
    [call] = calls(lambda: results.append(client(f"{service.url}/users/42/tasks?page=2")))
    assert results == [(200, b"ok")]
    assert (call.service, call.operation, call.peer) == ("http", "GET /users/{}/tasks", service.peer)
    assert (call.outcome, call.retries, call.timed_out, call.repeated_by) == ("succeeded", 0, False, "")
    [attempt] = call.attempts
    assert (attempt.outcome, attempt.status, attempt.error, attempt.backoff_ns) == ("succeeded", 200, "", 0)
    assert attempt.timeout_ns == 30e9
    assert attempt.duration_ns > 0
    assert (call.call_site.file, call.call_site.function.split(".")[0]) == (__file__, client.__name__)


@pytest.mark.parametrize("client", CLIENTS)
def test_an_answer_that_refuses_is_a_failed_call_without_an_exception(
    calls: Calls, service: Service, client: Any
) -> None:
    service.answers = [Answer(503, b"later"), Answer(404, b"gone")]
    results: list[Any] = []
    found = calls(lambda: results.extend(client(f"{service.url}/{name}") for name in "ab"))
    assert results == [(503, b"later"), (404, b"gone")]
    assert [(call.outcome, call.attempts[0].error) for call in found] == [
        ("failed", "HTTP 503"),
        ("failed", "HTTP 404"),
    ]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_refused_connection_says_so(calls: Calls, client: Any) -> None:
    errors: list[Exception] = []

    def body() -> None:
        try:
            client(f"http://127.0.0.1:{unused_port()}/")
        except Exception as error:
            errors.append(error)

    [call] = calls(body)
    assert len(errors) == 1
    assert (call.outcome, call.timed_out) == ("failed", False)
    assert call.attempts[0].error.endswith(": Connection refused")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_never_answers_is_a_timeout(calls: Calls, service: Service, client: Any) -> None:
    service.answers = [Answer(hang="head")]

    def body() -> None:
        with pytest.raises(Exception) as raised:
            client(service.url, timeout=SOON)
        assert "time" in repr(raised.value).lower()

    [call] = calls(body)
    assert (call.outcome, call.timed_out, call.attempts[0].status) == ("timed_out", True, 0)
    assert call.attempts[0].duration_ns >= SOON * 1e9 * 0.9


@pytest.mark.parametrize("client", READERS)
def test_a_body_that_stops_in_the_middle_is_a_timeout_of_an_answered_request(
    calls: Calls, service: Service, client: Any
) -> None:
    service.answers = [Answer(body=b"never whole", hang="body")]

    def body() -> None:
        with pytest.raises(Exception) as raised:
            client(service.url, timeout=SOON)
        assert "time" in repr(raised.value).lower()

    [call] = calls(body)
    assert (call.outcome, call.timed_out) == ("timed_out", True)
    # urllib3 reads the body before it hands out the answer.
    assert call.attempts[0].status == (0 if client is by_urllib3 else 200)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_streamed_body_is_part_of_its_attempt(calls: Calls, service: Service, library: Any) -> None:
    service.answers = [Answer(body=b"x" * 100_000)]
    chunks: list[bytes] = []

    def body() -> None:
        with library.stream("GET", service.url, verify=TLS) as response:
            for chunk in response.iter_bytes(1000):
                chunks.append(chunk)
                time.sleep(0.001)

    [call] = calls(body)
    assert b"".join(chunks) == b"x" * 100_000
    assert call.outcome == "succeeded"
    assert call.attempts[0].duration_ns >= 99 * 1e6


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_streamed_body_that_nobody_wants_to_the_end_is_no_failure(
    calls: Calls, service: Service, library: Any
) -> None:
    service.answers = [Answer(body=b"x" * 100_000)]

    async def leave_early() -> None:
        async with library.AsyncClient(verify=TLS) as client, client.stream("GET", service.url) as response:
            async for _ in response.aiter_bytes(10):
                break

    [call] = calls(lambda: asyncio.run(leave_early()))
    assert (call.outcome, call.attempts[0].status) == ("succeeded", 200)


def test_a_requests_body_that_is_streamed_is_part_of_its_attempt(calls: Calls, service: Service) -> None:
    service.answers = [Answer(body=b"x" * 100_000), Answer(body=b"x" * 100_000)]

    def body() -> None:
        with requests.get(service.url, stream=True) as response:
            assert len(next(response.iter_content(10))) == 10
            time.sleep(0.05)
        response = requests.get(service.url, stream=True)
        assert len(response.content) == 100_000

    cut, whole = calls(body)
    assert (cut.outcome, whole.outcome) == ("succeeded", "succeeded")
    assert cut.attempts[0].duration_ns >= 0.05e9


@pytest.mark.parametrize("library", [httpx, httpx2, requests])
def test_a_redirect_is_a_second_call_and_no_retry(calls: Calls, service: Service, library: Any) -> None:
    service.answers = [Answer(307, to="/new")]
    options = {} if library is requests else {"follow_redirects": True}
    results: list[Any] = []
    found = calls(lambda: results.append(library.get(f"{service.url}/old", **options)))
    assert results[0].status_code == 200
    assert [(call.operation, call.retries, call.outcome) for call in found] == [
        ("GET /old", 0, "succeeded"),
        ("GET /new", 0, "succeeded"),
    ]


def test_a_redirect_that_urllib3_follows_is_no_retry(calls: Calls, service: Service) -> None:
    service.answers = [Answer(307, to="/new")]
    pool = urllib3.HTTPConnectionPool(service.peer.partition(":")[0], int(service.peer.partition(":")[2]))
    found = calls(lambda: pool.urlopen("GET", "/old"))
    pool.close()
    assert [(call.operation, call.retries, call.attempts[0].status) for call in found] == [
        ("GET /old", 0, 307),
        ("GET /new", 0, 200),
    ]


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_cancelled_request_is_cancelled_and_the_cancellation_passes(
    calls: Calls, service: Service, library: Any
) -> None:
    service.answers = [Answer(hang="head")]

    async def cancel() -> None:
        async with library.AsyncClient(verify=TLS) as client:
            task = asyncio.create_task(client.get(service.url))
            while not service.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    [call] = calls(lambda: asyncio.run(cancel()))
    assert (call.outcome, call.timed_out) == ("cancelled", False)


def test_a_request_that_trio_cancels_has_not_failed(calls: Calls, service: Service) -> None:
    trio = pytest.importorskip("trio")
    service.answers = [Answer(hang="head")]

    async def cancel() -> None:
        async with httpx.AsyncClient(verify=TLS) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.get, service.url)
            while not service.requests:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    [call] = calls(lambda: trio.run(cancel))
    assert call.outcome == "cancelled"


def test_a_redirect_that_aiohttp_follows_is_part_of_its_call(calls: Calls, service: Service) -> None:
    service.answers = [Answer(307, to="/new")]

    async def get() -> bytes:
        async with aiohttp.ClientSession(service.url) as session, session.get("/old") as response:
            return await response.read()

    [call] = calls(lambda: asyncio.run(get()))
    assert (call.operation, call.retries, call.attempts[0].status) == ("GET /old", 0, 200)


def test_aiohttp_tells_of_a_cancellation_and_of_an_answer_that_nobody_reads(
    calls: Calls, service: Service
) -> None:
    service.answers = [Answer(200, b"unread"), Answer(hang="head")]

    async def get() -> None:
        async with aiohttp.ClientSession(service.url) as session:
            async with session.get("/unread") as response:
                assert response.status == 200
            task = asyncio.create_task(session.get("/cancelled").__aenter__())
            while len(service.requests) < 2:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    found = calls(lambda: asyncio.run(get()))
    assert [(call.operation, call.outcome) for call in found] == [
        ("GET /unread", "succeeded"),
        ("GET /cancelled", "cancelled"),
    ]


async def drips(read: Callable[[aiohttp.ClientSession, aiohttp.ClientResponse], Awaitable[object]]) -> None:
    """An answer whose body comes in five pieces, 40 ms apart, and what `read` does with it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0.04)
            writer.write(b"x")
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(answer, "127.0.0.1", 0) as server,
        aiohttp.ClientSession() as session,
    ):
        await read(session, await session.get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
        await asyncio.sleep(0.3)


def test_a_body_that_aiohttp_streams_is_part_of_its_attempt(calls: Calls) -> None:
    async def to_its_end(_: object, response: aiohttp.ClientResponse) -> None:
        assert b"".join([chunk async for chunk in response.content.iter_chunked(2)]) == b"xxxxx"

    async def to_the_second_piece(_: object, response: aiohttp.ClientResponse) -> None:
        async with response:
            await response.content.readexactly(2)

    async def of_a_closed_session(session: aiohttp.ClientSession, response: aiohttp.ClientResponse) -> None:
        await response.content.readexactly(2)
        await session.close()

    async def forgotten(_: object, response: aiohttp.ClientResponse) -> None:
        await response.content.readexactly(2)

    def body() -> None:
        for read in (to_its_end, to_the_second_piece, of_a_closed_session, forgotten):
            asyncio.run(drips(read))
            gc.collect()

    found = calls(body)
    assert [(call.outcome, call.attempts[0].status) for call in found] == [("succeeded", 200)] * 4
    whole, left_early, _, read_by_aiohttp = (call.attempts[0].duration_ns / 1e6 for call in found)
    assert 190 <= whole < 400
    assert 70 <= left_early < 190
    assert 190 <= read_by_aiohttp < 400


def test_a_stream_of_aiohttp_that_stops_in_the_middle_says_why(calls: Calls, service: Service) -> None:
    service.answers = [Answer(body=b"never whole", hang="body")] * 3

    async def read(path: str, **options: Any) -> None:
        async with (
            aiohttp.ClientSession(service.url, timeout=aiohttp.ClientTimeout(**options)) as session,
            session.get(path) as response,
        ):
            async for _ in response.content.iter_any():
                pass

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await read("/total", total=SOON)
        with pytest.raises(TimeoutError):
            await read("/socket", sock_read=SOON)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read("/outer"), SOON)

    found = calls(lambda: asyncio.run(main()))
    assert [(call.outcome, call.timed_out) for call in found] == [
        ("timed_out", True),
        ("timed_out", True),
        ("cancelled", False),
    ]


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_what_is_answered_in_the_same_process_is_no_external_call(calls: Calls, library: Any) -> None:
    def body() -> None:
        transport = library.MockTransport(lambda request: library.Response(200, text="here"))
        with library.Client(transport=transport) as client:
            assert client.get("http://nowhere.invalid/").text == "here"

    assert calls(body) == []


def test_nothing_secret_is_recorded(tmp_path: Path, service: Service) -> None:
    secret = "hunter2"
    service.answers = [Answer(200, b"hunter2-answer")]
    path = tmp_path / "run.pyscope"
    where = service.url.replace("http://", f"http://user:{secret}@")
    with pyscope.record(path, modules=[__name__], probes=["http"]):
        for library in (httpx, httpx2, requests):
            library.post(
                f"{where}/{secret}8AB99/hook?token={secret}#{secret}",
                headers={"authorization": f"Bearer {secret}", "cookie": secret},
                data={"password": secret},
            )
            with pytest.raises((OSError, httpx.TransportError, httpx2.TransportError)):
                library.get(f"http://x:{secret}@127.0.0.1:{unused_port()}/?token={secret}")
    found = external.find(pyscope.load(path))
    assert [call.operation for call in found] == ["POST /{}/hook", "GET /"] * 3
    assert secret.encode() not in path.read_bytes()


def test_the_libraries_are_as_they_were_after_the_probe_is_gone(service: Service) -> None:
    def watched() -> list[Any]:
        return [
            dict(vars(owner))
            for owner in (
                aiohttp.ClientSession,
                aiohttp.ClientResponse,
                httpx.HTTPTransport,
                httpx.AsyncHTTPTransport,
                httpx2.HTTPTransport,
                httpx2.AsyncHTTPTransport,
                urllib3.connectionpool.HTTPConnectionPool,
                urllib3.util.retry.Retry,
                urllib3.response.HTTPResponse,
                urllib.request.AbstractHTTPHandler,
            )
        ]

    before = watched()
    held = probes.acquire(["http"])
    try:
        assert watched() != before
        kept = httpx.HTTPTransport.handle_request
    finally:
        probes.release(held)
    after = watched()
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        assert all(old[name] is new[name] for name in old)
    with httpx.HTTPTransport() as transport:
        assert kept(transport, httpx.Request("GET", service.url)).status_code == 200


def test_a_patch_that_somebody_laid_over_ours_stays(calls: Calls, service: Service) -> None:
    held = probes.acquire(["http"])
    ours = httpx.HTTPTransport.handle_request
    theirs: list[str] = []

    def handle_request(self: Any, request: Any) -> Any:
        theirs.append(str(request.url))
        return ours(self, request)

    httpx.HTTPTransport.handle_request = handle_request  # type: ignore[method-assign]
    try:
        probes.release(held)
        assert httpx.HTTPTransport.handle_request is handle_request
        [_] = calls(lambda: by_httpx(service.url))  # once, though our first patch is still below theirs
        assert len(theirs) == 1
    finally:
        httpx.HTTPTransport.handle_request = ours.__wrapped__  # type: ignore[method-assign, attr-defined]


@pytest.mark.parametrize("client", [by_httpx2, by_requests])
def test_a_request_that_hung_when_the_program_was_killed_is_open(
    tmp_path: Path, service: Service, client: Any
) -> None:
    service.answers = [Answer(hang="head")]
    path = tmp_path / "killed.pyscope"
    program = f"""if True:
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import pyscope
        from test_http_clients import {client.__name__} as get
        pyscope.start({str(path)!r}, modules=["test_http_clients"], probes=["http"])
        get({service.url!r} + "/slow")
        """
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        deadline = time.monotonic() + 60
        while not service.requests:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    [call] = external.find(pyscope.load(path))
    assert (call.operation, call.outcome, call.attempts[0].outcome) == ("GET /slow", "open", "open")


def test_a_client_that_is_imported_later_is_watched(tmp_path: Path, service: Service) -> None:
    path = tmp_path / "late.pyscope"
    program = f"""if True:
        import sys, pyscope
        with pyscope.record({str(path)!r}, modules=["__main__"], probes=["http"]):
            assert "httpx2" not in sys.modules and "urllib3" not in sys.modules
            import httpx2, urllib3
            httpx2.get({service.url!r})
            urllib3.request("GET", {service.url!r})
        """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert [call.client for call in external.find(pyscope.load(path))] == ["httpx2", "urllib3"]


def test_a_request_object_that_raises_for_the_probe_works_for_the_program(
    calls: Calls, service: Service
) -> None:
    class Hostile(httpx.Request):
        asked = 0

        def __getattribute__(self, name: str) -> Any:
            if sys._getframe(1).f_globals["__name__"].startswith("pyscope."):
                Hostile.asked += 1
                raise RuntimeError("not for you")
            return super().__getattribute__(name)

    def body() -> None:
        with httpx.Client(verify=TLS) as client:
            assert client.send(Hostile("GET", service.url)).status_code == 200

    assert calls(body) == []
    assert Hostile.asked > 0


def test_the_probe_removes_itself_after_many_faults_and_says_so(tmp_path: Path, service: Service) -> None:
    class Hostile(httpx.Request):
        @property
        def extensions(self) -> dict[str, Any]:
            if sys._getframe(1).f_globals["__name__"].startswith("pyscope."):
                raise RuntimeError("not for you")
            return {}

        @extensions.setter
        def extensions(self, value: dict[str, Any]) -> None:
            pass

    original = httpx.HTTPTransport.handle_request
    with (
        pyscope.record(tmp_path / "run", modules=[__name__], probes=["http"]),
        httpx.Client(verify=TLS) as client,
    ):
        with pytest.warns(pyscope.errors.PyScopeWarning, match=r"'http' failed 10 times"):
            statuses = [client.send(Hostile("GET", service.url)).status_code for _ in range(12)]
        assert statuses == [200] * 12
        assert httpx.HTTPTransport.handle_request is original


def test_an_attempt_carries_the_scope_it_began_in(tmp_path: Path, service: Service) -> None:
    token = emitter.scope.set(77)
    try:
        with pyscope.record(tmp_path / "run", modules=[__name__], probes=["http"]):
            by_httpx2(service.url)
    finally:
        emitter.scope.reset(token)
    trace = pyscope.load(tmp_path / "run")
    assert trace.probe_events(EXTERNAL_BEGIN)["scope"].tolist() == [77]
    assert external.find(trace)[0].scope == 77


def test_nothing_is_seen_while_nothing_is_recorded(service: Service) -> None:
    held = probes.acquire(["http"])
    try:
        with contextlib.closing(httpx.Client(verify=TLS)) as client:
            response = client.get(service.url)
        assert type(response.stream).__module__ == "httpx._client"
    finally:
        probes.release(held)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("", "/"),
        ("/", "/"),
        ("/users", "/users"),
        ("/users/42", "/users/{}"),
        ("/v1/oauth2/token", "/v1/oauth2/token"),
        ("/report.pdf?x=1", "/report.pdf"),
        ("/hooks/T024BE7LD/XyZ123abc", "/hooks/{}/{}"),
        ("/0b8f1c52-5d1f-4c3c-9d39-0f3e6c2f6a11/x", "/{}/x"),
        ("/" + "a" * 25, "/{}"),
        ("/Jürgen", "/{}"),
        ("/a//b/", "/a//b/"),
        ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/…"),
        ("/a;sid=1", "/a"),
    ],
)
def test_a_path_is_recorded_without_what_varies(path: str, named: str) -> None:
    assert template(path) == named


def test_peers_are_host_and_port_without_credentials() -> None:
    assert peer("API.example", None, "https") == "api.example:443"
    assert peer("user:secret@api.example", 8080) == "api.example:8080"
    assert peer("::1", 80) == "[::1]:80"
    assert peer("host", None) == "host"
    assert operation("secret token", "/x") == "OTHER /x"


# --- what is said of answers -----------------------------------------------------------------------


def test_a_request_that_is_refused_is_no_outage(record: Callable[..., Trace], service: Service) -> None:
    service.answers = [Answer(404), Answer(503)]

    def body() -> None:
        for path in ("/missing", "/broken"):
            requests.get(service.url + path)

    broken, missing = pyscope.diagnose(record(body))
    assert (broken.severity, missing.severity) == (FAILS, MAY_FAIL)
    assert "service is away" in broken.change
    assert "look at what is sent" in missing.change
    assert (broken.why, missing.why) == ("1 call; HTTP 503", "1 call; HTTP 404")
    assert missing.what.endswith("refused")
