"""A real process that records itself and does what a test tells it, line by line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

CODE = r"""
import asyncio, itertools, os, signal, sys, threading, time
import pyscope
from pyscope import emitter
from pyscope.events.external import (EXTERNAL_BEGIN, EXTERNAL_END, RETRY_BEGIN, RETRY_END, RETRY_WAIT,
                                     AttemptOutcome)
from pyscope.events.sql import STATEMENT
from pyscope.events.state import STATE_CHANGE
from pyscope.events.supervision import CHILD
from pyscope.events.sync import ACCESS
from pyscope.probes.scope import Scope

def work(depth):
    return depth if depth == 0 else work(depth - 1) + 1

def one_request(name="GET /things", error=None):
    scope = Scope("request", name).enter()
    scope.route, scope.status = "/things", 500 if error else 200
    work(5)
    emitter.emit(STATEMENT.kind, emitter.next_id(), 1_000_000, emitter.intern("SELECT things"), 1, 0, 0, 1,
                 emitter.stack(), 0, 0, 0, 0, 0, 0, 0)
    try:
        if error:
            raise ValueError(error)
    except ValueError as raised:
        scope.leave(raised)
    else:
        scope.leave()
    return scope.id

def requests(count, threads):
    def run():
        for _ in range(count):
            one_request()
    workers = [threading.Thread(target=run) for _ in range(threads)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]

def call(service="http", outcomes="succeeded", waits=0.0):
    scope = Scope("request", "GET /outside").enter()
    for outcome in outcomes.split(","):
        attempt = emitter.next_id()
        texts = [emitter.intern(text) for text in (service, "POST /hooks", "example:443", "httpx")]
        emitter.emit(EXTERNAL_BEGIN.kind, attempt, 0, 0, 0, *texts, 1, 0, 7, emitter.stack())
        ended = int(AttemptOutcome[outcome.upper()])
        error = emitter.intern("HTTP 503") if outcome == "failed" else 0
        emitter.emit(EXTERNAL_END.kind, attempt, 1000, ended, 0, error)
    scope.leave()

def mails(count):
    # So many at a time, each in a task of its own: connected, refused, tried again within one retry, and sent.
    smtp, peer, client = (emitter.intern(text) for text in ("smtp", "mail.example:25", "aiosmtplib"))

    async def attempt(group, number, operation, outcome):
        one = emitter.next_id()
        emitter.emit(EXTERNAL_BEGIN.kind, one, 0, group, number, smtp, emitter.intern(operation), peer, client, 0, 0, 7,
                     emitter.stack())
        await asyncio.sleep(0.001)
        emitter.emit(EXTERNAL_END.kind, one, 1000, int(AttemptOutcome[outcome]), 0, 0)

    async def mail(number):
        group = emitter.next_id()
        for attempts in (1, 2):
            emitter.emit(RETRY_BEGIN.kind, group, attempts, 0, 0, emitter.intern("send"), emitter.intern("stamina"),
                         emitter.stack())
            await attempt(group, attempts, "CONNECT", "SUCCEEDED")
            last = attempts == 2
            await attempt(group, attempts, "MAIL", "SUCCEEDED" if last else "FAILED")
            emitter.emit(RETRY_END.kind, group, attempts, 1000, int(AttemptOutcome.SUCCEEDED), 0)
            if not last:
                emitter.emit(RETRY_WAIT.kind, group, attempts, 5_000_000)

    async def all_of_them():
        await asyncio.gather(*map(mail, range(count)))

    asyncio.run(all_of_them())

def change(old, new):
    emitter.emit(STATE_CHANGE.kind, 1, 0, 0, 1, 1, emitter.intern("Task"), emitter.intern("status"),
                 emitter.intern("assign"), emitter.stack(), "7", old, new)

def child(kind, name, reason=""):
    emitter.emit(CHILD.kind, 1, 0, emitter.intern(kind), emitter.intern("projects"), emitter.intern(name), 0, reason)

def fork_and_work(count):
    pid = os.fork()
    if pid == 0:
        for _ in range(count):
            one_request("GET /child")
        pyscope.stop()
        os._exit(0)
    os.waitpid(pid, 0)

def hostile():
    namespace = {}
    name = "</script><img src=x onerror=alert(1)>\u202e"
    exec(compile("def f(): return 1", "evil<b>.py", "exec"), {"__name__": "__main__"}, namespace)
    function = namespace["f"]
    function.__code__ = function.__code__.replace(co_name=name, co_qualname=name)
    scope = Scope("request", "GET /<script>alert(1)</script>").enter()
    function()
    emitter.emit(STATEMENT.kind, emitter.next_id(), 1000, emitter.intern("SELECT '</script>\0\ud800'"), 1, 0, 0, 1,
                 emitter.stack(), 0, 0, 0, 0, 0, 0, 0)
    scope.leave(ValueError("boom"))

print("ready", os.getpid(), flush=True)
for line in sys.stdin:
    try:
        print("done", eval(line), flush=True)
    except BaseException as error:
        print("failed", repr(error), flush=True)
pyscope.stop() if pyscope.recorder.active() else None
"""


class Recorded:
    """The process. `tell` evaluates an expression in it and gives the answer's text."""

    def __init__(self, folder: Path) -> None:
        code = folder / "recorded_program.py"
        code.write_text(CODE, encoding="utf-8")
        rings = folder / "rings"
        rings.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, str(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=folder,
            env={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(Path(__file__).parents[2]),
                # where the recorders of other tests do not seal the ring of a process that was killed
                "PYSCOPE_RING_DIR": str(rings),
            },
        )
        self.pid = int(self._answer("ready"))

    def tell(self, expression: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(expression + "\n")
        self._process.stdin.flush()
        return self._answer("done")

    def record(self, path: Path | None, **settings: object) -> None:
        """Starts a recording in it, of its own module."""
        given = {"modules": ["__main__"], "ring_mb": 8, "probes": []} | settings
        arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
        self.tell(f"pyscope.start({str(path) if path else None!r}, {arguments}) and None")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Lets it end in order, which stops the recording."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _answer(self, expected: str) -> str:
        assert self._process.stdout is not None
        word, _, rest = self._process.stdout.readline().rstrip("\n").partition(" ")
        assert word == expected, f"{word} {rest}"
        return rest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
