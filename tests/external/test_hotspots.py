"""Slow calls and blocked event loops: what took the time is named, and what is only long is not."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pykka
import pytest
import requests
from services import TLS, Answer, Service
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine

import pyscope
from pyscope import emitter
from pyscope.analysis import hotspots
from pyscope.findings import PerformanceIssue
from pyscope.probes.scope import Scope
from pyscope.trace import Trace, load

Record = Callable[..., Trace]
SLOW = 0.3  # seconds; the thresholds of these tests are half of it
LIMITS = {"slow_ms": SLOW * 500, "blocking_ms": SLOW * 500}
PROBES = ["http", "retry", "sqlalchemy", "sync", "event_loop"]


@pytest.fixture
def issues(record: Record) -> Callable[..., list[PerformanceIssue]]:
    """`issues(body, kind)` runs `body` recorded and returns the findings of a kind."""

    def run(body: Callable[[], Any], kind: str, probes: list[str] | None = None) -> list[PerformanceIssue]:
        gc.collect()  # a full one takes 90 ms in a process that has run many tests
        trace = record(body, probes or PROBES)
        return [issue for issue in hotspots.find(trace, **LIMITS) if issue.kind == kind]

    return run


Issues = Callable[..., list[PerformanceIssue]]
SLOW_CALL, BLOCKING = "slow_call", "blocking_call_in_event_loop"


def slowly(service: Service, count: int = 1, seconds: float = SLOW) -> None:
    """The next answers of a service take their time."""
    original = service.requests

    class Waiting(list):  # type: ignore[type-arg]
        def append(self, path: Any) -> None:
            time.sleep(seconds)
            super().append(path)

    service.requests = Waiting(original)
    service.answers = [Answer()] * count


# --- slow calls ----------------------------------------------------------------------------------


def leaf() -> None:
    time.sleep(SLOW)


def middle() -> None:
    leaf()


def outer() -> None:
    middle()


def test_the_call_that_takes_the_time_is_named_and_not_its_callers(issues: Issues) -> None:
    [issue] = issues(outer, SLOW_CALL)
    assert (issue.call_site.function, issue.call_site.file) == ("leaf", __file__)
    assert [place.function for place in issue.stack] == ["leaf", "middle", "outer"]
    assert (issue.count, issue.query_count) == (1, 0)
    assert issue.total_ms >= SLOW * 1000
    assert issue.parts is not None
    assert issue.parts.wall_ns == issue.duration_ns >= SLOW * 1e9


def test_a_call_below_the_threshold_is_not_slow(record: Record) -> None:
    trace = record(outer)
    longest = max(trace.calls["duration_ns"].tolist()) / 1e6
    assert hotspots.find(trace, slow_ms=longest + 1) == []
    assert len(hotspots.find(trace, slow_ms=SLOW * 1000)) == 1


def test_slow_calls_of_one_function_are_one_finding(issues: Issues) -> None:
    def thrice() -> None:
        for _ in range(3):
            outer()

    [issue] = issues(thrice, SLOW_CALL)
    assert (issue.call_site.function, issue.count) == ("leaf", 3)
    assert issue.total_ms >= 3 * SLOW * 1000


def test_a_call_with_many_callees_none_of_which_is_slow_is_itself(issues: Issues) -> None:
    def small() -> None:
        time.sleep(SLOW / 10)

    def request() -> None:
        many()

    def many() -> None:
        for _ in range(10):
            small()

    def served() -> None:
        with Scope("request", "GET /"):
            request()

    [issue] = issues(request, SLOW_CALL)
    assert issue.call_site.function.endswith("many")
    assert issue.suggestion.endswith(": profile it.")
    [issue] = issues(served, SLOW_CALL)
    assert issue.suggestion.endswith(": profile it, or do it after the answer.")


SCRIPT = """
import time

def short():
    time.sleep(0.1)

def long():
    time.sleep(0.5)

def main():
    for _ in range(4):
        short()
    long()
    short()
    short()

main()
"""


def test_the_main_function_of_a_script_is_not_slow_and_what_it_calls_is(tmp_path: Path) -> None:
    script, recording = tmp_path / "script.py", tmp_path / "run.pyscope"
    script.write_text(SCRIPT)
    subprocess.run([sys.executable, "-m", "pyscope", "run", "-o", recording, script], check=True)
    assert [issue.call_site.function for issue in hotspots.find(load(recording), slow_ms=300)] == ["long"]


def test_a_main_thread_that_waits_while_others_serve_is_not_slow(tmp_path: Path) -> None:
    def slow_of(serves: bool) -> list[str]:
        path = tmp_path / f"{serves}.pyscope"
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        command = ["-m", "pyscope", "run", "-o", str(path), str(program), "serves" if serves else "computes"]
        subprocess.run([sys.executable, *command], check=True, cwd=Path(__file__).parents[2])
        found = hotspots.find(pyscope.load(path), **LIMITS)
        return [issue.call_site.function for issue in found if issue.kind == SLOW_CALL]

    assert slow_of(serves=True) == []
    assert slow_of(serves=False) == ["main"]


EVERY_MODULE = f"""
import asyncio, contextlib, queue, threading, time
from concurrent.futures import ThreadPoolExecutor

def work(number):
    return sum(range(number))

def consume(items):
    while (item := items.get()) is not None:
        work(item)

def idles():
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(9)))
        time.sleep({SLOW})
    items = queue.Queue()
    consumer = threading.Thread(target=consume, args=(items,))
    consumer.start()
    items.put(9)
    time.sleep({SLOW})
    items.put(None)
    consumer.join()

async def sleeps():
    await asyncio.sleep({SLOW})
    await asyncio.to_thread(work, 5)

def waits(event):
    event.wait({SLOW})

@contextlib.contextmanager
def around():
    yield

@around()
def decorated():
    time.sleep({SLOW})

def calls():
    decorated()

idles()
asyncio.run(sleeps())
waits(threading.Event())
calls()
"""


def test_where_libraries_are_recorded_too_it_is_the_program_s_call_that_is_slow(tmp_path: Path) -> None:
    def slow_of(*modules: str) -> list[str]:
        path, program = tmp_path / "run.pyscope", tmp_path / "program.py"
        program.write_text(EVERY_MODULE)
        selected = [option for each in modules for option in ("--modules", each)]
        command = ["-m", "pyscope", "run", "-o", str(path), *selected, str(program)]
        subprocess.run([sys.executable, *command], check=True, cwd=Path(__file__).parents[2])
        found = hotspots.find(pyscope.load(path), **LIMITS)
        return [issue.call_site.function for issue in found if issue.kind == SLOW_CALL]

    assert slow_of("*") == ["waits", "decorated"]
    assert "Condition.wait" in slow_of("*", "threading")  # who names a library asks about it


PROGRAM = f"""
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor

def handle():
    time.sleep({SLOW / 10})

def main():
    with ThreadPoolExecutor(2) as pool:
        if sys.argv[1] == "serves":
            for _ in range(4):
                pool.submit(handle)
        threading.Event().wait({SLOW})

def run():
    main()

if __name__ == "__main__":
    run()
"""


def test_the_part_of_sql(issues: Issues, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'data'}")

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.create_function("pause", 1, time.sleep)

    def load() -> None:
        with engine.connect() as connection:
            for _ in range(2):
                connection.execute(text(f"SELECT pause({SLOW / 2})"))

    [issue] = issues(load, SLOW_CALL)
    engine.dispose()
    assert issue.query_count == 2
    assert issue.parts is not None
    assert issue.parts.sql_share > 0.5
    assert "EXPLAIN" in issue.suggestion


def test_the_part_of_other_services(issues: Issues, service: Service) -> None:
    slowly(service, 2)

    def ask() -> None:
        for _ in range(2):
            requests.get(service.url)

    found = issues(ask, SLOW_CALL)
    [issue] = [issue for issue in found if issue.call_site.function.endswith("ask")]
    assert issue.parts is not None
    assert issue.parts.external_count == 2
    assert issue.parts.external_share > 0.8
    assert "side by side" in issue.suggestion
    assert "2 attempts" in issue.explanation


def test_one_attempt_is_told_in_the_singular(issues: Issues, service: Service) -> None:
    slowly(service)

    def ask() -> None:
        requests.get(service.url)

    found = issues(ask, SLOW_CALL)
    [issue] = [issue for issue in found if issue.call_site.function.endswith("ask")]
    assert "in 1 attempt to call" in issue.explanation


def test_the_part_of_lock_waits(issues: Issues) -> None:
    def wait(lock: Any) -> None:
        with lock:
            pass

    def body() -> None:
        lock = threading.Lock()
        held = threading.Event()

        def hold() -> None:
            with lock:
                held.set()
                time.sleep(SLOW)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        wait(lock)
        holder.join()

    by_name = {issue.call_site.function.rpartition(".")[2]: issue for issue in issues(body, SLOW_CALL)}
    parts = by_name["wait"].parts
    assert parts is not None
    assert parts.lock_share > 0.5
    assert "lock" in by_name["wait"].suggestion


def test_coroutines_that_only_wait_their_turn_are_not_slow(issues: Issues) -> None:
    async def consumer(queue: asyncio.Queue[int]) -> None:
        while await queue.get():
            pass

    async def main() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue()
        task = asyncio.create_task(consumer(queue))
        await asyncio.sleep(SLOW)
        queue.put_nowait(0)
        await task

    assert issues(lambda: asyncio.run(main()), SLOW_CALL) == []


def test_a_coroutine_that_somebody_waits_for_is_slow_whatever_it_does(issues: Issues) -> None:
    async def handler() -> None:
        await asyncio.sleep(SLOW)

    async def main() -> None:
        with Scope("request", "GET /"):
            await handler()

    [issue] = issues(lambda: asyncio.run(main()), SLOW_CALL)
    assert issue.call_site.function.endswith("handler")
    assert issue.scope > 0


class Clerk(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        seconds, reply = message
        time.sleep(seconds)
        if reply is not None:
            reply()


async def asks(clerk: Any, seconds: float) -> None:
    loop, answered = asyncio.get_running_loop(), asyncio.Event()
    clerk.tell((seconds, lambda: loop.call_soon_threadsafe(answered.set)))
    await answered.wait()


async def tells_and_sleeps(clerk: Any) -> None:
    clerk.tell((SLOW / 3, None))
    await asyncio.sleep(SLOW)


def asked(issues: Issues, work: Callable[[Any], Any]) -> PerformanceIssue:
    async def main(clerk: Any) -> None:
        with Scope("request", "GET /"):
            await work(clerk)

    def body() -> None:
        clerk = Clerk.start()
        try:
            asyncio.run(main(clerk))
        finally:
            clerk.stop()

    found = issues(body, SLOW_CALL, [*PROBES, "actors"])
    [issue] = [one for one in found if not one.call_site.function.startswith("Clerk.")]
    return issue


def test_a_call_that_waits_for_an_actor_says_for_whom_and_how_long_it_was_handled(issues: Issues) -> None:
    issue = asked(issues, lambda clerk: asks(clerk, SLOW))
    assert issue.call_site.function == "asks"
    assert re.search(
        r"it waited for Clerk's answer to .*, which stood in the mailbox for [\d.]+ \w+ and took [\d.]+ m?s",
        issue.explanation,
    )
    assert issue.suggestion.startswith("Shorten what Clerk does")


def test_a_message_that_stands_behind_others_says_so(issues: Issues) -> None:
    async def work(clerk: Any) -> None:
        clerk.tell((SLOW, None))
        await asks(clerk, 0)

    issue = asked(issues, work)
    assert issue.call_site.function == "asks"
    assert issue.suggestion.startswith("Clerk handles one message after another")


def test_who_tells_an_actor_and_goes_on_has_not_waited_for_it(issues: Issues) -> None:
    issue = asked(issues, tells_and_sleeps)
    assert "Clerk" not in issue.explanation + issue.suggestion


def test_statements_of_an_asynchronous_engine_count_for_the_coroutine(issues: Issues, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'data'}")
    slow = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1500000) SELECT count(*) FROM n"
    )

    async def load() -> None:
        async with engine.connect() as connection:
            await connection.execute(text(slow))

    async def main() -> None:
        await load()
        await engine.dispose()

    trace_issues = issues(lambda: asyncio.run(main()), SLOW_CALL)
    found = [issue for issue in trace_issues if issue.call_site.function.endswith("load")]
    assert len(found) == 1
    assert found[0].parts is not None
    assert found[0].parts.sql_share > 0.5


# --- blocked event loops -------------------------------------------------------------------------


def compute() -> None:
    end = time.perf_counter() + SLOW
    while time.perf_counter() < end:
        pass


async def by_sleep(service: Service) -> None:
    await asyncio.sleep(0)
    time.sleep(SLOW)
    await asyncio.sleep(0)


async def by_computing(service: Service) -> None:
    await asyncio.sleep(0)
    compute()


async def by_a_call(service: Service) -> None:
    await asyncio.sleep(0)
    outer()


async def by_requests(service: Service) -> None:
    await asyncio.sleep(0)
    slowly(service)
    requests.get(service.url)


async def by_sql(service: Service) -> None:
    await asyncio.sleep(0)
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.connection.create_function("pause", 1, time.sleep)  # type: ignore[attr-defined]
        connection.execute(text(f"SELECT pause({SLOW})"))
    engine.dispose()


async def by_a_lock(service: Service) -> None:
    await asyncio.sleep(0)
    lock = threading.Lock()
    lock.acquire()
    threading.Timer(SLOW, lock.release).start()
    lock.acquire()
    lock.release()


async def by_sleep_after_a_statement(service: Service) -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    time.sleep(SLOW)
    engine.dispose()


async def in_a_thread(service: Service) -> None:
    await asyncio.to_thread(time.sleep, SLOW)
    await asyncio.to_thread(outer)


async def by_awaiting(service: Service) -> None:
    slowly(service)
    async with httpx2.AsyncClient(verify=TLS) as client:
        await client.get(service.url)


async def by_an_asyncio_lock(service: Service) -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    asyncio.get_running_loop().call_later(SLOW, lock.release)
    async with lock:
        pass


async def in_small_steps(service: Service) -> None:
    for _ in range(30):
        time.sleep(SLOW / 30)
        await asyncio.sleep(0)


FAULTY = [
    (by_sleep, "by_sleep", "by_sleep"),
    (by_sleep_after_a_statement, "by_sleep_after_a_statement", "by_sleep_after_a_statement"),
    (by_computing, "compute", "compute"),
    (by_a_call, "leaf", "leaf"),
    (by_requests, "by_requests", "urllib3: GET / to"),
    (by_sql, "by_sql", "SQL: SELECT pause"),
    (by_a_lock, "by_a_lock", "a lock that another thread holds"),
]


@pytest.mark.parametrize("with_probe", [True, False])
@pytest.mark.parametrize(("way", "place", "what"), FAULTY)
def test_what_blocks_a_loop_is_named(
    issues: Issues, service: Service, way: Any, place: str, what: str, with_probe: bool
) -> None:
    asyncio.run(way(service))  # what is imported then, or first connected, may take long
    probes = [name for name in PROBES if with_probe or name != "event_loop"]
    found = issues(lambda: asyncio.run(way(service)), BLOCKING, probes)
    here = [issue for issue in found if issue.call_site.function.rpartition(".")[2] == place]
    told = [(issue.explanation, issue.duration_ns / 1e6, issue.call_site) for issue in found]
    assert len(here) == 1, told  # a busy machine may hold the loop up elsewhere too
    issue = here[0]
    assert issue.call_site.file == __file__
    assert issue.explanation.startswith(what)
    assert "asyncio" in issue.suggestion
    assert issue.duration_ns >= SLOW * 1e9 * 0.9
    assert issue.count == 1


def test_a_wait_whose_begin_is_told_late_is_one_finding(
    issues: Issues, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(by_requests(service))

    def body() -> None:
        stack = emitter.stack

        def slowly(*arguments: Any) -> int:
            time.sleep(0.05)
            return stack(*arguments)

        monkeypatch.setattr(emitter, "stack", slowly)
        asyncio.run(by_requests(service))
        monkeypatch.undo()

    [issue] = issues(body, BLOCKING, [*PROBES])
    assert issue.explanation.startswith("urllib3: GET / to")


@pytest.mark.parametrize("way", [in_a_thread, by_awaiting, by_an_asyncio_lock, in_small_steps])
def test_what_does_not_block_a_loop_is_no_finding(issues: Issues, service: Service, way: Any) -> None:
    asyncio.run(way(service))  # what is imported then, or first connected, may take long
    assert issues(lambda: asyncio.run(way(service)), BLOCKING, ["http", "sqlalchemy", "sync"]) == []


def test_a_stretch_below_the_threshold_is_no_finding(record: Record, service: Service) -> None:
    trace = record(lambda: asyncio.run(by_computing(service)), ["http"])
    longest = max(trace.calls["duration_ns"].tolist()) / 1e6
    assert hotspots.find(trace, slow_ms=1e9, blocking_ms=longest + 1) == []
    assert len(hotspots.find(trace, slow_ms=1e9, blocking_ms=SLOW * 1000)) == 1


def test_a_place_that_blocks_again_and_again_is_one_finding(issues: Issues, service: Service) -> None:
    async def thrice() -> None:
        for _ in range(3):
            await by_computing(service)

    found = issues(lambda: asyncio.run(thrice()), BLOCKING)
    [issue] = [issue for issue in found if issue.call_site.function.rpartition(".")[2] == "compute"]
    assert issue.count == 3
    assert issue.total_ms >= 3 * SLOW * 1000


def test_what_is_made_at_run_time_is_not_the_place_that_blocks(issues: Issues, service: Service) -> None:
    made: dict[str, Any] = {"time": time, "__name__": __name__}
    exec(f"def __init__(self): time.sleep({SLOW})", made)  # as dataclasses make theirs

    async def making() -> None:
        made["__init__"](None)

    [issue] = issues(lambda: asyncio.run(making()), BLOCKING)
    assert (issue.call_site.file, issue.call_site.function.rpartition(".")[2]) == (__file__, "making")


def test_what_blocks_is_told_with_its_task(issues: Issues, service: Service) -> None:
    async def main() -> None:
        await asyncio.create_task(by_computing(service), name="the culprit")

    [issue] = issues(lambda: asyncio.run(main()), BLOCKING)
    assert issue.context == "the culprit"


def test_the_same_work_outside_a_loop_is_no_finding(issues: Issues) -> None:
    assert issues(compute, BLOCKING) == []


KERNEL = """
import ast, asyncio, sys

CELL = '''
import pyscope, time

def computes():
    time.sleep(0.2)

async def blocks():
    time.sleep(0.2)

with pyscope.record(path, modules=["notebook"]):
    computes()
    await asyncio.gather(blocks())
'''

async def kernel():
    cell = compile(CELL, "cell.py", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(cell, {"__name__": "notebook", "path": sys.argv[1], "asyncio": asyncio})

asyncio.run(kernel())
"""


def test_a_cell_of_a_notebook_does_not_block_the_loop_of_its_kernel(tmp_path: Path) -> None:
    """As ipykernel runs it; what a cell awaits may block others of its tasks."""
    (tmp_path / "ipykernel_launcher.py").write_text(KERNEL)
    recording = tmp_path / "run.pyscope"
    search = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    subprocess.run(
        [sys.executable, "-m", "ipykernel_launcher", recording],
        check=True,
        env={**os.environ, "PYTHONPATH": search},
    )
    found = [issue.call_site.function for issue in hotspots.find(load(recording), slow_ms=1000)]
    assert found == ["blocks"]
