"""What takes longer than a look: traces of the last seconds, findings, and what a page asks for. A thread of its own.

How long something took decides how soon it is done again, so that all of it stays within the share of a core that it
may take, however much is recorded.
"""

from __future__ import annotations

import _thread
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pyscope.live.hub import Message
from pyscope.live.window import Snapshot
from pyscope.views import findings, losses

__all__ = ["Desk", "FindingsOfWindow"]

logger = logging.getLogger("pyscope.live")

FINDINGS_EVERY_NS = 1_000_000_000
FINDINGS_OVER_NS = 30_000_000_000
FINDINGS_SHARE = 0.2  # of the desk's: nobody waits for them
_MOST_ANSWERS = 32


@dataclass(frozen=True, slots=True)
class FindingsOfWindow:
    """The findings of the last seconds: their message, how many belong to each request, and the losses."""

    message: Message
    by_scope: dict[int, int]
    losses: Message


@dataclass(slots=True)
class _Answer:
    value: Any
    made_at: float
    seconds: float


class Desk:
    """Works off one thing at a time. `share`: of one core."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0
        self._guard = _thread.allocate_lock()
        self._found: FindingsOfWindow | None = None
        self._finding = False
        self._due_ns = 0
        self._failed = False
        self._answers: dict[Any, _Answer] = {}

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Has something done, one after another."""
        with self._guard:
            if self._pool is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._pool = ThreadPoolExecutor(1, "pyscope-live")
            return self._pool.submit(work, *arguments)

    def close(self) -> None:
        """Ends after what is being done."""
        self._end(cancel=True)

    def rest(self) -> None:
        """Ends its thread after all there is to do, until there is more."""
        self._end(cancel=False)

    def _end(self, *, cancel: bool) -> None:
        with self._guard:
            if self._pool is not None and self._pid == os.getpid():
                self._pool.shutdown(wait=False, cancel_futures=cancel)
            self._pool = None

    # findings

    def wants_findings(self, now_ns: int) -> bool:
        """Whether it is time to look for them again."""
        return not self._finding and now_ns >= self._due_ns

    def find(self, snapshot: Callable[[int], Snapshot], now_ns: int) -> None:
        """Looks for findings in the last seconds."""
        self._finding = True
        self.submit(self._find, snapshot(now_ns - FINDINGS_OVER_NS))

    def taken(self) -> FindingsOfWindow | None:
        """What was found since the last call."""
        found, self._found = self._found, None
        return found

    def _find(self, snapshot: Snapshot) -> None:
        began, cpu = time.time_ns(), time.thread_time_ns()
        try:
            trace = snapshot.trace()
            found = findings.find(trace)
            message = findings.message(trace, len(found), found=found)
            self._found = FindingsOfWindow(message, findings.by_scope(found), losses.message(trace))
        except Exception:
            if not self._failed:
                logger.warning("the live dashboard cannot look for findings", exc_info=True)
            self._failed = True
        finally:
            spent = time.thread_time_ns() - cpu
            self._due_ns = began + max(FINDINGS_EVERY_NS, int(spent / self._share / FINDINGS_SHARE))
            self._finding = False

    # answers

    def answer(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns; as it was before, where that is so young that making it again would cost too much.

        Called in the desk's own thread.
        """
        known = self._answers.get(key)
        now = time.monotonic()
        if known is not None and now - known.made_at < known.seconds / self._share:
            return known.value
        cpu = time.thread_time()
        value = make()
        self._answers.pop(key, None)
        while len(self._answers) >= _MOST_ANSWERS:
            self._answers.pop(next(iter(self._answers)))
        self._answers[key] = _Answer(value, now, time.thread_time() - cpu)
        return value
