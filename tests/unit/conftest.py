"""Shared by the tests of views and exports: one recording of a small shop, and its trace."""

from __future__ import annotations

from pathlib import Path

import pytest

import pyscope
from pyscope.trace import Trace
from tests.unit import shop


@pytest.fixture(scope="session")
def shop_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop.record(tmp_path_factory.mktemp("shop") / "run.pyscope")


@pytest.fixture(scope="session")
def shop_trace(shop_recording: Path) -> Trace:
    return pyscope.load(shop_recording)
