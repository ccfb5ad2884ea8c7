"""Who may see the dashboard: token and cookie, hosts, origins, controls; each rule with what breaks it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from viewing import TOKEN, served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pyscope import live
from pyscope.errors import ConfigError
from pyscope.live.security import Access, is_loopback, new_token, token_of_query

MOUNT = "/admin/pyscope"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def service(**options: object) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def own() -> str:
        return "the service"

    live.mount(app, MOUNT, **options)  # type: ignore[arg-type]
    return app


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(service(token=TOKEN, allowed_hosts=["shop.example"])) as port:
        yield port


def ask(port: int, path: str = "/", **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{MOUNT}{path}", headers=headers, timeout=30)


def cookie_of(port: int) -> str:
    answer = ask(port, f"/?token={TOKEN}".replace(" ", "%20"))
    return answer.headers["set-cookie"].partition(";")[0]


def csrf_of(port: int) -> str:
    return Access(TOKEN).csrf


def handshake(port: int, **headers: str) -> int:
    """The status of a WebSocket's handshake; 101 where it was let in."""
    try:
        with connect(f"ws://127.0.0.1:{port}{MOUNT}/ws", additional_headers=headers) as socket:
            socket.recv(timeout=30)
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


# --- the token -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/functions", "/api/download", "/none"])
def test_nothing_is_to_be_had_without_the_token(port: int, path: str) -> None:
    assert ask(port, path).status_code == 401
    assert ask(port, path, Authorization="Bearer wrong").status_code == 401
    assert ask(port, path, Cookie="pyscope=1; pyscope-0123=2").status_code == 401


def test_the_token_in_the_address_becomes_a_cookie_and_leaves_the_address(port: int) -> None:
    answer = ask(port, f"/?view=flame&token={TOKEN}&x=1".replace(" ", "%20"))
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{MOUNT}/?view=flame&x=1"
    assert answer.headers["cache-control"] == "no-store"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert f"Path={MOUNT}" in cookie
    assert TOKEN not in cookie
    assert "Secure" not in cookie  # over http it would never come back
    assert ask(port, "/", Cookie=cookie.partition(";")[0]).status_code == 200


def test_the_token_in_the_address_is_not_in_the_log_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "uvicorn.access"),
        served(service(token=TOKEN), access_log=True, log_config=None, log_level="info") as port,
    ):
        assert ask(port, f"/?view=flame&token={TOKEN}").status_code == 303
    told = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert [f"{MOUNT}/?view=flame " in line.replace('"', " ") for line in told] == [True], told
    assert "token" not in "".join(told)


def test_a_wrong_token_in_the_address_sets_no_cookie(port: int) -> None:
    answer = ask(port, "/?token=wrong")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_the_token_in_the_address_opens_no_websocket_and_no_control(port: int) -> None:
    given = TOKEN.replace(" ", "%20")
    with (
        pytest.raises(InvalidStatus),
        connect(f"ws://127.0.0.1:{port}{MOUNT}/ws?token={given}"),
    ):
        pass
    assert httpx.post(f"http://127.0.0.1:{port}{MOUNT}/api/stop?token={given}").status_code == 401


def test_the_address_is_kept_under_a_mount_that_takes_its_path_away() -> None:
    inner = live.create_app("/nowhere.pyscope", token=TOKEN)

    async def mounted(scope: Any, receive: Any, send: Any) -> None:  # as Starlette before 0.33 does
        if scope["type"] != "lifespan":
            scope = {**scope, "root_path": MOUNT, "path": scope["path"].removeprefix(MOUNT)}
        await inner(scope, receive, send)

    with served(mounted) as port:
        answer = ask(port, f"/?token={TOKEN}&x=1".replace(" ", "%20"))
    assert (answer.status_code, answer.headers["location"]) == (303, f"{MOUNT}/?x=1")


def test_a_redirect_leads_to_no_other_host() -> None:
    with served(live.create_app("/nowhere.pyscope", token=TOKEN)) as port:
        for path in ("//evil.example/", "/%5Cevil.example/", "/%0d%0aSet-Cookie:%20a=b/", "/€/"):
            answer = httpx.get(f"http://127.0.0.1:{port}{path}?token={TOKEN.replace(' ', '%20')}")
            assert answer.status_code == 303
            assert re.fullmatch(r"/[^/\\\s]\S*", answer.headers["location"])
            assert "a=b" not in answer.headers.get("set-cookie", "")


def test_cookies_of_two_dashboards_on_one_host_do_not_collide() -> None:
    assert Access("one").cookie_name != Access("two").cookie_name


def test_a_cookie_of_https_is_sent_over_nothing_else() -> None:
    assert "Secure" in Access(TOKEN).cookie_header("/", secure=True)


def test_tokens_are_long_and_differ() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert all(len(new_token()) >= 43 for _ in range(100))


def test_the_last_of_several_tokens_counts_and_all_are_taken_out() -> None:
    assert token_of_query("token=a&x=%26&token=b") == ("b", "x=%26")
    assert token_of_query("x=1") == (None, "x=1")


# --- hosts and origins ---------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "shop.example", "SHOP.example"])
def test_known_hosts_are_answered(port: int, host: str) -> None:
    assert ask(port, "/", Host=f"{host}:{port}", **BEARER).status_code == 200
    assert ask(port, "/", Host=host, **BEARER).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.",
        "user@127.0.0.1",
        "127.0.0.1/x",
        "",
        "localhost:x",
    ],
)
def test_other_hosts_are_refused_even_with_the_token(port: int, host: str) -> None:
    assert ask(port, "/", Host=host, **BEARER).status_code == 403
    assert handshake(port, Host=host, **BEARER) in (403, 400)


def test_a_websocket_needs_the_cookie_and_its_own_origin(port: int) -> None:
    cookie = cookie_of(port)
    own = f"http://127.0.0.1:{port}"
    assert handshake(port) in (401, 403)
    assert handshake(port, Origin=own) in (401, 403)
    assert handshake(port, Cookie=cookie, Origin=own) == 101
    assert handshake(port, Cookie=cookie) == 403
    assert handshake(port, Cookie=cookie, Origin="null") == 403
    assert handshake(port, Cookie=cookie, Origin="http://evil.example") == 403
    assert handshake(port, Cookie=cookie, Origin=f"http://127.0.0.1:{port + 1}") == 403
    assert handshake(port, Cookie=cookie, Origin=f"http://127.0.0.1:{port}.evil.example") == 403
    assert handshake(port, Cookie=cookie, Origin="https://shop.example") == 101  # behind a proxy
    assert handshake(port, **BEARER) == 101
    assert handshake(port, Origin="http://evil.example", **BEARER) == 403


# --- controls ------------------------------------------------------------------------------------


def press(port: int, name: str = "dump", **headers: str) -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{port}{MOUNT}/api/{name}", headers=headers, timeout=30)


def test_a_control_needs_cookie_origin_and_the_secret_of_the_page(port: int) -> None:
    own = f"http://127.0.0.1:{port}"
    whole = {"Cookie": cookie_of(port), "Origin": own, "X-PyScope-CSRF": csrf_of(port)}
    assert press(port, **whole).status_code == 409  # let in: there is nothing to dump
    for missing in whole:
        rest = {name: value for name, value in whole.items() if name != missing}
        assert press(port, **rest).status_code in (401, 403), missing
    assert press(port, **whole | {"Origin": "http://evil.example"}).status_code == 403
    assert press(port, **whole | {"X-PyScope-CSRF": "0" * 64}).status_code == 403


@pytest.mark.parametrize("name", ["start", "stop", "dump"])
def test_controls_are_not_to_be_had_by_get(port: int, name: str) -> None:
    assert ask(port, f"/api/{name}", **BEARER).status_code == 405


def test_a_read_only_dashboard_shows_and_does_nothing() -> None:
    with served(service(token=TOKEN, read_only=True)) as port:
        assert ask(port, "/", **BEARER).status_code == 200
        answer = press(port, "start", **BEARER, **{"X-PyScope-CSRF": csrf_of(port)})
        assert answer.status_code == 403
        assert "read-only" in answer.json()["error"]


# --- headers, files, and being off ---------------------------------------------------------------


def test_every_answer_forbids_foreign_and_inline_code_and_is_not_kept(port: int) -> None:
    for path, headers in (("/", BEARER), ("/", {}), ("/static/app.js", BEARER), ("/api/functions", BEARER)):
        answer = ask(port, path, **headers)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/x%00.js",
    ],
)
def test_no_file_outside_the_page_is_served(port: int, path: str) -> None:
    assert ask(port, path, **BEARER).status_code == 404


def test_the_service_itself_is_as_it_was(port: int) -> None:
    answer = httpx.get(f"http://127.0.0.1:{port}/", headers={"Host": "anything.example"})
    assert answer.json() == "the service"
    assert "content-security-policy" not in answer.headers


def test_without_a_token_there_is_nothing_and_the_log_says_how_to_turn_it_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "pyscope.live"):
        app = service()
    assert [record.getMessage() for record in caplog.records] == [
        f"the live dashboard at {MOUNT} is off: set PYSCOPE_TOKEN to a long secret to turn it on"
    ]
    with served(app) as port:
        assert ask(port, "/").status_code == 404
        assert ask(port, "/?token=").status_code == 404
        assert handshake(port) in (403, 404)
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200


def test_the_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSCOPE_TOKEN", TOKEN)
    with served(service()) as port:
        assert ask(port, "/", **BEARER).status_code == 200


@pytest.mark.parametrize("path", ["", "/", "admin", "/{name}"])
def test_a_bad_mount_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="mount path"):
        live.mount(FastAPI(), path, token=TOKEN)


def test_any_asgi_application_can_carry_it() -> None:
    async def plain(scope: dict[str, object], receive: object, send: object) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
            await send({"type": "http.response.body", "body": b"plain"})  # type: ignore[operator]

    with served(live.mount(plain, MOUNT, token=TOKEN)) as port:
        assert httpx.get(f"http://127.0.0.1:{port}/").text == "plain"
        assert httpx.get(f"http://127.0.0.1:{port}{MOUNT}x").text == "plain"
        assert ask(port, "/").status_code == 401
        assert ask(port, "/", **BEARER).status_code == 200


def test_addresses_of_this_machine_are_known() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "::1", "[::1]", "localhost", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "example.com")))
