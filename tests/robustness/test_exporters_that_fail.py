"""Each call inside an exporter is made to raise: recording and earlier export stay whole, no part is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from injection import Injection, Point

import pyscope
from pyscope import export

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "8"))  # `make faults` takes more


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def work(n: int) -> int:
        return sum(map(abs, range(n)))

    path = tmp_path_factory.mktemp("exported") / "run.pyscope"
    with pyscope.record(path, modules=[__name__], detail="c_calls"):
        for n in range(20):
            work(n)
    return path


@pytest.mark.parametrize("form", export.FORMATS)
def test_an_export_that_fails_anywhere_leaves_everything_as_it_was(form: str, recording: Path) -> None:
    whole = recording.read_bytes()
    target = recording.with_name(f"{form}.export")
    export.write(pyscope.load(recording), form, target)
    expected = target.read_bytes()
    target.write_bytes(b"an earlier export")
    failures = 0
    tried: set[Point] = set()
    for _ in range(ROUNDS):
        reached = Injection()
        with reached.armed():
            export.write(pyscope.load(recording), form, target)
        target.write_bytes(b"an earlier export")
        points = sorted(
            point for point in reached.reached - tried if point[0].startswith(("export", "views"))
        )
        if not points:
            break
        for point in points[:20]:
            tried.add(point)
            injection = Injection([point])
            with injection.armed(), pytest.raises((RuntimeError, MemoryError), match="injected at"):
                export.write(pyscope.load(recording), form, target)
            failures += 1
            assert target.read_bytes() == b"an earlier export", point
            assert recording.read_bytes() == whole, point
            assert not list(recording.parent.glob(".*.part")), point
    assert failures >= 1
    export.write(pyscope.load(recording), form, target)
    assert _same(form, target.read_bytes(), expected)


def _same(form: str, data: bytes, expected: bytes) -> bool:
    """Equal but for what tells the time of the export."""
    return len(data) == len(expected) if form == "html" else data == expected
