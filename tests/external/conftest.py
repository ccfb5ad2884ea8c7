"""Records a piece of the test's own code with the probes of external calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from services import Service

import pyscope
from pyscope import emitter
from pyscope.analysis import external
from pyscope.findings import ExternalCall
from pyscope.trace import Trace

PROBES = ["http", "smtp", "redis", "storage", "retry", "asgi"]

Record = Callable[..., Trace]


@pytest.fixture
def record(tmp_path: Path, request: pytest.FixtureRequest) -> Record:
    """`record(body, probes=...)` runs `body` recorded and returns the trace."""

    def run(body: Callable[[], Any], probes: list[str] | None = None, **settings: Any) -> Trace:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.pyscope"
        settings.setdefault("ring_mb", 8)  # quicker to make
        emitter.scope.set(
            0
        )  # what an earlier test has left open in this thread is not around this one's scopes
        with pyscope.record(path, modules=[request.module.__name__], probes=probes or PROBES, **settings):
            body()
        return pyscope.load(path)

    return run


@pytest.fixture
def calls(record: Record) -> Callable[..., list[ExternalCall]]:
    """`calls(body)` runs `body` recorded and returns its external calls."""
    return lambda body, **settings: external.find(record(body, **settings))


@pytest.fixture
def service() -> Iterator[Service]:
    """A service that answers 200."""
    with Service() as running:
        yield running
