"""The pytest plugin inside a suite of `benchmarks.suites`: nothing, an empty hook, or a recording."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def _recorded(path: str, modules: list[str]) -> Iterator[None]:
    import pyscope

    with pyscope.record(path, modules=modules, probes=[], ring_mb=32, children=False):
        yield
    os.unlink(path)


@contextmanager
def _with_empty_hook() -> Iterator[None]:
    from pyscope import _hook, backends

    chosen = backends.choose("auto", detail="calls", modules=["*"], budget=None).name
    _hook.install_empty(chosen)
    try:
        yield
    finally:
        _hook.remove_empty(chosen)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Any:
    """Around the tests themselves, not around the import of pytest."""
    mode = os.environ["SUITE_MODE"]
    if mode == "empty":
        with _with_empty_hook():
            return (yield)
    if mode in ("own", "traced"):
        modules = ["*"] if mode == "traced" else [f"{os.environ['SUITE_PACKAGE']}*"]
        with _recorded(os.environ["SUITE_RECORDING"], modules):
            return (yield)
    return (yield)
