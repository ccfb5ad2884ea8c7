"""Values are recorded only where the setting `values` names them, and the program notices nothing of it."""

from __future__ import annotations

import asyncio
import datetime
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from flask import Flask
from flask import request as flask_request
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine

import pyscope
from pyscope.events.scope import VALUE
from pyscope.probes import values
from pyscope.probes.wsgi import Middleware
from pyscope.trace import Trace
from pyscope.views.waterfall import Waterfalls

Record = Callable[..., Trace]
PROBES = ["asgi", "wsgi", "sqlalchemy"]
ALL = ["sql_parameters", "request_header:X-Request-ID", "request_body"]
SECRETS = {"x-request-id": "r-77", "authorization": "Bearer hunter2"}


def told(trace: Trace) -> list[tuple[str, str]]:
    return [(record.what, record.value) for record in trace.probe_events(VALUE).records()]


class Tea(str):
    """A parameter whose own code must not run."""

    def __repr__(self) -> str:
        raise AssertionError("asked for its repr")

    __str__ = __repr__


def fastapi_service(received: list[Any]) -> FastAPI:
    app = FastAPI()

    @app.post("/orders")
    async def order(request: Request) -> None:
        received.append(await request.json())
        with create_engine("sqlite://").begin() as connection:
            connection.execute(text("CREATE TABLE orders (name TEXT, day TEXT)"))
            insert = text("INSERT INTO orders VALUES (:name, :day)")
            connection.execute(insert, {"name": Tea("green"), "day": datetime.date(2024, 2, 29).isoformat()})
            connection.execute(insert, [{"name": "a", "day": "x" * 500}, {"name": "b", "day": None}])

    return app


def flask_service(received: list[Any]) -> Flask:
    app = Flask(__name__)

    @app.post("/orders")
    def order() -> str:
        received.append(flask_request.json)
        return ""

    return app


def test_without_the_setting_there_are_no_values(record: Record, tmp_path: Path) -> None:
    received: list[Any] = []
    ask = TestClient(fastapi_service(received))
    trace = record(lambda: ask.post("/orders", json={"name": "jasmine"}, headers=SECRETS), PROBES)
    assert received == [{"name": "jasmine"}]
    assert told(trace) == []
    [file] = tmp_path.glob("*.pyscope")
    for secret in (b"jasmine", b"hunter2", b"r-77", b"2024-02-29"):
        assert secret not in file.read_bytes()


def test_what_is_allowed_is_told_and_shown_with_the_request_and_the_statement(record: Record) -> None:
    received: list[Any] = []
    ask = TestClient(fastapi_service(received))
    sent = Connection._exec_single_context
    trace = record(lambda: ask.post("/orders", json={"name": "jasmine"}, headers=SECRETS), PROBES, values=ALL)
    assert Connection._exec_single_context is sent
    assert received == [{"name": "jasmine"}]
    header, body, single, many = told(trace)
    assert header == ("request_header:x-request-id", "r-77")
    assert body == ("request_body", '{"name":"jasmine"}')
    assert single == ("sql_parameters", "(<Tea>, '2024-02-29')")
    assert many[1].startswith("[('a', 'xxx")
    assert len(many[1]) <= 200
    [scope] = trace.scopes
    shown = Waterfalls(trace).of(str(scope.id))
    assert shown is not None
    details = {span["name"]: span["detail"] for span in shown["spans"] if span["kind"] != "call"}
    assert details["POST /orders"] == '/orders\nx-request-id: r-77\nbody: {"name":"jasmine"}'
    queries = [span["detail"] for span in shown["spans"] if span["kind"] == "query"]
    assert [detail.partition("-- ")[2][:6] for detail in queries] == ["", "(<Tea>", "[('a',"]


def test_one_kind_allows_no_other(record: Record) -> None:
    ask = TestClient(fastapi_service([]))

    def of(allowed: str) -> set[str]:
        trace = record(lambda: ask.post("/orders", json=1, headers=SECRETS), PROBES, values=[allowed])
        return {what for what, _ in told(trace)}

    assert of("sql_parameters") == {"sql_parameters"}
    assert of("request_header:x-request-id") == {"request_header:x-request-id"}
    assert of("request_body") == {"request_body"}


def test_parameters_of_statements_in_tasks_side_by_side_are_each_its_own(record: Record) -> None:
    async def one(number: int) -> None:
        engine = create_async_engine("sqlite+aiosqlite://")
        async with engine.connect() as connection:
            name = "x" * number
            for _ in range(3):
                await connection.execute(text(f"SELECT {name}.a FROM (SELECT :n a) {name}"), {"n": number})
        await engine.dispose()

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(1, 6)))

    from pyscope.events.sql import STATEMENT
    from pyscope.views.recorded_values import RecordedValues

    trace = record(lambda: asyncio.run(all_of_them()), PROBES, values=["sql_parameters"])
    found = RecordedValues(trace)
    statements = [record.statement for record in trace.probe_events(STATEMENT).records()]
    assert len(statements) == 15
    for row, statement in enumerate(statements):
        assert found.of_statement(row) == f"-- ({statement.split('.')[0].count('x')},)"


def test_a_wsgi_request_s_input_is_read_as_it_would_be(record: Record) -> None:
    received: list[Any] = []
    ask = flask_service(received).test_client()
    trace = record(lambda: ask.post("/orders", json={"n": 1}, headers=SECRETS), PROBES, values=ALL)
    assert received == [{"n": 1}]
    assert told(trace) == [("request_header:x-request-id", "r-77"), ("request_body", '{"n": 1}')]

    def reading(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        source = environ["wsgi.input"]
        received.append((source.read(3), source.readline(), source.readlines(), source.read(), source.tell()))
        start_response("200 OK", [])
        return []

    def post(body: bytes) -> None:
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "wsgi.input": BytesIO(body)}
        Middleware(reading)(environ, lambda *_: None)

    def both() -> None:
        post(b"one\ntwo\nthree")
        post(b"\xff" + b"y" * 5000)

    received.clear()
    trace = record(both, PROBES, values=["request_body"])
    assert received[0] == (b"one", b"\n", [b"two\n", b"three"], b"", 13)
    assert b"".join((received[1][0], received[1][1])) == b"\xff" + b"y" * 5000
    (_, whole), (_, cut) = told(trace)
    assert whole == "one\ntwo\nthree"
    assert cut == "\ufffd" + "y" * (values.MOST_BODY - 1) + "…"


def test_the_parameters_of_django_s_statements(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
import django
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT %s, %s", ["green", 7])
    print(cursor.fetchall())
"""
    )
    run = [sys.executable, "-m", "pyscope", "run", "-o", "run.pyscope", "--probes", "django"]
    ended = subprocess.run(
        [*run, "--values", "sql_parameters", str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout.startswith("[('green', 7)]"), ended.stderr
    assert told(pyscope.load(tmp_path / "run.pyscope")) == [("sql_parameters", "['green', 7]")]


@pytest.mark.parametrize("bad", ["headers", "request_header:", "request_header:a b", "*", 3])
def test_what_is_no_value_is_refused(bad: Any, tmp_path: Path) -> None:
    with pytest.raises(pyscope.errors.ConfigError, match=r"values = .*request_header:NAME"):
        pyscope.start(tmp_path / "run.pyscope", values=bad if bad == 3 else [bad])
