"""The answer an actor owes: a Pykka future that can be watched, and withdrawn before work on it begins."""

from collections.abc import Callable
from threading import Lock
from typing import Any

from pykka import ThreadingFuture

Watcher = Callable[["Answer"], None]


class Answer(ThreadingFuture[Any]):
    """A future for one answer. Setting it twice keeps the first."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()
        self._watchers: list[Watcher] | None = []
        self._begun = False
        self._withdrawn = False

    def begin(self) -> bool:
        """Called by the actor before it handles the message; False when nobody wants the answer any more."""
        with self._lock:
            self._begun = True
            return not self._withdrawn

    def withdraw(self) -> bool:
        """Give up on the answer. True when the message will never be handled, False when that has begun."""
        with self._lock:
            self._withdrawn = True
            return not self._begun

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` once the answer is there: at once, or in the thread that gives it."""
        with self._lock:
            if self._watchers is not None:
                self._watchers.append(watcher)
                return
        watcher(self)

    def set(self, value: Any | None = None) -> None:
        """Answer with a value."""
        self._settle(lambda: super(Answer, self).set(value))

    def set_exception(self, exc_info: Any = None) -> None:
        """Answer with an exception: an `exc_info` triple, or the one being handled."""
        self._settle(lambda: super(Answer, self).set_exception(exc_info))

    def _settle(self, give: Callable[[], None]) -> None:
        with self._lock:
            if self._watchers is None:
                return
            watchers, self._watchers = self._watchers, None
            give()
        for watcher in watchers:
            watcher(self)


def error_answer(error: BaseException) -> tuple[type[BaseException], BaseException, None]:
    """`error` in the form `set_exception` takes."""
    return type(error), error, None
