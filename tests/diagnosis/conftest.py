"""Fixtures of the diagnosis suite: TaskFlow served in this process, watched through `pyscope.runtime`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pyscope import emitter, recorder
from tests.diagnosis.service import Service, serving
from tests.integration.conftest import database_url, postgres, postgres_url

__all__ = ["database_url", "postgres", "postgres_url"]

Serve = Callable[..., Service]


@pytest.fixture(autouse=True)
def nothing_is_left(pyscope_runtime: Any) -> Iterator[None]:
    """After each test nothing is recorded any more."""
    yield
    pyscope_runtime.stop_all()
    assert recorder.active() is None
    assert not emitter.active()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a service of the test's own, with settings; it ends with the test."""
    with ExitStack() as stack:

        def start(**values: Any) -> Service:
            folder = tmp_path / f"service-{len(list(tmp_path.glob('service-*')))}"
            folder.mkdir()
            return stack.enter_context(serving(folder, **values))

        yield start


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without faults that the tests of a module share."""
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running
