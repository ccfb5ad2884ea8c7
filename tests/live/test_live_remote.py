"""The service's end of a dashboard that is read for by another process: forks, rest, and what goes wrong there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from viewing import wait_until

from pyscope.live.feed import Feed
from pyscope.live.remote import RemoteFeed
from pyscope.live.source import OwnSource

ROOT = Path(__file__).parents[2]
ANSWER_WITHIN = 60.0


def a_feed(resting: float = 60.0) -> RemoteFeed:
    return RemoteFeed(lambda described: {"type": "hello", "source": described}, resting=resting)


@pytest.fixture
def feed() -> Iterator[RemoteFeed]:
    feed = a_feed()
    yield feed
    feed.stop()


def answered(feed: RemoteFeed) -> tuple[int, str]:
    return feed.ask("queries").result(ANSWER_WITHIN)


# --- forks ---------------------------------------------------------------------------------------

_PROGRAM = """
import asyncio, os, time
from pyscope.live.remote import RemoteFeed

feed = RemoteFeed(lambda described: {"type": "hello", "source": described}, resting=0.5)

async def look(seconds):
    told = ""
    with feed.viewer() as viewer:
        end = time.monotonic() + 60
        while "nothing is being recorded" not in told:  # only the reader says so
            assert time.monotonic() < end, told
            told += "".join(await viewer.take())
        try:
            async with asyncio.timeout(seconds):
                while True:
                    told += "".join(await viewer.take())
        except TimeoutError:
            pass
    assert "error" not in told, told

def of_a_worker(body):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            feed.stop()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
"""


def run(program: str) -> None:
    """Runs a program that forks: the threads of this one are none of its business."""
    subprocess.run([sys.executable, "-c", _PROGRAM + program], cwd=ROOT, check=True, timeout=120)


def test_the_first_viewer_of_a_forked_worker_keeps_its_reader() -> None:
    run("of_a_worker(lambda: asyncio.run(look(2)))")  # longer than it rests after


def test_a_fork_in_the_midst_of_a_viewers_coming_blocks_no_worker() -> None:
    run("feed._guard.acquire(); of_a_worker(lambda: asyncio.run(look(0)))")


def test_a_worker_of_a_service_that_is_looked_at_leaves_its_parents_reader_alone() -> None:
    run("""
async def both():
    with feed.viewer() as viewer:
        while "nothing is being recorded" not in "".join(await viewer.take()):
            pass
        before = feed._reader
        of_a_worker(feed.stop)
        answer = asyncio.wrap_future(feed.ask("queries"))
        assert (await asyncio.wait_for(answer, 60))[0] == 409
        assert feed._reader == before

asyncio.run(both())
feed.stop()
""")


# --- rest ----------------------------------------------------------------------------------------


def test_what_is_asked_while_it_goes_to_rest_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = a_feed(resting=2.0)
    late: list[Future[tuple[int, str]]] = []
    end_reader = feed._end_reader

    def end_and_ask() -> None:
        end_reader()
        if not late:
            late.append(feed.ask("queries"))

    monkeypatch.setattr(feed, "_end_reader", end_and_ask)
    feed.start()
    wait_until(lambda: late)
    assert late[0].result(ANSWER_WITHIN)[0] == 409  # nothing is being recorded
    feed.stop()


def test_questions_keep_the_reader() -> None:
    feed = a_feed(resting=1.0)
    answered(feed)
    reader, pause = feed._reader, threading.Event()
    for _ in range(4):
        pause.wait(0.5)
        answered(feed)
    assert feed._reader == reader
    wait_until(lambda: not feed._thread.alive)
    assert feed._reader == 0
    assert answered(feed)[0] == 409
    feed.stop()


def test_without_viewers_and_questions_there_is_no_reader(feed: RemoteFeed) -> None:
    assert feed.submit(lambda: "done").result(ANSWER_WITHIN) == "done"
    assert feed._reader == 0


@pytest.mark.parametrize("kind", ["apart", "inside"])
def test_at_rest_the_thread_that_does_what_is_asked_for_ends_as_well(kind: str) -> None:
    feed: RemoteFeed | Feed
    feed = a_feed(0.2) if kind == "apart" else Feed(OwnSource(), lambda described: described, resting=0.2)
    desk = feed.submit(threading.current_thread).result(ANSWER_WITHIN)
    wait_until(lambda: not feed._thread.alive and not desk.is_alive())
    assert feed.submit(lambda: "again").result(ANSWER_WITHIN) == "again"
    feed.stop()


def test_a_dashboard_that_is_closed_keeps_no_descriptor() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def open_and_close() -> None:
        feed = a_feed()
        answered(feed)
        feed.stop()

    open_and_close()
    before = descriptors()
    for _ in range(3):
        open_and_close()
    dashboards: list[Any] = [a_feed() for _ in range(20)]
    assert descriptors() <= before
    del dashboards


def test_one_who_asks_and_goes_away_ends_nothing_for_others(feed: RemoteFeed) -> None:
    feed.ask("queries").cancel()
    assert answered(feed)[0] == 409
