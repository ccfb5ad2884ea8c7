"""A recording with some probes, and the trace of it, for the tests of probes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyscope
from pyscope import probes
from pyscope.trace import Trace

DEADLINE = 30.0


class Watching:
    """What the test gets: `probe` finds an installed probe, `trace` is there after the block."""

    def __init__(self) -> None:
        self.trace: Trace = None  # type: ignore[assignment]

    def probe(self, name: str) -> Any:
        found = probes.installed(name)
        assert found is not None
        return found


@contextmanager
def watching(path: Path, *names: str) -> Iterator[Watching]:
    """Records while the block runs, with these probes; afterwards everything is removed, and the trace loaded."""
    watch = Watching()
    with pyscope.record(path / "run.pyscope", modules=["tests.nothing"], ring_mb=8):
        held = probes.acquire(names, required=True)
        try:
            yield watch
        finally:
            probes.release(held)
    watch.trace = pyscope.load(path / "run.pyscope")


def until(condition: Callable[[], object], what: str) -> None:
    """Waits for a condition; fails when it does not come true for a long time."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {DEADLINE:g} s"
        time.sleep(0.005)
