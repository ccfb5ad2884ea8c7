"""Requests to ASGI frameworks that are not Starlette are scopes with their route, whatever server calls them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from pyscope import emitter, probes
from pyscope.scopes import ScopeRow
from pyscope.trace import Trace

Record = Callable[..., Trace]


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def call(app: Any, path: str, kind: str = "http") -> list[Any]:
    """Calls an application as a server does; gives what it sends."""
    sent: list[Any] = []
    come: asyncio.Queue[Any] = asyncio.Queue()
    if kind == "http":
        come.put_nowait({"type": "http.request", "body": b""})
    else:
        come.put_nowait({"type": "websocket.connect"})
        come.put_nowait({"type": "websocket.receive", "text": "hello"})

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "websocket.send":
            come.put_nowait({"type": "websocket.disconnect", "code": 1000})
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            come.put_nowait({"type": "http.disconnect"})

    scope = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http" if kind == "http" else "ws",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
        "subprotocols": [],
        "extensions": {},
    }
    await app(scope, come.get, send)
    return sent


def ask(record: Record, app: Any, *paths: str) -> list[ScopeRow]:
    async def body() -> None:
        for each in paths:
            await call(app, each)

    return list(record(lambda: asyncio.run(body()), ["asgi"]).scopes)


# --- Django --------------------------------------------------------------------------------------


def in_a_thread(request: HttpRequest, number: int) -> HttpResponse:
    burn(0.02)
    return HttpResponse(f"{number} {emitter.scope.get()}")


async def in_the_loop(request: HttpRequest) -> HttpResponse:
    burn(0.02)
    return HttpResponse("loop")


urlpatterns = [path("orders/<int:number>", in_a_thread), path("", in_the_loop)]


def test_requests_to_django_have_their_route_and_cpu_time(record: Record) -> None:
    if not settings.configured:
        settings.configure(SECRET_KEY="only here", ALLOWED_HOSTS=["127.0.0.1"])
        django.setup(set_prefix=False)
    with override_settings(ROOT_URLCONF=__name__):
        found = ask(record, ASGIHandler(), "/orders/42", "/", "/nowhere/7")
    assert [(row.name, row.route, row.status) for row in found] == [
        ("GET /orders/{}", "/orders/<int:number>", 200),
        ("GET /", "/", 200),
        ("GET /nowhere/{}", "", 404),
    ]
    assert all(row.cpu_ns >= 20_000_000 for row in found[:2])


def test_django_is_as_it_was_after_the_probe_is_gone() -> None:
    before = dict(vars(ASGIHandler))
    held = probes.acquire(["asgi"])
    assert vars(ASGIHandler)["__call__"] is not before["__call__"]
    probes.release(held)
    assert dict(vars(ASGIHandler)) == before


# --- Quart ---------------------------------------------------------------------------------------


def test_requests_to_quart_have_their_rule_and_the_cpu_time_of_its_tasks(record: Record) -> None:
    quart = pytest.importorskip("quart")
    app = quart.Quart(__name__)

    @app.get("/orders/<int:number>")
    async def order(number: int) -> str:
        burn(0.02)
        await asyncio.sleep(0)
        return str(number)

    @app.websocket("/news/<name>")
    async def news(name: str) -> None:
        await quart.websocket.send(await quart.websocket.receive())
        burn(0.02)

    async def body() -> None:
        await call(app, "/orders/42")
        await call(app, "/nowhere/7")
        await call(app, "/news/joe", "websocket")

    found = list(record(lambda: asyncio.run(body()), ["asgi"]).scopes)
    assert [(row.name, row.route, row.status) for row in found] == [
        ("GET /orders/{}", "/orders/<int:number>", 200),
        ("GET /nowhere/{}", "", 404),
        ("WEBSOCKET /news/joe", "/news/<name>", 101),
    ]
    # Before 3.12 asyncio.wait_for, in which Quart sends, made a task that nobody measures: then it is not known.
    unknown = {-1} if sys.version_info < (3, 12) else set()
    assert all(row.cpu_ns >= 20_000_000 or row.cpu_ns in unknown for row in (found[0], found[2]))


# --- Litestar ------------------------------------------------------------------------------------


def test_requests_to_litestar_have_their_route(record: Record) -> None:
    litestar = pytest.importorskip("litestar")

    @litestar.get("/orders/{number:int}")
    async def order() -> str:
        return "it"

    [row] = ask(record, litestar.Litestar([order]), "/orders/42")
    assert (row.name, row.route, row.status) == ("GET /orders/{}", "/orders/{number}", 200)
