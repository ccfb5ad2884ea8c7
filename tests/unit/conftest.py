"""Shared by the tests of views and exports: one recording of a small shop, and its trace."""

from __future__ import annotations

from pathlib import Path

import pytest

import pyscope
from pyscope.fallback.writer import Page, RecordingWriter
from pyscope.format import Kind
from pyscope.trace import Trace
from tests.unit import shop
from tests.unit.word_streams import operand


@pytest.fixture(scope="session")
def shop_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop.record(tmp_path_factory.mktemp("shop") / "run.pyscope")


@pytest.fixture(scope="session")
def shop_trace(shop_recording: Path) -> Trace:
    return pyscope.load(shop_recording)


@pytest.fixture
def outlived(tmp_path: Path) -> Trace:
    """Two generators that take turns and outlive the call that began them: `first` (40 ms) runs `odd` from 5 ms and
    `even` from 12 ms on, `second` (from 50 to 100 ms) runs them to their ends at 70 and 90 ms."""
    writer = RecordingWriter(tmp_path / "generators.pyscope")
    first, second, odd, even = (writer.code("shop", name) for name in ("first", "second", "odd", "even"))
    base = writer.clock()[0]
    page = Page(base)
    for at, kind, code, *instance in (
        (0, Kind.CALL, first), (5, Kind.GEN_START, odd, 1), (10, Kind.GEN_YIELD, odd, 1),
        (12, Kind.GEN_START, even, 2), (20, Kind.GEN_YIELD, even, 2), (40, Kind.RETURN, first),
        (50, Kind.CALL, second), (60, Kind.GEN_RESUME, odd, 1), (70, Kind.GEN_RETURN, odd, 1),
        (80, Kind.GEN_RESUME, even, 2), (90, Kind.GEN_RETURN, even, 2), (100, Kind.RETURN, second),
    ):  # fmt: skip
        page.event(base + (at + 1) * 1_000_000, kind, code, *map(operand, instance))
    writer.chunk(0, page.words, base_ticks=base, name="MainThread", os_tid=1)
    writer.close()
    return pyscope.load(tmp_path / "generators.pyscope")
