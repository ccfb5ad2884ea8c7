"""Each request to aiohttp.web is a scope, and is answered as without PyScope."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType, web, web_protocol

from pyscope import emitter, probes
from pyscope.scopes import ScopeRow
from pyscope.trace import Trace

Record = Callable[..., Trace]
Scopes = Callable[[Callable[[], Any]], list[ScopeRow]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Boom(Exception):
    """What a handler raises."""


@pytest.fixture
def scopes(record: Record) -> Scopes:
    return lambda body: list(record(body, ["aiohttp_server"]).scopes)


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def order(request: web.Request) -> web.Response:
    await asyncio.sleep(0)
    return web.json_response({"order": request.match_info["number"], "scope": emitter.scope.get()})


async def denied(request: web.Request) -> web.Response:
    raise web.HTTPForbidden


async def boom(request: web.Request) -> web.Response:
    raise Boom


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(2):
        await response.write(str(emitter.scope.get()).encode())
    return response


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


async def works(request: web.Request) -> web.Response:
    burn(0.02)
    await asyncio.to_thread(burn, 0.02)
    await asyncio.sleep(0.1)
    return web.Response()


def application() -> web.Application:
    app, inner = web.Application(), web.Application()
    app.router.add_get("/orders/{number}", order)
    app.router.add_get("/denied", denied)
    app.router.add_get("/boom", boom)
    app.router.add_get("/stream", stream)
    app.router.add_get("/echo/{room}", echo)
    app.router.add_get("/works", works)
    inner.router.add_get("/things/{number}", order)
    app.add_subapp("/api", inner)
    return app


def serving(body: Callable[[ClientSession, str], Awaitable[Any]]) -> Any:
    """What `body` returns, called with a client and the address of a real server."""

    async def main() -> Any:
        runner = web.AppRunner(application())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            async with ClientSession() as client:
                return await body(client, f"http://127.0.0.1:{runner.addresses[0][1]}")
        finally:
            await runner.cleanup()

    return asyncio.run(main())


async def get(client: ClientSession, url: str) -> tuple[int, str]:
    async with client.get(url) as answer:
        return answer.status, await answer.text()


PATHS = ("/orders/42?secret=1", "/denied", "/nowhere/7", "/boom", "/stream", "/api/things/3")


async def ask(client: ClientSession, url: str) -> list[tuple[int, str]]:
    return [await get(client, url + path) for path in PATHS]


def test_a_request_has_its_scope_with_method_route_and_status(scopes: Scopes) -> None:
    answers: list[tuple[int, str]] = []
    found = scopes(lambda: answers.extend(serving(ask)))
    assert [(row.kind, row.name, row.route, row.status, row.outcome, row.error) for row in found] == [
        ("request", "GET /orders/{}", "/orders/{number}", 200, "returned", ""),
        ("request", "GET /denied", "/denied", 403, "returned", ""),
        ("request", "GET /nowhere/{}", "", 404, "returned", ""),
        ("request", "GET /boom", "/boom", 500, "raised", "Boom"),
        ("request", "GET /stream", "/stream", 200, "returned", ""),
        ("request", "GET /api/things/{}", "/api/things/{number}", 200, "returned", ""),
    ]
    assert f'"scope": {found[0].id}' in answers[0][1]
    assert answers[4][1] == 2 * str(found[4].id)
    assert all(row.parent == 0 and 0 < row.cpu_ns <= row.duration_ns for row in found)


def test_answers_are_those_without_pyscope(scopes: Scopes) -> None:
    untouched = serving(ask)
    answers: list[tuple[int, str]] = []
    scopes(lambda: answers.extend(serving(ask)))
    assert [status for status, _ in answers] == [status for status, _ in untouched]
    assert answers[1:4] == untouched[1:4]


def test_requests_at_once_have_each_their_own_scope(scopes: Scopes) -> None:
    async def body(client: ClientSession, url: str) -> list[tuple[int, str]]:
        return await asyncio.gather(*(get(client, f"{url}/orders/{n}") for n in range(20)))

    answers: list[tuple[int, str]] = []
    found = scopes(lambda: answers.extend(serving(body)))
    told = {int(text.split('"scope": ')[1].rstrip("}")) for _, text in answers}
    assert told == {row.id for row in found}
    assert len(told) == 20


def test_a_websocket_is_one_scope_until_it_is_closed(scopes: Scopes) -> None:
    async def body(client: ClientSession, url: str) -> str:
        async with client.ws_connect(f"{url}/echo/12") as socket:
            await socket.send_str("hello")
            return await socket.receive_str()

    said: list[str] = []
    [row] = scopes(lambda: said.append(serving(body)))
    assert said == ["hello"]
    assert (row.name, row.route, row.status) == ("WEBSOCKET /echo/{}", "/echo/{room}", 101)
    assert row.outcome == "returned"


@pytest.mark.parametrize("wanted", [["aiohttp_server"], ["aiohttp_server", "asgi"]], ids="+".join)
def test_cpu_time_is_that_of_the_request_and_its_threads_counted_once(
    record: Record, wanted: list[str]
) -> None:
    async def body(client: ClientSession, url: str) -> None:
        await get(client, f"{url}/works")

    [row] = record(lambda: serving(body), wanted).scopes
    assert 40e6 <= row.cpu_ns < 60e6
    assert row.duration_ns > 100e6


def test_a_cancelled_request_ends_cancelled(scopes: Scopes) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def waits(request: web.BaseRequest) -> web.Response:
            begun.set()
            await asyncio.sleep(60)
            return web.Response()

        runner = web.ServerRunner(web.Server(waits, handler_cancellation=True))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        _, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
        writer.write(b"GET /waits HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await begun.wait()
        writer.close()
        await runner.cleanup()

    [row] = scopes(lambda: asyncio.run(main()))
    assert (row.name, row.route, row.outcome, row.error) == ("GET /waits", "", "cancelled", "CancelledError")


def test_removed_probes_leave_the_server_as_it_was() -> None:
    before = dict(vars(web_protocol.RequestHandler))
    held = probes.acquire(["aiohttp_server", "asgi"])
    assert vars(web_protocol.RequestHandler)["_handle_request"] is not before["_handle_request"]
    probes.release(held)
    assert dict(vars(web_protocol.RequestHandler)) == before
