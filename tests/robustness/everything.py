"""A program that uses each library that some probe watches, and says what came of it.

Everything is made afresh at each run (classes, tables, code objects), so that whatever a probe finds out once for
each of them it finds out again.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import smtplib
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from types import CodeType
from typing import Any

import aiohttp.web
import celery
import dramatiq.brokers.stub
import fsspec
import httpx
import pykka
import redis
import requests
import rq
import stamina
import tenacity
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from sqlalchemy import ForeignKey, create_engine, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

SOURCE = Path(__file__)


class Surroundings:
    """The servers that the program talks to: `http` is an address, `smtp` a port, `cache` a path. `watch` is told of
    what its state is to be watched of."""

    def __init__(self, http: str, smtp: int, cache: str) -> None:
        self.http = http
        self.smtp = smtp
        self.cache = cache
        self.watch: Callable[[object], None] = lambda _: None


def parts() -> dict[str, Callable[[Surroundings], Any]]:
    """The program's parts by name, their code compiled anew. Each returns what it saw, the same at every run."""
    space: dict[str, Any] = {"__name__": "everything", "__file__": str(SOURCE)}
    exec(_compiled(), space)
    return {name: function for name, function in space.items() if name in NAMES}


_text = ""


def _compiled() -> CodeType:
    global _text
    _text = _text or SOURCE.read_text(encoding="utf-8")
    return compile(_text, str(SOURCE), "exec", dont_inherit=True)


# --- the parts -----------------------------------------------------------------------------------


def database(around: Surroundings) -> Any:
    class Base(DeclarativeBase):
        pass

    class Author(Base):
        __tablename__ = "author"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(unique=True)
        books: Mapped[list[Book]] = relationship(back_populates="author", order_by="Book.id")

    class Book(Base):
        __tablename__ = "book"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]
        copies: Mapped[int]
        author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
        author: Mapped[Author] = relationship(back_populates="books")

    Base.registry.update_type_annotation_map({})
    seen: list[Any] = []
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        for number in range(3):
            session.add(Author(name=f"author {number}", books=[Book(title=f"book {number}", copies=number)]))
        session.commit()
        for author in session.scalars(select(Author).order_by(Author.id)):
            seen.append([book.title for book in author.books])
        session.get_one(Book, 1).copies -= 1
        session.commit()
        session.add(Author(name="author 1"))
        try:
            session.commit()
        except IntegrityError as error:
            seen.append(str(error.orig))
            session.rollback()
        seen.append(session.execute(text("select sum(copies) from book")).scalar())
    with engine.begin() as connection:
        seen.append(connection.execute(text("update book set copies = copies + 1 where id > 1")).rowcount)
    engine.dispose()
    Base.registry.dispose()
    return seen


def http(around: Surroundings) -> Any:
    seen: list[Any] = [requests.get(f"{around.http}/requests", timeout=20).text]
    with httpx.Client(trust_env=False, verify=False) as client:
        seen.append(client.get(f"{around.http}/httpx").status_code)
        try:
            client.get("http://127.0.0.1:1/nobody")
        except httpx.ConnectError as error:
            seen.append(type(error).__name__)
    with urllib.request.urlopen(f"{around.http}/urllib", timeout=20) as answer:
        seen.append(answer.read())
    return seen


def mail(around: Surroundings) -> Any:
    message = EmailMessage()
    message["From"], message["To"] = "a@example.org", "b@example.org"
    message.set_content("text")
    with smtplib.SMTP("127.0.0.1", around.smtp, timeout=20) as client:
        seen: list[Any] = [client.send_message(message)]
        try:
            client.sendmail("a@example.org", ["refused@example.org"], "text")
        except smtplib.SMTPRecipientsRefused as error:
            seen.append(sorted(error.recipients))
    return seen


def cache(around: Surroundings) -> Any:
    client = redis.Redis(unix_socket_path=around.cache)
    seen: list[Any] = [client.set("number", 1), client.incr("number")]
    pipeline = client.pipeline()
    pipeline.set("letter", "x")
    pipeline.get("letter")
    seen.append(pipeline.execute())
    try:
        client.lpush("letter", 1)
    except redis.ResponseError as error:
        seen.append(str(error))
    client.close()

    async def use() -> Any:
        async with redis.asyncio.Redis(unix_socket_path=around.cache) as other:
            return await other.get("number")

    seen.append(asyncio.run(use()))
    return seen


def retries(around: Surroundings) -> Any:
    tries = 0

    def fails() -> int:
        nonlocal tries
        tries += 1
        if tries % 3:
            raise TimeoutError(tries)
        return tries

    seen: list[Any] = [
        tenacity.retry(stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_none())(fails)(),
        stamina.retry(on=TimeoutError, attempts=4, wait_initial=0, wait_jitter=0, wait_max=0)(fails)(),
    ]
    try:
        tenacity.retry(stop=tenacity.stop_after_attempt(2), reraise=True)(fails)()
    except TimeoutError as error:
        seen.append(error.args)
    return seen


def storage(around: Surroundings) -> Any:
    files = fsspec.filesystem("memory", skip_instance_cache=True)
    with files.open("/folder/file", "wb") as file:
        file.write(b"data")
    seen: list[Any] = [files.cat_file("/folder/file"), files.exists("/nothing")]
    try:
        files.open("/nothing", "rb")
    except FileNotFoundError as error:
        seen.append(type(error).__name__)
    files.rm("/folder", recursive=True)
    return seen


def web(around: Surroundings) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].endswith("/fails"):
            raise LookupError("the app")
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b")]})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    async def use() -> Any:
        from starlette.applications import Starlette
        from starlette.routing import Mount

        mounted = Starlette(routes=[Mount("/app", app=app)])
        seen: list[Any] = []
        transport = httpx.ASGITransport(app=mounted)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", trust_env=False) as client:
            for path in ("/app/x", "/nowhere"):
                answer = await client.get(path)
                seen.append((answer.status_code, answer.text))
            try:
                await client.get("/app/fails")
            except Exception as error:
                seen.append(repr(error))
        return seen

    return asyncio.run(use())


def server(around: Surroundings) -> Any:
    async def answers(request: aiohttp.web.Request) -> aiohttp.web.Response:
        if request.match_info["name"] == "fails":
            raise LookupError("the handler")
        return aiohttp.web.Response(text=await asyncio.to_thread(str.upper, request.match_info["name"]))

    async def use() -> Any:
        app = aiohttp.web.Application()
        app.router.add_get("/things/{name}", answers)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
        seen: list[Any] = []
        async with aiohttp.ClientSession() as client:
            for path in ("/things/one", "/nowhere", "/things/fails"):
                async with client.get(f"http://127.0.0.1:{runner.addresses[0][1]}{path}") as answer:
                    seen.append((answer.status, await answer.text()))
        await runner.cleanup()
        return seen

    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    return asyncio.run(use())


def jobs(around: Surroundings) -> Any:
    seen: list[Any] = []

    def fails() -> None:
        raise KeyError("job")

    async def awaits() -> None:
        await asyncio.sleep(0)

    def works() -> int:
        return 1

    app = celery.Celery("jobs", set_as_current=False)
    seen.append(app.task(name="works")(works).apply().get())
    seen.append(app.task(name="fails")(fails).apply().state)

    with redis.Redis(unix_socket_path=around.cache) as client:
        queue_of_rq = rq.Queue(connection=client, is_async=False)
        seen.append(
            [queue_of_rq.enqueue(each, "x").get_status().value for each in ("builtins.str", "builtins.int")]
        )

    broker = dramatiq.brokers.stub.StubBroker(middleware=[])
    broker.emit_after("process_boot")
    done: list[str] = []
    dramatiq.actor(done.append, broker=broker, actor_name="works").send("x")
    dramatiq.actor(fails, broker=broker, actor_name="fails").send()
    worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    broker.join("default", fail_fast=False, timeout=20000)
    worker.stop()
    seen.append(done)

    async def schedule() -> None:
        scheduler = AsyncIOScheduler(job_defaults={"misfire_grace_time": 60})
        ended = asyncio.Event()

        def note(event: Any) -> None:
            seen.append((event.code, event.job_id, repr(event.exception)))
            if len(seen) == 6:
                ended.set()

        scheduler.add_listener(note, EVENT_JOB_ERROR | EVENT_JOB_EXECUTED)
        scheduler.start()
        scheduler.add_job(fails, id="fails")
        while len(seen) < 5:
            await asyncio.sleep(0.005)
        scheduler.add_job(awaits, id="awaits")
        await asyncio.wait_for(ended.wait(), 20)
        scheduler.shutdown()

    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    asyncio.run(schedule())
    return seen


def actors(around: Surroundings) -> Any:
    class Counter(pykka.ThreadingActor):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def on_receive(self, message: Any) -> Any:
            if message == "fail":
                raise KeyError("actor")
            self.count += message
            return self.count

    reference = Counter.start()
    reference.tell(1)
    seen: list[Any] = [reference.ask(2, timeout=20)]
    try:
        reference.ask("fail", timeout=20)
    except KeyError as error:
        seen.append(error.args)
    seen.append(reference.proxy().count.get(timeout=20))
    reference.stop(timeout=20)
    return seen


def tasks(around: Surroundings) -> Any:
    seen: list[Any] = []

    async def worker(lock: asyncio.Lock, jobs: asyncio.Queue[int], sums: list[int]) -> None:
        while True:
            job = await jobs.get()
            async with lock:
                sums.append(job)
                await asyncio.sleep(0)
            jobs.task_done()

    async def fails() -> None:
        raise ValueError("task")

    async def numbers(count: int) -> Any:
        try:
            for number in range(count):
                yield number
        finally:
            seen.append("closed")

    async def main() -> None:
        lock, jobs = asyncio.Lock(), asyncio.Queue[int](2)
        event, semaphore, condition = asyncio.Event(), asyncio.Semaphore(1), asyncio.Condition()
        sums: list[int] = []
        workers = [asyncio.create_task(worker(lock, jobs, sums)) for _ in range(2)]
        for number in range(6):
            await jobs.put(number)
        await jobs.join()
        for task in workers:
            task.cancel()
        seen.append([type(e).__name__ for e in await asyncio.gather(*workers, return_exceptions=True)])
        seen.append(sorted(sums))
        seen.append([repr(e) for e in await asyncio.gather(fails(), return_exceptions=True)])
        try:
            async with asyncio.timeout(0.001):
                await event.wait()
        except TimeoutError:
            seen.append("timeout")
        async with semaphore, condition:
            condition.notify_all()
        event.set()
        seen.append(await asyncio.wait_for(event.wait(), 5))
        values = numbers(5)
        seen.append([await anext(values), await anext(values)])
        await values.aclose()
        seen.append(await asyncio.to_thread(sum, [1, 2]))
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0, "x"), name="named")

    asyncio.run(main())
    return seen


def threads(around: Surroundings) -> Any:
    lock, condition, event = threading.Lock(), threading.Condition(), threading.Event()
    jobs: queue.Queue[int] = queue.Queue()
    barrier = threading.Barrier(2)
    done: list[int] = []

    def work() -> None:
        barrier.wait(20)
        event.wait(20)
        while (job := jobs.get(timeout=20)) >= 0:
            with lock:
                done.append(job)
            with condition:
                condition.notify_all()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for thread in workers:
        thread.start()
    for number in range(6):
        jobs.put(number)
    event.set()
    with condition:
        condition.wait_for(lambda: len(done) == 6, 20)
    for _ in workers:
        jobs.put(-1)
    for thread in workers:
        thread.join(20)
    return sorted(done)


def state(around: Surroundings) -> Any:
    class Account:
        def __init__(self, amount: int) -> None:
            self.amount = amount
            self.history: list[int] = []

        def move(self, amount: int) -> None:
            if self.amount + amount < 0:
                raise ValueError("too little")
            self.history.append(amount)
            self.amount += amount

    account = Account(10)
    around.watch(Account)
    around.watch(account)
    movers = [threading.Thread(target=account.move, args=(amount,)) for amount in (5, -3)]
    for thread in movers:
        thread.start()
        thread.join(20)
    seen: list[Any] = [account.amount, account.history]
    try:
        account.move(-100)
    except ValueError as error:
        seen.append(error.args)
    del account.history
    return [*seen, vars(account)]


def children(around: Surroundings) -> Any:
    done = subprocess.run([sys.executable, "-S", "-E", "-c", "raise SystemExit(3)"], check=False)
    return done.returncode


NAMES = [
    "actors", "cache", "children", "database", "http", "jobs", "mail", "retries", "server", "state", "storage", "tasks",
    "threads", "web",
]  # fmt: skip
