"""Exceptions of asyncio's tasks and callbacks that nobody took: what a loop's exception handler is told.

A task whose exception is awaited by somebody did not die unnoticed, and is not told.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from typing import Any

from pyscope import emitter
from pyscope.probes import on_import
from pyscope.probes.exceptions import described
from pyscope.probes.patches import Patches

__all__ = ["watch_tasks"]


def watch_tasks(patches: Patches, tell: Callable[..., None]) -> None:
    """Chains the exception handling of every loop."""

    def make(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def call_exception_handler(self: Any, context: dict[str, Any]) -> None:
            if patches.on:
                _tell(context, tell)
            original(self, context)

        return call_exception_handler

    patches.replace(asyncio.BaseEventLoop, "call_exception_handler", make)

    def of_uvloop() -> None:
        if patches.on:
            patches.replace(sys.modules["uvloop"].Loop, "call_exception_handler", make)

    on_import.call("uvloop", of_uvloop, patches)


def _tell(context: Any, tell: Callable[..., None]) -> None:
    if type(context) is not dict:
        return
    error = context.get("exception")
    if error is None or not issubclass(type(error), BaseException):
        return
    task = context.get("task", context.get("future"))
    name = task.get_name() if type(task) is asyncio.Task else "callback"
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    stack = emitter.stack(32, traceback.tb_frame) if traceback is not None else 0
    tell("child_terminated", "asyncio", name, described(error), stack=stack)
