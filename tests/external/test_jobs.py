"""Each run of a job of Celery, RQ, Dramatiq and APScheduler is a scope; what becomes of it is as without PyScope."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from celery import Celery
from celery import signals as celery_signals
from redis import Redis
from rq import Queue

import pyscope
from pyscope import emitter, probes
from pyscope.analysis import hotspots, queries
from pyscope.probes.scope import Scope
from pyscope.trace import Trace
from tests.integration.servers import Valkey, valkey_server

Record = Callable[..., Trace]

SECONDS = 90.0
SHOP = """
import os, sqlite3, time
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
class Base(DeclarativeBase): pass
class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    items: Mapped[list["Item"]] = relationship()
class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
def totals():
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Order(items=[Item()]) for _ in range(6)])
        session.commit()
        return sum(len(order.items) for order in session.scalars(select(Order)))
def fails(number): raise ValueError(number)
"""
CELERY = """
import os, shop
from celery import Celery
from celery.exceptions import Ignore
app = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.broker_connection_retry_on_startup = True
totals, fails = app.task(shop.totals), app.task(shop.fails)
@app.task(bind=True, max_retries=3)
def flaky(self):
    if self.request.retries < 2: raise self.retry(countdown=0, exc=RuntimeError("not yet"))
    return self.request.retries
@app.task(autoretry_for=(KeyError,), retry_backoff=False, default_retry_delay=0, max_retries=1)
def gives_up(): raise KeyError("no")
@app.task
def ignored(): raise Ignore
"""
DRAMATIQ = """
import os, sys, dramatiq, shop
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO, SkipMessage
broker = RedisBroker(url=os.environ["BROKER"])
class Skips(dramatiq.Middleware):
    def before_process_message(self, broker, message):
        if message.actor_name == "skipped": raise SkipMessage
broker.add_middleware(AsyncIO())
broker.add_middleware(Skips())
dramatiq.set_broker(broker)
done = []
@dramatiq.actor
def totals(): done.append(shop.totals())
@dramatiq.actor(max_retries=1, min_backoff=1, max_backoff=2)
def fails(number):
    done.append("fails")
    shop.fails(number)
@dramatiq.actor
def again():
    done.append("again")
    if done.count("again") < 2: raise dramatiq.errors.Retry("later", delay=1)
@dramatiq.actor
async def awaits():
    done.append(shop.totals())
@dramatiq.actor
def skipped(): done.append("skipped")
@dramatiq.actor
def skips(): raise SkipMessage
if __name__ == "__main__":
    skips.send(), totals.send(), fails.send(3), again.send(), awaits.send(), skipped.send()
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=2)
    worker.start()
    broker.join("default")
    worker.join()
    worker.stop()
    print(sorted(map(str, done)))
"""
APSCHEDULER = """
import asyncio, datetime, shop, time
from apscheduler.events import EVENT_ALL
from apscheduler.executors.pool import ProcessPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.asyncio import AsyncIOScheduler
done = []
def note(event):
    if hasattr(event, "scheduled_run_time"):
        done.append((event.code, event.job_id, event.retval, repr(event.exception)))
async def awaits():
    await asyncio.sleep(0)
    return 3
def threads():
    executors = {"default": {"type": "threadpool"}, "processes": ProcessPoolExecutor(1)}
    scheduler = BackgroundScheduler(executors=executors)
    scheduler.add_listener(note, EVENT_ALL)
    scheduler.start()
    late = datetime.datetime.now() - datetime.timedelta(hours=1)
    scheduler.add_job(shop.totals, id="totals")
    scheduler.add_job(shop.fails, args=[3], id="fails")
    scheduler.add_job(shop.totals, id="elsewhere", executor="processes", misfire_grace_time=60)
    scheduler.add_job(shop.totals, "date", run_date=late, misfire_grace_time=1, id="missed")
    while len(done) < 4: time.sleep(0.02)
    scheduler.shutdown()
async def tasks():
    scheduler = AsyncIOScheduler()
    scheduler.add_listener(note, EVENT_ALL)
    scheduler.start()
    scheduler.add_job(awaits, id="awaits")
    while len(done) < 5: await asyncio.sleep(0.02)
    scheduler.shutdown()
if __name__ == "__main__":
    threads()
    asyncio.run(tasks())
    print(sorted(map(str, done)))
"""


class Programs:
    """Programs of a folder of their own, with a broker, under PyScope or without."""

    def __init__(self, folder: Path, broker: Valkey) -> None:
        self.folder = folder
        self.broker = broker
        (folder / "shop.py").write_text(SHOP)
        for name, text in (("tasks", CELERY), ("actors", DRAMATIQ), ("schedule", APSCHEDULER)):
            (folder / f"{name}.py").write_text(text)
        root = str(Path(pyscope.__file__).parents[1])
        self.environment = {
            **os.environ,
            "BROKER": broker.url,
            "PYTHONPATH": os.pathsep.join([str(folder), root]),
            "PYTHONWARNINGS": "ignore",
        }

    def start(self, *arguments: str, recorded: bool = True) -> subprocess.Popen[str]:
        """`python` with these arguments, recorded into run.pyscope."""
        run = ["-m", "pyscope", "run", "--modules", "shop", "--probes", "auto", "-o", "run.pyscope"]
        return subprocess.Popen(
            [sys.executable, *(run if recorded else []), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "log").open("w"),
            text=True,
        )

    def said(self, process: subprocess.Popen[str]) -> str:
        """What a program printed, which ended well."""
        try:
            out, _ = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        assert process.returncode == 0, (self.folder / "log").read_text()
        return out

    def trace(self) -> Trace:
        return pyscope.load(self.folder / "run.pyscope")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def programs(tmp_path: Path, broker: Valkey) -> Programs:
    with Redis.from_url(broker.url) as client:
        client.flushall()
    return Programs(tmp_path, broker)


def runs(trace: Trace) -> list[tuple[str, str, str]]:
    assert {row.kind for row in trace.scopes} == {"job"}
    assert {row.parent for row in trace.scopes} == {0}
    assert all(row.cpu_ns <= row.duration_ns for row in trace.scopes)
    return sorted((row.name, row.outcome, row.error) for row in trace.scopes)


def of_findings(trace: Trace) -> list[str]:
    """The jobs to which findings of N+1 queries belong."""
    rows = [trace.scopes.get(issue.scope) for issue in queries.find(trace)]
    return sorted(row.name if row else "" for row in rows)


# --- Celery --------------------------------------------------------------------------------------


def results_of_celery(programs: Programs, *pool: str, recorded: bool = True) -> list[str]:
    worker = programs.start(
        "-m", "celery", "-A", "tasks", "worker", "-l", "WARNING", *pool, recorded=recorded
    )
    try:
        results = []
        with Celery("asks", broker=programs.broker.url, backend=programs.broker.url) as app:
            ignored = app.send_task("tasks.ignored")
            asked = [
                app.send_task("shop.totals"),
                app.send_task("shop.fails", [3]),
                app.send_task("tasks.flaky"),
                app.send_task("tasks.gives_up"),
            ]
            for each in asked:
                value = each.get(timeout=SECONDS, propagate=False)
                results.append(f"{each.state} {value!r}")
            results.append(f"{ignored.state}")
        time.sleep(0.2)  # a result is stored before its task has ended
        worker.send_signal(signal.SIGTERM)
        programs.said(worker)
        return results
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize("pool", [["solo"], ["threads", "-c", "2"], ["prefork", "-c", "2"]], ids="".join)
def test_runs_of_celery_s_tasks_are_scopes_and_retries_are_no_failures(
    programs: Programs, pool: list[str]
) -> None:
    results = results_of_celery(programs, "--pool", *pool)
    assert results == [
        "SUCCESS 6",
        "FAILURE ValueError(3)",
        "SUCCESS 2",
        "FAILURE KeyError('no')",
        "PENDING",
    ]
    trace = programs.trace()
    assert runs(trace) == [
        ("shop.fails", "raised", "ValueError"),
        ("shop.totals", "returned", ""),
        ("tasks.flaky", "returned", ""),
        ("tasks.flaky", "returned", ""),
        ("tasks.flaky", "returned", ""),
        ("tasks.gives_up", "raised", "KeyError"),
        ("tasks.gives_up", "returned", ""),
        ("tasks.ignored", "returned", ""),
    ]
    assert of_findings(trace) == ["shop.totals"]
    assert all(row.cpu_ns > 0 for row in trace.scopes)


def test_celery_s_results_are_those_without_pyscope(programs: Programs) -> None:
    assert results_of_celery(programs, "--pool", "solo") == results_of_celery(
        programs, "--pool", "solo", recorded=False
    )


def test_a_task_that_runs_within_another_is_a_scope_within_it(record: Record) -> None:
    app = Celery("eager")

    @app.task(name="inner")
    def inner() -> int:
        return emitter.scope.get()

    @app.task(name="outer")
    def outer() -> tuple[int, int]:
        return emitter.scope.get(), inner.apply().get()

    @app.task(name="boom")
    def boom() -> None:
        raise ValueError

    def body() -> None:
        told.append(outer.apply().get())
        with pytest.raises(ValueError):
            boom.apply(throw=True)
        assert emitter.scope.get() == 0

    told: list[tuple[int, int]] = []
    first, second, third = record(body, ["celery"]).scopes
    assert told == [(first.id, second.id)]
    assert (first.name, second.name, second.parent) == ("outer", "inner", first.id)
    assert (third.name, third.outcome, third.error) == ("boom", "raised", "ValueError")


def test_a_probe_that_is_removed_while_a_task_runs_sees_its_end() -> None:
    app = Celery("eager")
    found = receivers()
    held = probes.acquire(["celery"])
    sink = Sink()

    @app.task(name="stops")
    def stops() -> int:
        inside = emitter.scope.get()
        probes.release(held)
        assert receivers() != found
        return inside

    emitter.connect(sink)
    try:
        assert stops.apply().get() != 0
        assert emitter.scope.get() == 0
    finally:
        emitter.disconnect()
    assert receivers() == found


class Sink:
    """Where events go."""

    def emit(self, kind: int, *values: object) -> None:
        """Nothing."""

    def intern(self, text: str) -> int:
        return 1

    def stack(self, limit: int = 32, outer: Any = None) -> int:
        return 0


def receivers() -> tuple[list[Any], list[Any]]:
    return list(celery_signals.task_prerun.receivers), list(celery_signals.task_postrun.receivers)


# --- RQ ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rq.worker.Worker", "rq.worker.SimpleWorker"])
def test_runs_of_rq_s_jobs_are_scopes_in_the_work_horse_too(programs: Programs, kind: str) -> None:
    with Redis.from_url(programs.broker.url) as client:
        queue = Queue(connection=client)
        totals = queue.enqueue("shop.totals")
        fails = queue.enqueue("shop.fails", 3)
        late = queue.enqueue("time.sleep", 30, job_timeout=1)
        programs.said(
            programs.start("-m", "rq.cli", "worker", "--burst", "-w", kind, "-u", programs.broker.url)
        )
        assert totals.return_value() == 6
        assert [job.get_status().value for job in (totals, fails, late)] == ["finished", "failed", "failed"]
    trace = programs.trace()
    assert runs(trace) == [
        ("shop.fails", "raised", "ValueError"),
        ("shop.totals", "returned", ""),
        ("time.sleep", "raised", "JobTimeoutException"),
    ]
    assert of_findings(trace) == ["shop.totals"]


# --- Dramatiq ------------------------------------------------------------------------------------


def test_messages_of_dramatiq_are_scopes_and_asked_for_retries_are_no_failures(programs: Programs) -> None:
    untouched = programs.said(programs.start("actors.py", recorded=False))
    assert programs.said(programs.start("actors.py")) == untouched
    trace = programs.trace()
    assert runs(trace) == [
        ("again", "returned", ""),
        ("again", "returned", ""),
        ("awaits", "returned", ""),
        ("fails", "raised", "ValueError"),
        ("fails", "raised", "ValueError"),
        ("skips", "returned", ""),
        ("totals", "returned", ""),
    ]
    assert of_findings(trace) == ["awaits", "totals"]
    # What is awaited runs in another thread.
    assert {row.name for row in trace.scopes if row.cpu_ns < 0} == {"awaits"}


# --- APScheduler ---------------------------------------------------------------------------------


def test_runs_of_apscheduler_s_jobs_are_scopes_in_threads_tasks_and_processes(programs: Programs) -> None:
    untouched = programs.said(programs.start("schedule.py", recorded=False))
    assert programs.said(programs.start("schedule.py")) == untouched
    trace = programs.trace()
    assert runs(trace) == [
        ("__main__.awaits", "returned", ""),
        ("shop.fails", "raised", "ValueError"),
        ("shop.totals", "returned", ""),
        ("shop.totals", "returned", ""),
    ]
    assert of_findings(trace) == ["shop.totals", "shop.totals"]
    assert len({row.process for row in trace.scopes if row.name == "shop.totals"}) == 2
    assert all(row.cpu_ns > 0 for row in trace.scopes)


def test_a_job_that_a_request_has_scheduled_is_no_part_of_it(record: Record) -> None:
    async def main() -> None:
        ran = asyncio.Event()

        async def job() -> None:
            ran.set()

        scheduler = AsyncIOScheduler()
        scheduler.start()
        with Scope("request", "POST /jobs"):
            scheduler.add_job(job)
        await ran.wait()
        await asyncio.sleep(0.05)
        scheduler.shutdown()

    _, job = record(lambda: asyncio.run(main()), ["apscheduler"]).scopes
    assert (job.kind, job.parent) == ("job", 0)


# --- all of them ---------------------------------------------------------------------------------


def steps() -> None:
    for _ in range(6):
        time.sleep(0.1)
        step()


def step() -> None:
    """Nothing."""


def test_nobody_waits_for_a_job_as_for_a_request(record: Record) -> None:
    """What a worker's job consists of is no slow call, as it was none without the probe."""

    def slow(kind: str) -> set[str]:
        def body() -> None:
            with ThreadPoolExecutor(1) as pool:
                scope = Scope(kind, "shop.steps")
                for each in (scope.enter, steps, scope.leave):
                    pool.submit(each).result()

        return {issue.call_site.function for issue in hotspots.find(record(body, ["sync"]))}

    assert "steps" in slow("request")
    assert "steps" not in slow("job")


@pytest.mark.parametrize(
    ("probe", "module", "owner", "names"),
    [
        ("rq", "rq.job", "Job", ["perform"]),
        ("dramatiq", "dramatiq.broker", "Broker", ["emit_before", "emit_after"]),
        ("apscheduler", "apscheduler.executors.asyncio", "", ["run_job", "run_coroutine_job"]),
    ],
)
def test_a_removed_probe_leaves_the_library_as_it_was(
    probe: str, module: str, owner: str, names: list[str]
) -> None:
    library = importlib.import_module(module)
    watched = getattr(library, owner) if owner else library
    before = dict(vars(watched))
    held = probes.acquire([probe])
    changed = [name for name in before if vars(watched)[name] is not before[name]]
    probes.release(held)
    assert sorted(changed) == sorted(names)
    assert dict(vars(watched)) == before
