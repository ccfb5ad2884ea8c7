"""The service's end of a dashboard whose reading is done by a process of its own (`pyscope.live.reader`).

The service begins and ends that process and hands it a socket for each viewer, on which it writes what the viewer's
handler passes on (`pyscope.live.relay`). The service neither decodes events nor makes JSON of them, and has one thread,
which sleeps unless something is asked.
"""

from __future__ import annotations

import _thread
import contextlib
import itertools
import json
import logging
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from pyscope import children
from pyscope.live.describe import nothing, status
from pyscope.live.desk import Desk
from pyscope.live.hub import MOST_VIEWERS, Message, encoded
from pyscope.live.lines import Lines
from pyscope.live.relay import Relay
from pyscope.live.source import Located, OwnSource
from pyscope.probes.background import Background
from pyscope.views.values import text

__all__ = ["RemoteFeed"]

logger = logging.getLogger("pyscope.live")

_LOCATE_EVERY = 0.25  # seconds
_AGAIN_AFTER = 1.0  # seconds, where something went wrong; each time twice as long, as long as
_AGAIN_AT_MOST = 30.0
_STEADY = 10.0  # seconds of life show that the reader can live
_LEAVE = 1.0  # seconds in which it ends by itself, once it is not needed
_ENDED = "the process that reads has ended; it is started again"
_PIECE = 1 << 18
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pyscope.live.reader import main; main()"
)


class RemoteFeed:
    """A feed as `pyscope.live.feed.Feed` is one, of this process's own recording.

    `hello`: makes the first message from what is described. `resting`: seconds without a viewer or a
    question after which the reader and all threads are ended, until someone comes.
    """

    def __init__(self, hello: Callable[[dict[str, Any]], Message], *, resting: float) -> None:
        self._hello = hello
        self._resting = resting
        self._thread = Background(self._run, self._fault, self._wake)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.source = OwnSource()
        self._desk = Desk(1.0)
        self._guard = _thread.allocate_lock()  # of the viewers, and of what is asked
        self._viewers: set[Relay] = set()
        self._newcomers: deque[socket.socket] = deque()
        self._connection: socket.socket | None = None
        self._reader = 0
        self._arriving = Lines()
        self._located: Any = ()
        self._wakes: tuple[socket.socket, ...] = ()  # a pair, while the thread runs
        self._left_at = time.monotonic()
        self._began_at = self._retry_at = 0.0
        self._again_after = _AGAIN_AFTER
        self._last_error = ""
        self._numbers = itertools.count(1)
        self._asked: dict[int, Future[tuple[int, str]]] = {}
        self._to_ask: deque[dict[str, Any]] = deque()
        self.described = nothing(self.source)
        self._status = encoded(status("waiting", "the dashboard is being started"))
        self._pid = os.getpid()

    def _know_forks(self) -> None:
        """In a worker that was forked: the reader and the viewers are its parent's, and so is who holds the guard."""
        if self._pid != os.getpid():
            if self._connection is not None:
                self._connection.close()
            self._let_go()
            self._begin_anew()

    def _let_go(self) -> None:
        self._drop_newcomers()
        wakes, self._wakes = self._wakes, ()
        for end in wakes:
            end.close()

    def _drop_newcomers(self) -> None:
        """Closes the sockets of viewers that no reader has got: they are told how it is, and come again."""
        while self._newcomers:
            self._newcomers.popleft().close()

    # viewers

    @contextlib.contextmanager
    def viewer(self) -> Iterator[Relay | None]:
        """A viewer more while the block runs, whose event loop is the running one; None where there are too many."""
        self._know_forks()
        viewer = Relay(self._hand_over, self._first, self._lost, self._seen)
        with self._guard:
            welcome = len(self._viewers) < MOST_VIEWERS
            if welcome:
                self._viewers.add(viewer)
        try:
            self.start()
            yield viewer if welcome else None
        finally:
            with self._guard:
                self._viewers.discard(viewer)
            viewer.close()

    def _hand_over(self, end: socket.socket) -> None:
        self._know_forks()
        self._newcomers.append(end)
        self._wake()

    def _first(self) -> list[str]:
        return [encoded(self._hello(self.described)), self._status]

    def _lost(self) -> str:
        if self._connection is not None:  # the thread has not noticed yet
            self._status = encoded(status("error", _ENDED))
        return self._status

    def _seen(self, line: bytes) -> str:
        """A message as viewers get it. Its text is read only where the service has a part in it."""
        message = line.decode()
        if message.startswith('{"type":"described"'):
            self.described = json.loads(message)["source"]
            return encoded(self._hello(self.described))
        if message.startswith('{"type":"status"'):
            self._status = message
        return message

    # life

    def start(self) -> None:
        """Begins to serve, if it does not yet."""
        self._know_forks()
        self._left_at = time.monotonic()
        self._thread.start()
        self._wake()

    def stop(self) -> None:
        """Ends, the reader too."""
        self._know_forks()
        self._thread.stop()
        self._end_reader()
        self._let_go()
        self._desk.close()

    def look_again(self) -> None:
        """Something was started or stopped: do not wait to see it."""
        self._know_forks()
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            for end in self._wakes[1:]:
                end.send(b"x")

    def _fault(self) -> None:
        logger.exception("the live dashboard stopped; it goes on when someone opens it again")
        self._end_reader()

    def _run(self) -> None:
        while not self._thread.stopping:
            if self._viewers:
                self._left_at = time.monotonic()
            elif self._is_idle():
                self._end_reader()
                self._let_go()
                self._desk.rest()
                if self._thread.rest(self._is_idle):
                    return
            if time.monotonic() < self._retry_at:
                self._refuse()
                self._thread.pause(_LOCATE_EVERY)
                continue
            try:
                self._step()
            except Exception as error:
                self._failed(error)

    def _is_idle(self) -> bool:
        return not self._viewers and time.monotonic() - self._left_at > self._resting

    def _failed(self, error: Exception) -> None:
        """Something went wrong: it is told on the page, in the log once, and tried again."""
        steady = self._connection is not None and time.monotonic() - self._began_at > _STEADY
        ended = isinstance(error, EOFError | ConnectionError)
        message = _ENDED if ended else text(f"the reading cannot go on: {type(error).__name__}: {error}")
        self._status = encoded(status("error", message))
        self._end_reader()
        self._drop_newcomers()
        if steady:
            self._again_after, self._last_error = _AGAIN_AFTER, ""
        self._retry_at = time.monotonic() + self._again_after
        self._again_after = min(2 * self._again_after, _AGAIN_AT_MOST)
        if message != self._last_error and not self._thread.stopping:
            self._last_error = message
            logger.warning("the live dashboard: %s", message, exc_info=None if ended else error)

    def _step(self) -> None:
        if not self._wakes:
            self._wakes = socket.socketpair()
            for end in self._wakes:
                end.setblocking(False)
        if self._connection is None and (self._viewers or self._asked):
            self._begin_reader()
        if self._connection is not None:
            self._tell_all()
        self._hear()

    def _begin_reader(self) -> None:
        self._arriving, self._located = Lines(), ()
        self._began_at = time.monotonic()
        own, its = socket.socketpair()
        try:
            path = [entry for entry in sys.path if isinstance(entry, str)]
            environment = dict(os.environ)
            environment.pop(children.VARIABLE, None)  # it is no part of the recording
            self._reader = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-c", _CODE, json.dumps(path)],
                environment,
                setsigmask=[signal.SIGINT],  # Ctrl-C is meant for the service, whose end is the reader's
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, its.fileno(), 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                ],
            )
        except BaseException:
            own.close()
            raise
        finally:
            its.close()
        self._connection = own

    def _end_reader(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # a child that was forked may hold it open
            connection.close()
        self._refuse()
        reader, self._reader = self._reader, 0
        if reader:
            _wait_for(reader)

    def _refuse(self) -> None:
        """Nobody answers what has been asked."""
        with self._guard:
            asked, self._asked = self._asked, {}
            self._to_ask.clear()
        for future in asked.values():
            _answer(future, 503, json.dumps({"error": "the process that reads has ended; ask again"}))

    # what the reader is told, and its answers

    def _tell_all(self) -> None:
        found = self.source.locate()
        if found != self._located:
            self._located = found
            place = None if found is None else {"path": found.path, "ring": found.ring}
            self._tell({"located": place})
        while self._newcomers:
            end = self._newcomers.popleft()
            try:
                self._tell({"viewer": True}, end)
            finally:
                end.close()
        while self._to_ask:
            self._tell(self._to_ask.popleft())

    def _tell(self, what: dict[str, Any], *ends: socket.socket) -> None:
        """A line, with the sockets that belong to it."""
        assert self._connection is not None
        line = encoded(what).encode() + b"\n"
        if ends:
            line = line[socket.send_fds(self._connection, [line], [end.fileno() for end in ends]) :]
        self._connection.sendall(line)

    def _hear(self) -> None:
        """Waits for answers, or to be woken."""
        connection, wakes = self._connection, self._wakes[0]
        waited = [wakes] if connection is None else [wakes, connection]
        poll = select.poll()  # select.select takes no descriptors from 1024 on
        for end in waited:
            poll.register(end, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(_LOCATE_EVERY * 1000)]
        if wakes.fileno() in ready:
            wakes.recv(4096)
        if connection is None or connection.fileno() not in ready:
            return
        data = connection.recv(_PIECE)
        if not data:
            raise EOFError("it closed the line")
        for line in self._arriving.take(data):
            number, code, answer = line.split(b" ", 2)
            future = self._asked.pop(int(number), None)
            if future is not None:
                _answer(future, int(code), answer.decode())

    # for requests

    def located(self) -> Located | None:
        """The recording in progress, whether or not anyone has looked; else the one that viewers were told of last."""
        path = self.described["path"]
        return self.source.locate() or (Located(path, path.endswith(".ring")) if path else None)

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Has something done in this process, one after another."""
        self.start()  # it ends the desk's thread when it rests
        return self._desk.submit(work)

    def ask(self, what: str, *arguments: Any) -> Future[tuple[int, str]]:
        """A question of `pyscope.live.questions`; the answer is a status and JSON."""
        self._know_forks()
        future: Future[tuple[int, str]] = Future()
        with self._guard:
            number = next(self._numbers)
            self._asked[number] = future
            self._to_ask.append({"ask": number, "what": what, "arguments": arguments})
        self.start()
        return future


def _answer(future: Future[tuple[int, str]], code: int, answer: str) -> None:
    if future.set_running_or_notify_cancel():  # False: whoever asked has gone
        future.set_result((code, answer))


def _wait_for(reader: int) -> None:
    """Until it has ended, which it does by itself unless it hangs."""
    end = time.monotonic() + _LEAVE
    try:
        while os.waitpid(reader, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.kill(reader, signal.SIGKILL)
                os.waitpid(reader, 0)
                return
            time.sleep(0.01)
    except OSError:  # the program waits for any child, and has met this one
        pass
