"""A pair of programs, what is to be found in the faulty one, and how to run and record either."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyscope
from pyscope.trace import Trace
from tests.twins.queries.library import Library

Program = Callable[[Library], Any]


@dataclass(frozen=True)
class Expected:
    """The finding of the faulty twin. `queries`: at least so many statements of one issue."""

    kind: str
    cause: str
    relationship: str = ""
    queries: int = 5


@dataclass(frozen=True)
class QueryCase:
    """Two programs that do the same work."""

    name: str
    faulty: Program
    fixed: Program
    expected: Expected


def one_by_one(
    faulty: Program, fixed: Program, cause: str, relationship: str = "", queries: int = 5
) -> QueryCase:
    """A case of an N+1."""
    name = faulty.__name__.removesuffix("_one_by_one")
    return QueryCase(name, faulty, fixed, Expected("n_plus_one_query", cause, relationship, queries))


def run(program: Program, library: Library) -> Any:
    """What a program returns, whether it is a coroutine function or not."""
    if inspect.iscoroutinefunction(program):
        return asyncio.run(program(library))
    return program(library)


def recorded(program: Program, library: Library, path: Path) -> tuple[Any, Trace]:
    """What a program returns, and the trace of its run."""
    with pyscope.record(path, modules=["tests.twins.queries.*"], probes=["sqlalchemy"], ring_mb=8):
        result = run(program, library)
    return result, pyscope.load(path)
