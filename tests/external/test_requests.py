"""Each request to an ASGI application is a scope, and passes through untouched."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import anyio.to_thread
import fastapi
import greenlet
import httpx2
import pytest
import trio
import uvicorn
from services import TLS
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, Router
from websockets.sync.client import connect

import pyscope
from pyscope import emitter, probes
from pyscope.analysis.time_parts import of_scopes
from pyscope.events.scope import SCOPE_BEGIN
from pyscope.probes.asgi import Middleware
from pyscope.probes.scope import Scope
from pyscope.scopes import ScopeRow
from pyscope.trace import Trace

Record = Callable[..., Trace]


class Boom(Exception):
    """What a handler raises."""


def burn(seconds: float) -> None:
    """Uses CPU time of this thread."""
    begin = time.thread_time()
    while time.thread_time() - begin < seconds:
        pass


def application() -> fastapi.FastAPI:
    app = fastapi.FastAPI()
    router = fastapi.APIRouter(prefix="/api")

    @router.get("/items/{item}")
    async def item(item: int) -> dict[str, int]:
        await asyncio.sleep(0)
        return {"item": item, "scope": emitter.scope.get()}

    @app.get("/burn")
    async def burning() -> str:
        await asyncio.sleep(0.05)
        burn(0.05)
        await asyncio.sleep(0.05)
        return "ash"

    @app.get("/boom")
    async def boom() -> None:
        raise Boom

    @app.get("/denied")
    async def denied() -> None:
        raise fastapi.HTTPException(403)

    @app.get("/blocking")
    def blocking() -> int:
        return emitter.scope.get()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def lines() -> Any:
            for number in range(3):
                await asyncio.sleep(0.01)
                yield f"{number}\n"

        return StreamingResponse(lines())

    @app.websocket("/socket/{name}")
    async def socket_of(websocket: fastapi.WebSocket, name: str) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    app.include_router(router)
    app.mount("/sub", Starlette(routes=[Route("/leaf/{name}", lambda request: PlainTextResponse("leaf"))]))
    return app


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """A real server in a thread while the block runs; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def ask(app: Any, *paths: str) -> list[httpx2.Response]:
    with serving(app) as url, httpx2.Client(verify=TLS, timeout=60) as client:
        return [client.get(url + path) for path in paths]


@pytest.fixture
def scopes(record: Record) -> Callable[..., list[ScopeRow]]:
    return lambda body, **settings: list(record(body, ["asgi"], **settings).scopes)


Scopes = Callable[..., list[ScopeRow]]


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collection: of all that the tests have imported it takes longer than what is measured."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_request_has_its_scope_with_method_route_and_status(scopes: Scopes) -> None:
    answers: list[httpx2.Response] = []
    found = scopes(
        lambda: answers.extend(
            ask(application(), "/api/items/42?secret=1", "/denied", "/nowhere/7", "/sub/leaf/x")
        )
    )
    assert [(row.kind, row.name, row.route, row.status, row.outcome) for row in found] == [
        ("request", "GET /api/items/{}", "/api/items/{item}", 200, "returned"),
        ("request", "GET /denied", "/denied", 403, "returned"),
        ("request", "GET /nowhere/{}", "", 404, "returned"),
        ("request", "GET /sub/leaf/x", "/sub/leaf/{name}", 200, "returned"),
    ]
    assert answers[0].json() == {"item": 42, "scope": found[0].id}
    assert all(row.end_ns > row.start_ns and row.parent == 0 for row in found)
    assert len({row.id for row in found}) == 4


def test_an_exception_reaches_the_server_and_is_told(scopes: Scopes) -> None:
    answers: list[httpx2.Response] = []
    [row] = scopes(lambda: answers.extend(ask(application(), "/boom")))
    assert answers[0].status_code == 500
    assert (row.status, row.outcome, row.error) == (500, "raised", "Boom")


@pytest.mark.usefixtures("uncollected")
def test_the_route_of_what_is_mounted_and_knows_none_is_the_mount_s(scopes: Scopes) -> None:
    async def files(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("file")(scope, receive, send)

    inner = Starlette(
        routes=[Mount("/files", files), Route("/leaf", lambda request: PlainTextResponse("leaf"))]
    )
    app = Starlette(routes=[Mount("/static", files), Mount("/sub", inner)])
    found = scopes(lambda: ask(app, "/static/a.css", "/sub/files/b", "/sub/leaf"))
    assert [row.route for row in found] == ["/static", "/sub/files", "/sub/leaf"]


def test_cpu_time_is_that_of_the_request_and_not_of_others(scopes: Scopes) -> None:
    app = application()

    def body() -> None:
        with serving(app) as url:

            async def both() -> None:
                async with httpx2.AsyncClient(verify=TLS, timeout=60) as client:
                    await asyncio.gather(client.get(url + "/burn"), client.get(url + "/stream"))

            gc.collect()  # or one falls into a request, whose time it then is: up to 90 ms here
            asyncio.run(both())

    by_route = {row.route: row for row in scopes(body)}
    assert 0.05e9 <= by_route["/burn"].cpu_ns < by_route["/burn"].duration_ns - 0.05e9
    assert 0 < by_route["/stream"].cpu_ns < 0.05e9


def burning() -> fastapi.FastAPI:
    """An application that takes 60 ms of CPU time for each request, in one way or another."""
    app = fastapi.FastAPI()

    @app.get("/def")
    def plain() -> str:
        burn(0.06)
        return "ash"

    @app.get("/async")
    async def asynchronous() -> str:
        await asyncio.sleep(0.02)
        burn(0.06)
        return "ash"

    @app.get("/to_thread")
    async def to_thread() -> str:
        await asyncio.gather(*(asyncio.to_thread(burn, 0.02) for _ in range(3)))
        return "ash"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> Any:
            for _ in range(3):
                burn(0.02)
                yield b"ash"
                await asyncio.sleep(0.02)

        return StreamingResponse(chunks())

    @app.get("/plain_stream")
    def plain_stream() -> StreamingResponse:
        return StreamingResponse(burn(0.02) or b"ash" for _ in range(3))

    return app


def middleware(app: fastapi.FastAPI) -> fastapi.FastAPI:
    async def passing(request: Any, call_next: Any) -> Any:
        await asyncio.sleep(0.01)
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
    app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
    return app


@pytest.mark.parametrize("around", [lambda app: app, middleware, Middleware])
@pytest.mark.usefixtures("uncollected")
def test_cpu_time_counts_wherever_a_request_runs(scopes: Scopes, around: Any) -> None:
    app = around(burning())
    paths = ("/def", "/async", "/to_thread", "/stream", "/plain_stream")
    found = scopes(lambda: ask(app, *paths))
    cpu = {row.route: row.cpu_ns / 1e6 for row in found}
    assert set(cpu) == set(paths)
    assert all(58 <= one < 85 for one in cpu.values()), cpu


def test_cpu_time_of_an_answer_from_a_task_of_its_own_is_not_known(scopes: Scopes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def handle() -> None:
            burn(0.02)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

        await asyncio.create_task(handle())

    [row] = scopes(lambda: ask(Middleware(app), "/things"))
    assert (row.status, row.cpu_ns) == (200, -1)


@pytest.mark.usefixtures("uncollected")
def test_work_that_outlasts_its_request_and_errors_of_threads_are_as_they_were(scopes: Scopes) -> None:
    def fails(text: str, *, code: int) -> None:
        raise Boom(text, code)

    raised: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        late = loop.run_in_executor(None, time.sleep, 0.1)
        try:
            await asyncio.to_thread(fails, "ash", code=7)
        except Boom as error:
            raised.append(error)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})
        late.add_done_callback(lambda done: raised.append(ValueError(done.result())))

    [row] = scopes(lambda: [ask(Middleware(app), "/things"), time.sleep(0.2)])
    assert raised[0].args == ("ash", 7)
    assert 0 <= row.cpu_ns < 20e6


def test_threads_of_a_request_are_in_its_scope(scopes: Scopes) -> None:
    answers: list[httpx2.Response] = []
    [row] = scopes(lambda: answers.extend(ask(application(), "/blocking")))
    assert answers[0].json() == row.id


def test_a_streamed_answer_lasts_to_its_end(scopes: Scopes) -> None:
    answers: list[httpx2.Response] = []
    [row] = scopes(lambda: answers.extend(ask(application(), "/stream")))
    assert answers[0].text == "0\n1\n2\n"
    assert row.duration_ns >= 0.03e9


def test_a_websocket_is_a_scope(scopes: Scopes) -> None:
    def body() -> None:
        with serving(application()) as url, connect(url.replace("http", "ws") + "/socket/room7a9f") as socket:
            socket.send("hello")
            assert socket.recv() == "hello"

    [row] = scopes(body)
    assert (row.name, row.route, row.status) == ("WEBSOCKET /socket/{}", "/socket/{name}", 101)


def test_an_application_that_is_served_already_is_watched_and_left(scopes: Scopes) -> None:
    app = application()
    with serving(app) as url, httpx2.Client(verify=TLS) as client:
        assert client.get(url + "/api/items/1").json()["scope"] == 0
        # An answer can be there before its handler has ended; the next on the same connection cannot.
        row, _ = scopes(lambda: [client.get(url + "/api/items/2") for _ in range(2)])
        assert row.route == "/api/items/{item}"
        assert client.get(url + "/api/items/3").json()["scope"] == 0


def test_a_request_that_is_wrapped_twice_counts_once(scopes: Scopes) -> None:
    app = Middleware(Middleware(application()))
    assert len(scopes(lambda: ask(app, "/api/items/1"))) == 1


def test_middleware_with_tasks_of_its_own_keeps_the_scope(scopes: Scopes) -> None:
    app = application()

    async def passing(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
    answers: list[httpx2.Response] = []
    [row] = scopes(lambda: answers.extend(ask(app, "/api/items/42")))
    assert answers[0].json()["scope"] == row.id
    assert (row.route, row.status) == ("/api/items/{item}", 200)


def test_an_application_can_be_run_as_a_task_of_its_own(scopes: Scopes) -> None:
    """By whatever drives coroutines: asyncio's task in C and in Python, trio."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    def call() -> Any:
        scope = {"type": "http", "method": "GET", "path": "/leaf", "query_string": b"", "headers": []}
        return app(scope, receive, send)

    async def by_asyncio(task: Any) -> None:
        await task(call(), loop=asyncio.get_running_loop())

    def body() -> None:
        asyncio.run(by_asyncio(asyncio.Task))
        asyncio.run(by_asyncio(asyncio.tasks._PyTask))  # type: ignore[attr-defined]
        trio.run(call)

    async def leaf(_request: Any) -> PlainTextResponse:
        return PlainTextResponse("leaf")

    app = Starlette(routes=[Route("/leaf", leaf)])
    assert [(row.route, row.status, row.outcome) for row in scopes(body)] == [("/leaf", 200, "returned")] * 3
    assert sent == ["http.response.start", "http.response.body"] * 3
    assert inspect.iscoroutinefunction(app.__call__)


def test_trio_serves_as_asyncio_does(scopes: Scopes) -> None:
    pytest.importorskip("trio")

    async def handler(request: Any) -> PlainTextResponse:
        await anyio.sleep(0.001)
        return PlainTextResponse("hello")

    async def main() -> None:
        transport = httpx2.ASGITransport(Starlette(routes=[Route("/hello", handler)]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
            answers.append((await client.get("/hello")).text)

    answers: list[str] = []
    [row] = scopes(lambda: anyio.run(main, backend="trio"))
    assert answers == ["hello"]
    assert (row.name, row.status, row.outcome) == ("GET /hello", 200, "returned")


def test_a_request_that_trio_cancels_has_not_failed(scopes: Scopes) -> None:
    pytest.importorskip("trio")

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep_forever()

    async def main() -> None:
        with anyio.move_on_after(0.01):
            await Middleware(waits)({"type": "http", "method": "GET", "path": "/"}, None, None)  # type: ignore[arg-type]

    [row] = scopes(lambda: anyio.run(main, backend="trio"))
    assert (row.outcome, row.error) == ("cancelled", "Cancelled")


def test_an_application_that_returns_nothing_to_await_fails_as_it_would(scopes: Scopes) -> None:
    def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    def body() -> None:
        request: Any = Middleware(app)({"type": "http", "method": "GET", "path": "/"}, None, None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="NoneType"):
            asyncio.run(request)

    [row] = scopes(body)
    assert row.outcome == "raised"


def test_any_asgi_application_can_be_wrapped(scopes: Scopes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    [row] = scopes(lambda: ask(Middleware(app), "/things/9"))
    assert (row.name, row.route, row.status) == ("GET /things/{}", "", 204)


def test_the_route_that_litestar_leaves_in_the_scope_is_the_request_s(scopes: Scopes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/things/{name}"
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    [row] = scopes(lambda: ask(Middleware(app), "/things/a"))
    assert row.route == "/things/{name}"


def test_whatever_uvicorn_serves_is_watched_and_after_the_probe_only_served(record: Record) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/boom":
            raise Boom
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(emitter.scope.get()).encode()})

    with ExitStack() as stack:
        client = stack.enter_context(httpx2.Client(verify=TLS))
        served: list[str] = []
        statuses: list[int] = []

        def body() -> None:
            served.append(stack.enter_context(serving(app)))
            statuses.extend(
                client.get(served[0] + path).status_code for path in ("/things/9", "/boom", "/things/9")
            )

        first, second, third = record(body, ["asgi"]).scopes
        assert statuses == [200, 500, 200]
        assert [(row.name, row.status) for row in (first, third)] == [("GET /things/{}", 200)] * 2
        assert (second.status, second.outcome, second.error) == (500, "raised", "Boom")
        assert client.get(served[0] + "/things/9").text == "0"
        with serving(app) as url:  # as it was
            assert client.get(url + "/things/9").text == "0"
        assert "pyscope" not in uvicorn.Config.load.__code__.co_filename


@pytest.mark.filterwarnings("ignore:Uvicorn's native WSGI:DeprecationWarning")
def test_a_wsgi_application_in_uvicorn_is_left_to_the_probe_wsgi(record: Record) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"here"]

    def body() -> None:
        config = uvicorn.Config(app, interface="wsgi")
        config.load()
        assert "pyscope" not in type(config.loaded_app).__module__

    assert list(record(body, ["asgi"]).scopes) == []


def drive(app: Any) -> tuple[str, Any]:
    """Calls an application as a server would, and says what came out."""

    async def receive() -> Any:
        await asyncio.sleep(30)

    async def send(message: Any) -> None:
        pass

    async def run() -> Any:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        task = asyncio.ensure_future(app(scope, receive, send))
        await asyncio.sleep(0.01)
        task.cancel("enough")
        return await task

    try:
        return "returned", asyncio.run(run())
    except BaseException as error:
        return type(error).__name__, str(error)


def test_cancellations_and_what_a_handler_makes_of_them_are_the_same(scopes: Scopes) -> None:
    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        except asyncio.CancelledError:
            return

    async def replaces(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        except asyncio.CancelledError:
            raise SystemError("other") from None

    class Custom:
        def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
            return waits(scope, receive, send)

    def stops(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        raise Boom("at once")

    for app in (waits, refuses, replaces, Custom(), stops):
        plain = drive(app)
        watched: list[Any] = []
        [row] = scopes(lambda app=app, watched=watched: watched.append(drive(Middleware(app))))
        assert watched == [plain]
        assert row.outcome == {"returned": "returned", "CancelledError": "cancelled"}.get(plain[0], "raised")


def test_scopes_lie_in_each_other(record: Record) -> None:
    def body() -> None:
        with Scope("message", "assign"):
            with Scope("report", "annual") as report:
                report.status = 7
            with pytest.raises(Boom), Scope("task", "boom"):
                raise Boom

    trace = record(body)
    message, report, task = trace.scopes
    assert (report.parent, task.parent, message.parent) == (message.id, message.id, 0)
    assert (report.kind, report.name, report.status) == ("report", "annual", 7)
    assert (task.outcome, task.error) == ("raised", "Boom")
    assert trace.scopes.get(task.id) == task
    assert trace.scopes.get(12345) is None
    assert all(row.cpu_ns >= 0 for row in trace.scopes)


def test_the_cpu_time_of_a_short_scope_is_no_more_than_it_took(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    intern = emitter.intern

    def slowly(text: str) -> int:
        if text == "short":
            burn(0.002)
        return intern(text)

    def body() -> None:
        monkeypatch.setattr(emitter, "intern", slowly)
        for _ in range(3):
            with Scope("task", "short"):
                pass

    for row in record(body).scopes:
        assert 0 <= row.cpu_ns <= row.end_ns - row.start_ns


@pytest.mark.usefixtures("uncollected")
def test_a_request_in_flight_keeps_few_objects_alive(scopes: Scopes) -> None:
    """A full garbage collection looks at each: of a thousand requests in flight they cost more than what they do."""
    tracked: dict[str, int] = {}

    async def crowd(name: str, application: Callable[[Any], Any], requests: int = 200) -> None:
        release = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await release.wait()

        served = application(app)
        scope = {"type": "http", "method": "GET", "path": "/"}
        running = [asyncio.ensure_future(served(dict(scope), None, None)) for _ in range(requests)]
        await asyncio.sleep(0)
        tracked[name] = len(gc.get_objects()) // requests
        release.set()
        await asyncio.gather(*running)

    def body() -> None:
        for name, wrapped in (("warm", Middleware), ("bare", lambda app: app), ("watched", Middleware)):
            gc.collect()
            asyncio.run(crowd(name, wrapped))

    assert len(scopes(body)) == 400
    assert tracked["watched"] - tracked["bare"] <= 10, tracked


def test_a_request_within_another_gives_the_work_back_to_it(scopes: Scopes) -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await Middleware(inner)({"type": "http", "method": "GET", "path": "/inner"}, receive, send)
        await asyncio.to_thread(burn, 0.05)

    async def send(message: Any) -> None:
        pass

    found = scopes(
        lambda: asyncio.run(
            Middleware(outer)({"type": "http", "method": "GET", "path": "/outer"}, None, send)  # type: ignore[arg-type]
        )
    )
    by_name = {row.name: row for row in found}
    assert by_name["GET /inner"].parent == by_name["GET /outer"].id
    assert by_name["GET /outer"].cpu_ns >= 0.05e9


def test_cpu_time_beside_other_tasks_or_greenlets_of_the_thread_is_not_known(record: Record) -> None:
    async def in_a_task() -> None:
        with Scope("message", "task"):
            await asyncio.sleep(0)

    def in_a_greenlet() -> None:
        with Scope("message", "greenlet"):
            greenlet.getcurrent().parent.switch()

    def body() -> None:
        asyncio.run(in_a_task())
        suspended = greenlet.greenlet(in_a_greenlet)
        suspended.switch()
        burn(0.002)
        suspended.switch()
        with Scope("message", "thread"):
            burn(0.002)

    task, beside, thread = record(body).scopes
    assert (task.cpu_ns, beside.cpu_ns) == (-1, -1)
    assert thread.cpu_ns >= 2_000_000


def test_a_scope_that_has_not_ended_is_open(tmp_path: Any) -> None:
    with pyscope.record(tmp_path / "run", modules=["pyscope.*"]):
        Scope("request", "GET /").enter()
        emitter.scope.set(0)
    [row] = pyscope.load(tmp_path / "run").scopes
    assert (row.outcome, row.cpu_ns) == ("open", -1)
    assert row.end_ns >= row.start_ns


def test_events_and_time_of_a_request_are_told_by_scope(record: Record, tmp_path: Any) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'data'}")
    app = fastapi.FastAPI()

    async def query() -> int:
        async with engine.connect() as connection:
            for _ in range(3):
                await connection.execute(text("SELECT 1"))
        return emitter.scope.get()

    @app.get("/query")
    async def handler() -> int:
        return await query()

    trace = record(lambda: ask(app, "/query", "/nothing"), ["asgi", "sqlalchemy"])
    with_sql, without = of_scopes(trace)
    assert with_sql.parts.sql_count == 3
    assert 0 < with_sql.parts.sql_ns < with_sql.parts.wall_ns
    assert 0 < with_sql.parts.sql_share < 1
    assert with_sql.parts.cpu_share is not None
    assert (without.parts.sql_count, without.status) == (0, 404)


def test_starlette_and_threads_are_as_they_were_after_the_probe_is_gone() -> None:
    watched = (Starlette, Router, StreamingResponse, ThreadPoolExecutor, anyio.to_thread)
    before = [dict(vars(owner)) for owner in watched]
    held = probes.acquire(["asgi"])
    assert all(dict(vars(owner)) != found for owner, found in zip(watched, before, strict=True))
    probes.release(held)
    assert [dict(vars(owner)) for owner in watched] == before


def test_nothing_is_told_of_lifespans(record: Record) -> None:
    started = []

    @asynccontextmanager
    async def lifespan(app: Any) -> Any:
        started.append(app)
        yield

    async def run() -> None:
        app = Starlette(routes=[Mount("/", routes=[])], lifespan=lifespan)
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        sent = []

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await app({"type": "lifespan", "state": {}}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    trace = record(lambda: asyncio.run(run()))
    assert len(trace.probe_events(SCOPE_BEGIN)) == 0
    assert started
