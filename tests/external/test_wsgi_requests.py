"""Each request to a WSGI application is a scope, and passes through untouched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.util import FileWrapper

import django
import httpx2
import pytest
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import include, path, re_path
from flask import Flask, Response, abort

from pyscope import emitter, probes
from pyscope.probes.wsgi import Middleware
from pyscope.scopes import ScopeRow
from pyscope.trace import Trace

Record = Callable[..., Trace]
Scopes = Callable[[Callable[[], Any]], list[ScopeRow]]


class Boom(Exception):
    """What a handler raises."""


@pytest.fixture
def scopes(record: Record) -> Scopes:
    return lambda body: list(record(body, ["wsgi"]).scopes)


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = False


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """A real server in a thread while the block runs; gives its address."""
    with make_server("127.0.0.1", 0, app, Server, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def ask(app: Any, *paths: str) -> list[httpx2.Response]:
    with serving(app) as url, httpx2.Client(trust_env=False, timeout=60) as client:
        return [client.get(url + path) for path in paths]


def seen(found: Iterable[ScopeRow]) -> list[tuple[str, str, str, int, str]]:
    return [(row.kind, row.name, row.route, row.status, row.outcome) for row in found]


# --- frameworks ----------------------------------------------------------------------------------


def flask_app() -> Flask:
    app = Flask(__name__)

    @app.get("/orders/<int:number>")
    def order(number: int) -> dict[str, int]:
        return {"order": number, "scope": emitter.scope.get()}

    @app.get("/denied")
    def denied() -> None:
        abort(403)

    @app.get("/boom")
    def boom() -> None:
        raise Boom

    @app.get("/stream")
    def stream() -> Response:
        return Response(str(emitter.scope.get()) for _ in range(2))

    return app


def test_a_request_to_flask_has_its_scope_with_method_route_and_status(scopes: Scopes) -> None:
    answers: list[httpx2.Response] = []
    found = scopes(
        lambda: answers.extend(
            ask(flask_app(), "/orders/42?secret=1", "/denied", "/nowhere/7", "/boom", "/stream")
        )
    )
    assert seen(found) == [
        ("request", "GET /orders/{}", "/orders/<int:number>", 200, "returned"),
        ("request", "GET /denied", "/denied", 403, "returned"),
        ("request", "GET /nowhere/{}", "", 404, "returned"),
        ("request", "GET /boom", "/boom", 500, "returned"),
        ("request", "GET /stream", "/stream", 200, "returned"),
    ]
    assert answers[0].json() == {"order": 42, "scope": found[0].id}
    assert answers[4].text == 2 * str(found[4].id)  # made after the application has returned
    assert all(row.end_ns > row.start_ns and row.parent == 0 and row.cpu_ns > 0 for row in found)


def django_app() -> WSGIHandler:
    if not settings.configured:
        settings.configure(SECRET_KEY="only here", ALLOWED_HOSTS=["127.0.0.1"])
        django.setup(set_prefix=False)
    settings.ROOT_URLCONF = __name__  # other tests of the process may have configured it without
    return WSGIHandler()


def order_view(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(f"{number} {emitter.scope.get()}")


def boom_view(request: HttpRequest) -> HttpResponse:
    raise Boom


def stream_view(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(str(emitter.scope.get()) for _ in range(2))


urlpatterns = [
    path("orders/<int:number>", order_view),
    path("boom", boom_view),
    re_path(r"^stream$", stream_view),
    path("", lambda request: HttpResponse("home")),
    path("api/", include([re_path(r"^things/(?P<number>[^/]+)/$", order_view)])),
]


def test_a_request_to_django_has_its_scope_with_method_route_and_status(scopes: Scopes) -> None:
    answers: list[httpx2.Response] = []
    found = scopes(
        lambda: answers.extend(ask(django_app(), "/orders/42?secret=1", "/nowhere/7", "/boom", "/stream"))
    )
    assert seen(found) == [
        ("request", "GET /orders/{}", "/orders/<int:number>", 200, "returned"),
        ("request", "GET /nowhere/{}", "", 404, "returned"),
        ("request", "GET /boom", "/boom", 500, "returned"),
        ("request", "GET /stream", "/stream", 200, "returned"),
    ]
    assert answers[0].text == f"42 {found[0].id}"
    assert answers[3].text == 2 * str(found[3].id)


def test_routes_of_django_are_paths_also_the_root_s_and_those_of_included_expressions(scopes: Scopes) -> None:
    found = scopes(lambda: ask(django_app(), "/", "/api/things/7/"))
    assert [row.route for row in found] == ["/", "/api/things/<number>/"]


def test_requests_side_by_side_have_each_its_own_scope(scopes: Scopes) -> None:
    said: list[int] = []

    def body() -> None:
        with (
            serving(flask_app()) as url,
            httpx2.Client(trust_env=False, timeout=60) as client,
            ThreadPoolExecutor(8) as pool,
        ):
            said.extend(pool.map(lambda n: client.get(f"{url}/orders/{n}").json()["scope"], range(40)))

    found = scopes(body)
    assert sorted(row.id for row in found) == sorted(said)
    assert len(set(said)) == 40
    assert {row.parent for row in found} == {0}


@pytest.mark.parametrize("framework", [Flask, WSGIHandler])
def test_a_framework_is_as_it_was_after_the_probe_is_gone(framework: type) -> None:
    before = dict(vars(framework))
    held = probes.acquire(["wsgi"])
    assert vars(framework)["__call__"] is not before["__call__"]
    probes.release(held)
    assert dict(vars(framework)) == before


# --- any application -----------------------------------------------------------------------------


def call(app: Any, **environ: Any) -> tuple[list[Any], Any]:
    """What an application tells `start_response`, and what it returns."""
    told: list[Any] = []
    answer = app({"REQUEST_METHOD": "GET", "PATH_INFO": "/x", **environ}, lambda *given: told.append(given))
    return told, answer


def test_an_answer_that_is_made_already_is_passed_on_as_it_is(scopes: Scopes) -> None:
    made = [b"one", b"two"]

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X", "y")])
        return made

    def body() -> None:
        told, answer = call(Middleware(Middleware(app)))
        assert told == [("200 OK", [("X", "y")])]
        assert answer is made

    assert seen(scopes(body)) == [("request", "GET /x", "", 200, "returned")]


def test_a_file_that_the_server_sends_is_passed_on_as_it_is(scopes: Scopes, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with (tmp_path / "file").open("rb") as file:
        wrapped = FileWrapper(file)

        def body() -> None:
            _, answer = call(
                Middleware(lambda environ, start_response: wrapped), **{"wsgi.file_wrapper": FileWrapper}
            )
            assert answer is wrapped

        assert len(scopes(body)) == 1


def test_an_exception_passes_through_and_ends_the_scope(scopes: Scopes) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise Boom

    def body() -> None:
        with pytest.raises(Boom) as raised:
            call(Middleware(app))
        assert raised.value.__context__ is None
        assert emitter.scope.get() == 0

    assert seen(scopes(body)) == [("request", "GET /x", "", 500, "raised")]


def test_a_stream_ends_its_scope_when_it_fails_or_is_closed_and_closes_what_it_wraps_once(
    scopes: Scopes,
) -> None:
    closed: list[str] = []

    class Body:
        def __init__(self, fails: bool) -> None:
            self.parts = iter([b"a", b"b"])
            self.fails = fails

        def __iter__(self) -> Iterator[bytes]:
            yield from self.parts
            if self.fails:
                raise Boom

        def close(self) -> None:
            closed.append("closed")

    def body() -> None:
        for fails in (False, True):
            _, answer = call(Middleware(lambda environ, start_response, fails=fails: Body(fails)))
            assert answer.fails is fails  # what a server may want to know of it
            if fails:
                with pytest.raises(Boom):
                    list(answer)
            else:
                assert list(answer) == [b"a", b"b"]
            answer.close()
            assert emitter.scope.get() == 0

    assert [row.outcome for row in scopes(body)] == ["returned", "raised"]
    assert closed == ["closed", "closed"]


@pytest.mark.parametrize("status", [None, "", "what", b"200 OK", 7])
def test_a_status_that_is_none_is_the_servers_affair(scopes: Scopes, status: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, [])
        return []

    def body() -> None:
        assert call(Middleware(app))[0] == [(status, [])]

    assert [row.outcome for row in scopes(body)] == ["returned"]


def test_an_environ_that_is_odd_is_still_served(scopes: Scopes) -> None:
    def body() -> None:
        assert call(Middleware(lambda environ, start_response: []), PATH_INFO=7, SCRIPT_NAME=None)[1] == []

    assert [row.name for row in scopes(body)] == ["request"]


def test_nothing_is_told_and_nothing_wrapped_while_nothing_is_recorded() -> None:
    answer = (part for part in [b"a"])
    assert call(Middleware(lambda environ, start_response: answer))[1] is answer
