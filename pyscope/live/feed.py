"""The dashboard's own thread: looks at the source a few dozen times a second while someone watches, and tells the hub.

Without viewers it looks once a second, so that figures have a past when someone comes. Nothing that goes wrong here
reaches the program: it is told on the page, and tried again.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from pyscope.codec import preferred
from pyscope.errors import PyScopeError
from pyscope.live.describe import nothing, status
from pyscope.live.desk import Desk
from pyscope.live.finished import Finished
from pyscope.live.following import Following
from pyscope.live.hub import Hub, Message, Viewer
from pyscope.live.questions import QUESTIONS, Refused
from pyscope.live.source import Located, Source
from pyscope.probes.background import Background
from pyscope.views.values import text

__all__ = ["Feed"]

logger = logging.getLogger("pyscope.live")
Result = TypeVar("Result")

TICK = 0.03
IDLE = 1.0
RETRY = 0.5
_REPLACED_EVERY = 20  # looks


class Feed:
    """Follows a source for one dashboard.

    `hello`: makes the first message from what is described. `tick`: seconds from one look to the next. `share`: how
    much of one core the looking may take; beyond it looks become rarer. `resting`: seconds without a viewer or a
    question after which it ends, until someone comes; None: it never does.
    """

    def __init__(
        self,
        source: Source,
        hello: Callable[[dict[str, Any]], Message],
        *,
        tick: float = TICK,
        share: float = 0.25,
        resting: float | None = None,
    ) -> None:
        self.source = source
        self._tick = tick
        self._share = share
        self._resting = resting
        self._hello = hello
        self._codec = preferred()
        self._thread = Background(self._run, self._fault, self._wake)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.hub = Hub(self._wake)
        self.desk = Desk(self._share / 2)
        self._guard = _thread.allocate_lock()  # of what the thread changes and requests read
        self._woken = _thread.allocate_lock()
        self._shown: Following | Finished | None = None
        self._status: Message = status("waiting", self.source.waiting())
        self._retry_at = 0.0
        self._looks = 0
        self._last_error = ""
        self._left_at = time.monotonic()
        self._pid = os.getpid()

    def _know_forks(self) -> None:
        """In a worker that was forked: what its parent looked at, its viewers and its locks are not its own."""
        if self._pid != os.getpid():
            self._begin_anew()

    @contextlib.contextmanager
    def viewer(self) -> Iterator[Viewer | None]:
        """A viewer more while the block runs, whose event loop is the running one; None where there are too many."""
        self._know_forks()
        viewer = Viewer(asyncio.get_running_loop())
        if not self.hub.join(viewer):
            yield None
            return
        try:
            self.start()
            yield viewer
        finally:
            self.hub.leave(viewer)

    # life

    def start(self) -> None:
        """Begins to look, if it does not yet."""
        self._know_forks()
        self._left_at = time.monotonic()
        self._thread.start()
        self._wake()

    def stop(self) -> None:
        """Ends."""
        self._know_forks()
        self._thread.stop()
        with self._guard:
            self._show(None)
        self.desk.close()

    def _wake(self) -> None:
        try:
            self._woken.release()
        except RuntimeError:  # awake already
            pass

    def _fault(self) -> None:
        logger.exception("the live dashboard stopped looking; it goes on when someone opens it again")

    def _run(self) -> None:
        while not self._thread.stopping:
            began, cpu = time.perf_counter(), time.thread_time()
            watched = bool(self.hub.viewers)
            if watched:
                self._left_at = time.monotonic()
            elif self._is_idle():
                with self._guard:
                    self._show(None)
                self.desk.rest()
                if self._thread.rest(self._is_idle):
                    return
            try:
                self._step()
            except Exception as error:
                self._failed(error)
            spent = time.thread_time() - cpu
            pause = (self._tick if watched else IDLE) - (time.perf_counter() - began)
            self._woken.acquire(timeout=max(pause, spent * (1 / self._share - 1), 0.001))

    def _is_idle(self) -> bool:
        if self._resting is None or self.hub.viewers:
            return False
        return time.monotonic() - self._left_at > self._resting

    def _failed(self, error: Exception) -> None:
        """Something went wrong: it is told on the page, and in the log once."""
        message = text(str(error) if isinstance(error, PyScopeError) else f"{type(error).__name__}: {error}")
        if message != self._last_error:
            self._last_error = message
            if not isinstance(error, PyScopeError):
                logger.warning("the live dashboard cannot read the recording", exc_info=error)
        with self._guard:
            self._show(None)
        self._retry_at = time.monotonic() + RETRY
        self._say(status("error", message))

    # looking

    def _step(self) -> None:
        now_ns = time.time_ns()
        if self._shown is None:
            self.hub.welcome(self._welcome)  # to read a long recording takes seconds
        with self._guard:
            if self._shown is None:
                self._begin()
            if isinstance(self._shown, Following):
                self._follow(self._shown, now_ns)
            elif isinstance(self._shown, Finished):
                self._looks += 1
                if self._looks % _REPLACED_EVERY == 0 and self._shown.replaced(self.source):
                    self._show(None)
                    self._retry_at = 0.0
        self.hub.welcome(self._welcome)

    def _begin(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + RETRY
        located = self.source.locate()
        if located is None:
            self._say(status("waiting", self.source.waiting()))
            return
        following = Following(self.source, located, self._codec)
        now_ns = time.time_ns()
        following.step(now_ns)
        self._last_error = ""
        if following.alive or located.ring:
            self._show(following)
            self._say(status("live", f"recording {self.source.name}"))
        else:
            following.close()
            self._say(status("waiting", f"reading {self.source.name}"))
            finished = Finished(self.source, located)
            finished.state()
            self._show(finished)
            self._say(status("ended", "the recording has ended"))
        self.hub.start_over()

    def _follow(self, following: Following, now_ns: int) -> None:
        messages, described = following.step(now_ns)
        if self.desk.wants_findings(now_ns) and self.hub.viewers:
            self.desk.find(following.snapshot, now_ns)
        found = self.desk.taken()
        if found is not None:
            messages += following.found(found)
        if described:
            messages.append(self._hello(following.described))
        self._looks += 1
        self.hub.publish(messages)
        if not following.alive:
            self._ended(following)
        if self._looks % _REPLACED_EVERY == 0 and self._is_another(following):
            self._show(None)
            self._retry_at = 0.0

    def _is_another(self, following: Following) -> bool:
        """Whether there is something else to show than what was followed up to now."""
        if following.replaced:
            return True
        if following.alive:
            return False
        try:
            located = self.source.locate()
        except PyScopeError:
            return False
        return located is not None and located.path != following.path

    def _ended(self, following: Following) -> None:
        """The processes have ended: what is shown stays; a file is loaded whole by whoever asks for more."""
        if self._status["state"] == "live":
            state = following.described.get("state")
            self._say(
                status("ended", "the recording has ended")
                if state == "stopped"  # "recovered": somebody has sealed the ring of a killed process since
                else status("lost", "the process has died: what it did until then is shown")
            )

    def _show(self, what: Following | Finished | None) -> None:
        if isinstance(self._shown, Following):
            self._shown.close()
        self._shown = what

    def _say(self, said: Message) -> None:
        if (said["state"], said["message"]) != (self._status["state"], self._status["message"]):
            self._status = said
            self.hub.publish([said])

    def _welcome(self) -> list[Message]:
        with self._guard:
            shown = self._shown
            described = nothing(self.source) if shown is None else shown.described
            messages = [self._hello(described), self._status]
            if isinstance(shown, Following):
                messages += shown.state(time.time_ns())
            elif shown is not None:
                messages += shown.state()
            return messages

    # for requests

    def look_again(self) -> None:
        """Something was started or stopped: do not wait to see it."""
        self._know_forks()
        self._retry_at = 0.0
        self._wake()

    @property
    def described(self) -> dict[str, Any]:
        """The source, as in a message of type "hello"."""
        shown = self._shown
        return nothing(self.source) if shown is None else shown.described

    def located(self) -> Located | None:
        """The recording that is shown, or would be if someone came. Raises PyScopeError."""
        path = self.described["path"]
        return Located(path, path.endswith(".ring")) if path else self.source.locate()

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Has something done apart from the looking, one after another."""
        self.start()  # it ends the desk's thread when it rests
        return self.desk.submit(work)

    def ask(self, what: str, *arguments: Any) -> Future[tuple[int, str]]:
        """A question of `pyscope.live.questions`; the answer is a status and JSON."""
        self.start()
        return self.desk.submit(self._answer, what, arguments)

    def _answer(self, what: str, arguments: tuple[Any, ...]) -> tuple[int, str]:
        def make() -> str:
            return json.dumps(QUESTIONS[what](self, *arguments), separators=(",", ":"))

        try:
            return 200, str(self.desk.answer((what, *arguments), make))
        except Refused as error:
            return error.status, json.dumps({"error": str(error)})
        except PyScopeError as error:
            return 409, json.dumps({"error": str(error)})
        except Exception as error:
            logger.warning("the live dashboard cannot answer %s", what, exc_info=True)
            return 500, json.dumps({"error": f"{type(error).__name__}: {error}"})

    def read(self, what: Callable[[Following | Finished | None], Result]) -> Result:
        """Reads what is shown, while nothing changes it."""
        with self._guard:
            return what(self._shown)
