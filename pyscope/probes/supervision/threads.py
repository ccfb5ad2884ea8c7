"""Uncaught exceptions of threads, and of the main program: the interpreter's hooks, chained."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from pyscope import emitter
from pyscope.probes.clients import fault
from pyscope.probes.exceptions import described
from pyscope.probes.patches import Patches

__all__ = ["ExceptionHooks"]


class ExceptionHooks:
    """Tells, and then does what the hook before it does."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._thread_hook: Any = None
        self._main_hook: Any = None
        self._told = 0  # the address of the last one: it is not kept
        self._telling: set[int] = set()  # threads whose exception was told before any hook is called
        # One bound method each, so that it can be recognised.
        self._ours = self._in_thread, self._in_main

    def install(self, patches: Patches) -> None:
        """Puts the hooks in place."""
        self._thread_hook, self._main_hook = threading.excepthook, sys.excepthook
        threading.excepthook, sys.excepthook = self._ours
        # A hook that the program sets later seldom calls ours: threads made from now on tell before they call one.
        patches.replace(threading, "_make_invoke_excepthook", lambda make: self._making(make, patches))

    def uninstall(self) -> None:
        """Puts back what was there; a hook that somebody set since stays, and goes on to the one before ours."""
        if threading.excepthook is self._ours[0]:
            threading.excepthook = self._thread_hook
        if sys.excepthook is self._ours[1]:
            sys.excepthook = self._main_hook
        self._told = 0

    def _making(self, make: Callable[[], Any], patches: Patches) -> Callable[[], Any]:
        def make_invoke_excepthook() -> Any:
            invoke = make()

            def invoke_excepthook(thread: threading.Thread) -> None:
                if not patches.on:
                    invoke(thread)
                    return
                me = threading.get_ident()
                self._thread_ended(thread, sys.exception())
                self._telling.add(me)
                try:
                    invoke(thread)
                finally:
                    self._telling.discard(me)

            return invoke_excepthook

        return make_invoke_excepthook

    def _in_thread(self, arguments: Any) -> None:
        if threading.get_ident() not in self._telling:
            self._thread_ended(arguments.thread, arguments.exc_value)
        self._thread_hook(arguments)

    def _thread_ended(self, thread: threading.Thread | None, error: BaseException | None) -> None:
        try:
            if error is not None and type(error) is not SystemExit:
                self._tell(
                    "child_terminated",
                    "threading",
                    thread.name if type(thread) is threading.Thread else _name_of(thread),
                    described(error),
                    stack=_stack_of(error.__traceback__),
                )
        except Exception:
            fault("supervision")

    def _in_main(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        self.uncaught(error, traceback)
        self._main_hook(kind, error, traceback)

    def uncaught(self, error: BaseException, traceback: TracebackType | None) -> None:
        """The main program is ended by `error`: told once, by the hook or before it."""
        try:
            if id(error) == self._told or isinstance(error, KeyboardInterrupt):  # somebody ended it
                return
            self._told = id(error)
            stack = _stack_of(traceback)
            self._tell("child_terminated", "interpreter", "MainThread", described(error), stack=stack)
        except Exception:
            fault("supervision")


def _name_of(thread: object) -> str:
    name = getattr(thread, "_name", None)  # `name` may be a subclass's property
    return name if type(name) is str else "thread"


def _stack_of(traceback: TracebackType | None) -> int:
    """The stack of the place where the exception was raised."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return emitter.stack(32, traceback.tb_frame) if traceback is not None else 0
