"""The service's end of a dashboard that is read for by another process: forks, rest, and what goes wrong there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from viewing import wait_until

from pyscope.live.feed import Feed
from pyscope.live.hub import MOST_VIEWERS
from pyscope.live.reader import Reader
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
import asyncio, os, signal, time
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
        signal.alarm(60)
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
    feed = a_feed(resting=4.0)
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
    feed = a_feed(resting=3.0)
    answered(feed)
    reader, pause = feed._reader, threading.Event()
    for _ in range(4):
        pause.wait(0.9)
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


# --- the other end -------------------------------------------------------------------------------


def test_the_reader_ends_with_a_service_that_has_not_read_its_answers() -> None:
    unhandled: list[Any] = []  # would be printed where the service prints

    async def run() -> None:
        own, its = socket.socketpair()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        with its:
            serving = asyncio.create_task(Reader(its).serve())
            await asyncio.sleep(0)
            its.sendall(b"1 200 {}\n")
            own.close()  # with that unread, the other end gets an error for the end
            await asyncio.wait_for(serving, 30)

    asyncio.run(run())
    assert not unhandled


def test_the_reader_closes_the_socket_of_a_viewer_too_many() -> None:
    async def run() -> None:
        own, its = socket.socketpair()
        viewers, ends = zip(*(socket.socketpair() for _ in range(MOST_VIEWERS + 1)), strict=True)
        with own, its, contextlib.ExitStack() as held:
            for one in (*viewers, *ends):
                held.enter_context(one)
            reader = Reader(its)
            serving = asyncio.create_task(reader.serve())
            await asyncio.sleep(0)
            for number in range(MOST_VIEWERS + 1):
                socket.send_fds(own, [b'{"viewer":true}\n'], [ends[number].fileno()])
                ends[number].close()
                while len(reader._feed.hub.viewers) < min(number + 1, MOST_VIEWERS):
                    await asyncio.sleep(0.001)
            viewers[-1].setblocking(False)
            loop = asyncio.get_running_loop()
            assert await asyncio.wait_for(loop.sock_recv(viewers[-1], 1), 30) == b""
            own.close()
            await asyncio.wait_for(serving, 30)
            reader._feed.stop()

    asyncio.run(run())


# --- what goes wrong -----------------------------------------------------------------------------


def told_until(feed: RemoteFeed, words: str) -> list[dict[str, Any]]:
    """What a viewer is told, until some words come."""

    async def look() -> list[dict[str, Any]]:
        told: list[str] = []
        with feed.viewer() as viewer:
            assert viewer is not None
            async with asyncio.timeout(ANSWER_WITHIN):
                while not told or words not in told[-1]:
                    told += await viewer.take()
        return [json.loads(message) for message in told]

    return asyncio.run(look())


def test_a_service_with_thousands_of_descriptors_is_served(feed: RemoteFeed) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    held: list[int] = []
    try:
        while not held or held[-1] < 1100:
            held.append(os.open(os.devnull, os.O_RDONLY))
        told_until(feed, "nothing is being recorded")
        assert answered(feed)[0] == 409
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_is_no_text_in_sys_path_is_left_out(feed: RemoteFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/tmp")])
    told_until(feed, "nothing is being recorded")


def test_a_process_that_cannot_be_begun_is_told_of_in_the_log_once_and_tried_again(
    feed: RemoteFeed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    executable = sys.executable
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    before = len(os.listdir("/proc/self/fd"))
    with caplog.at_level(logging.WARNING, "pyscope.live"):
        told = told_until(feed, "/nonexistent/python")
        assert (told[0]["type"], told[-1]["state"]) == ("hello", "error")
        assert answered(feed)[0] == 503
        first = feed._began_at
        wait_until(lambda: feed._began_at > first or answered(feed)[0] != 503)
        assert told_until(feed, "/nonexistent/python")[1]["state"] == "error"
    assert len(caplog.records) == 1
    assert len(os.listdir("/proc/self/fd")) <= before + 4  # what wakes the thread; a viewer's, on its way out
    monkeypatch.setattr(sys, "executable", executable)
    told_until(feed, "nothing is being recorded")


def test_any_fault_of_the_thread_is_told_and_what_is_asked_is_answered(
    feed: RemoteFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr(feed, "_tell_all", fail)
        assert "a defect" in told_until(feed, "a defect")[-1]["message"]
        assert answered(feed)[0] == 503
    told_until(feed, "nothing is being recorded")


def test_a_reader_that_ends_again_is_told_of_again(feed: RemoteFeed) -> None:
    for _ in range(2):
        told_until(feed, "nothing is being recorded")
        os.kill(feed._reader, signal.SIGKILL)
        wait_until(lambda: not feed._reader)
        assert json.loads(feed._status)["state"] == "error"


def test_a_reader_that_hangs_is_ended_within_seconds() -> None:
    feed = a_feed()
    answered(feed)
    reader = feed._reader
    os.kill(reader, signal.SIGSTOP)
    began = time.monotonic()
    feed.stop()
    assert time.monotonic() - began < 10
    assert not os.path.exists(f"/proc/{reader}")


def test_an_interrupt_from_the_terminal_is_none_of_the_readers_business(feed: RemoteFeed) -> None:
    answered(feed)
    reader = feed._reader
    os.kill(reader, signal.SIGINT)
    for _ in range(5):  # it would take some milliseconds to end
        time.sleep(0.1)
        assert answered(feed)[0] == 409
        assert feed._reader == reader
