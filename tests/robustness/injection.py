"""Makes PyScope's own functions raise, one at a time: the fault that each of its callers must keep to itself."""

from __future__ import annotations

import ast
import functools
import logging
import sys
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pyscope
from pyscope import emitter

PACKAGE = str(Path(pyscope.__file__).parent)
KINDS: tuple[type[Exception], ...] = (RuntimeError, MemoryError, RecursionError)

Point = tuple[str, int, str]
"""A call from PyScope's code to PyScope's code: the caller's file and line, and the function that is called."""

# What does the program's own work: when it raises, the program has raised.
THE_PROGRAMS = frozenset(
    {
        *(f"Boundary.{name}" for name in ("__call__", "__get__", "__getattr__", "_awaited")),
        *(f"Steps.{name}" for name in ("__init__", "__next__", "send", "throw", "close")),
        *(
            "Layer.below",
            "_Traced.acquire",
            "_Traced.release",
            "TracedSimpleQueue.put",
            "TracedSimpleQueue.get",
            "_watched",
            "watch.<locals>.make.<locals>.watched",
            "_Request.enter",
        ),
    }
)
SPECIAL = (".__setattr__", ".__delattr__", ".__getattribute__")  # of another probe's layer
LAST_RESORT = frozenset({"fault", "Probe.fault"})
# Called outside of any `try`: what cannot fail, and what catches its own faults.
HARMLESS = frozenset(
    {
        *("add", "append", "discard", "get", "pop", "getattr", "id", "isinstance", "len", "str", "type"),
        *("_getframe", "get_ident", "perf_counter_ns", "thread_time_ns"),
        *("answered", "failed", "leave", "succeeded", "_end"),
    }
)


class Injection:
    """While `armed`, raises once at the first arrival at each of `points` (None: at none), and notes what is reached.

    Not at the entry of a function that keeps its faults to itself, but at whatever that calls.
    """

    def __init__(self, points: Container[Point] = ()) -> None:
        self.points = points
        self.reached: set[Point] = set()
        self.raised: list[Point] = []
        self.paused = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            return
        caller = frame.f_back
        if caller is not None and caller.f_code.co_filename.startswith(PACKAGE) and not _guarded(code):
            self.arrive(caller, code.co_qualname)

    def arrive(self, caller: FrameType, function: str) -> None:
        if (
            self.paused
            or function in THE_PROGRAMS
            or function.endswith(SPECIAL)
            or {function, caller.f_code.co_qualname} & LAST_RESORT
        ):
            return
        point = caller.f_code.co_filename.removeprefix(PACKAGE + "/"), caller.f_lineno, function
        if point in self.reached:
            return
        self.reached.add(point)
        if point in self.points:
            self.raised.append(point)
            raise KINDS[sum(map(ord, point[2])) % len(KINDS)](f"injected at {point}")

    @contextmanager
    def armed(self) -> Iterator[None]:
        """The functions of `emitter` are native: they get a frame of their own meanwhile."""
        before = emitter.emit, emitter.intern, emitter.stack

        def framed(name: str, function: Any) -> Any:
            def call(*arguments: Any, **named: Any) -> Any:
                caller = sys._getframe(1)
                if caller.f_code.co_filename.startswith(PACKAGE):
                    self.arrive(caller, name)
                return function(*arguments, **named)

            return call

        emitter.emit, emitter.intern, emitter.stack = map(framed, ("emit", "intern", "stack"), before)
        threading.settrace(self)
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            emitter.emit, emitter.intern, emitter.stack = before


@functools.cache
def _guarded(code: CodeType) -> bool:
    """Whether all that a function does stands in a `try` with an `except Exception`, but for what cannot fail."""
    for node in ast.walk(_tree(code.co_filename)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code.co_firstlineno in (
            node.lineno,
            *(decorator.lineno for decorator in node.decorator_list),
        ):
            return all(map(_is_safe, node.body))
    return False


def _is_safe(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Try):
        caught = [ast.unparse(handler.type) for handler in statement.handlers if handler.type is not None]
        return "Exception" in caught or "BaseException" in caught
    if isinstance(statement, ast.If):
        return all(map(_is_harmless, ast.walk(statement.test))) and all(
            map(_is_safe, statement.body + statement.orelse)
        )
    return isinstance(statement, ast.FunctionDef) or all(map(_is_harmless, ast.walk(statement)))


def _is_harmless(part: ast.AST) -> bool:
    if isinstance(part, ast.Call):
        return ast.unparse(part.func).rpartition(".")[2] in HARMLESS
    return not isinstance(part, ast.Yield | ast.YieldFrom | ast.Await)


@functools.cache
def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


@contextmanager
def complaints() -> Iterator[list[str]]:
    """What the interpreter, threads and asyncio say of exceptions that nobody caught while the block runs."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(f"{record.getMessage()} {record.exc_info and record.exc_info[1]!r}")

    listener = Listener(logging.ERROR)
    hooks = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = lambda problem: found.append(f"{problem.err_msg}: {problem.exc_value!r}")
    threading.excepthook = lambda problem: found.append(f"thread: {problem.exc_value!r}")
    logging.getLogger("asyncio").addHandler(listener)
    try:
        yield found
    finally:
        logging.getLogger("asyncio").removeHandler(listener)
        sys.unraisablehook, threading.excepthook = hooks


def outcome(run: Callable[[], Any]) -> Any:
    """What it returns, or the exception it raises, in a form that can be compared."""
    try:
        return run()
    except Exception as error:
        return f"raised {error!r}"
