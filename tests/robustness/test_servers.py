"""Servers with several worker processes, as they are deployed: they answer, reload and end as without PyScope."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable

import pytest
from programs import Programs

import pyscope

DEADLINE = 90.0
REQUESTS = 12

WSGI = """
import os
VERSION = 1
def handle(path): return f"{VERSION} {path}".encode()
def app(environ, start_response):
    body = handle(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-Worker", str(os.getpid()))])
    return [body]
"""
ASGI = """
import os
VERSION = 1
def handle(path): return f"{VERSION} {path}".encode()
async def app(scope, receive, send):
    if scope["type"] != "http": return
    headers = [(b"x-worker", str(os.getpid()).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": handle(scope["path"])})
"""


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {DEADLINE:g} s"
        time.sleep(0.02)


class Server:
    """A server command under `pyscope run`, its address, and the answers it has given."""

    def __init__(self, programs: Programs, source: str, *command: str) -> None:
        programs.write(source, "shop.py")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.log = (programs.folder / "log").open("w+")
        arguments = [part.replace("PORT", str(self.port)) for part in command]
        run = ["-m", "pyscope", "run", "--modules", "shop", "-o", "run.pyscope", "-m"]
        self.process = subprocess.Popen(
            [sys.executable, *run, *arguments],
            cwd=programs.folder,
            env=programs.environment(PYTHONDONTWRITEBYTECODE="1"),
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self.answers: Counter[str] = Counter()
        self.workers: set[str] = set()

    def ask(self, path: str = "/x") -> str | None:
        """The answer; None while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=DEADLINE) as answer:
                text: str = answer.read().decode()
                self.workers.add(answer.headers["X-Worker"])
        except (urllib.error.URLError, ConnectionError):
            assert self.process.poll() is None, self.said()
            return None
        self.answers[text] += 1
        return text

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.mark.parametrize(
    ("source", "command"),
    [
        (WSGI, ["gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:PORT", "shop:app"]),
        (ASGI, ["uvicorn", "--workers", "2", "--port", "PORT", "shop:app"]),
    ],
    ids=["gunicorn-preload", "uvicorn-workers"],
)
def test_every_request_of_every_worker_is_in_one_recording(
    programs: Programs, source: str, command: list[str]
) -> None:
    server = Server(programs, source, *command)
    try:
        until(server.ask, "an answer")
        until(lambda: server.ask() and len(server.workers) == 2, "an answer of each worker")
        for number in range(REQUESTS):
            assert server.ask(f"/{number}") == f"1 /{number}"
    finally:
        code = server.end(signal.SIGTERM)
    said = server.said()
    assert code in (0, -signal.SIGTERM), said
    assert "Traceback" not in said
    trace = pyscope.load(programs.folder / "run.pyscope")
    assert len(trace.find(function="handle")) == server.answers.total()
    processes = {
        trace.threads[thread].process for thread in trace.calls["thread"][trace.find(function="handle").rows]
    }
    assert len(processes) == 2
    assert not [loss for loss in trace.losses if loss.reason == "fault"]


def test_uvicorn_reloads_what_was_edited_and_records_on(programs: Programs) -> None:
    server = Server(
        programs, ASGI, "uvicorn", "--reload", "--reload-delay", "0.1", "--port", "PORT", "shop:app"
    )
    try:
        until(server.ask, "an answer")
        time.sleep(1.1)  # a file system may keep whole seconds of a file's time
        programs.write(ASGI.replace("VERSION = 1", "VERSION = 2"), "shop.py")
        until(lambda: server.ask() == "2 /x", "an answer of the edited program")
    finally:
        code = server.end(signal.SIGINT)
    said = server.said()
    assert code in (0, -signal.SIGINT), said
    assert "Traceback" not in said
    trace = pyscope.load(programs.folder / "run.pyscope")
    assert len(trace.find(function="handle")) == server.answers.total()
    assert len(trace.processes) >= 3  # the one that watches the files, and the program twice


def test_a_child_of_a_child_that_becomes_a_daemon_is_recorded_to_its_end(programs: Programs) -> None:
    programs.run("""
        import os, sys, time
        import pyscope
        def leaf(): pass
        pyscope.start("run.pyscope", modules=["__main__"])
        said, says = os.pipe()
        leaf()
        if not os.fork():
            leaf(); leaf()
            os.setsid()
            if os.fork(): os._exit(0)
            for _ in range(50): leaf()
            os.write(says, b"x")
            os._exit(0)
        os.wait()
        assert os.read(said, 1) == b"x"
        time.sleep(0.2)
        pyscope.stop()
    """)
    trace = pyscope.load(programs.folder / "run.pyscope")
    counts = Counter(
        trace.threads[thread].process for thread in trace.calls["thread"][trace.find(function="leaf").rows]
    )
    assert sorted(counts.values()) == [1, 2, 50]
