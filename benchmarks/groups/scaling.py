"""How the costs grow with events, threads, tasks and code objects: curves, and a row for each end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from benchmarks import estimator, worker
from benchmarks.curve import Curve, Point
from benchmarks.effort import Effort
from benchmarks.estimator import Verdict
from benchmarks.figure import Figure, quantity
from benchmarks.interpreters import Interpreter

SIZES: Final[dict[str, tuple[int, ...]]] = {
    "events": (100_000, 1_000_000, 10_000_000),
    "threads": (1, 2, 4, 8, 16, 32, 64),
    "tasks": (1, 10, 100, 1_000, 10_000),
    "code objects": (100, 1_000, 10_000, 100_000),
}
LONG: Final = (100_000_000,)  # events


def scaling(interpreter: Interpreter, effort: Effort) -> Iterator[Figure | Curve]:
    """Every axis, as far as it goes in minutes."""
    points = sum(map(len, SIZES.values()))
    for axis, sizes in SIZES.items():
        yield from _axis(interpreter, effort.part(len(sizes) / points), axis, sizes)


def long_scaling(interpreter: Interpreter, effort: Effort) -> Iterator[Figure | Curve]:
    """The hundred million events that take gigabytes to load."""
    sizes = [effort.sized(size, 1_000_000) for size in LONG]
    yield from _axis(interpreter, effort, "events", sizes)


def _axis(
    interpreter: Interpreter, effort: Effort, axis: str, sizes: Sequence[int]
) -> Iterator[Figure | Curve]:
    ends = time.monotonic() + effort.seconds
    points = []
    for left, size in zip(range(len(sizes), 0, -1), sizes, strict=True):
        now = time.monotonic()
        until = now + max(0.0, ends - now) / left
        found = worker.run(interpreter.path, "benchmarks.scaling:point", axis=axis, size=size, until=until)
        cost = estimator.interval([np.array(found["costs"])])
        points.append(
            Point(
                size=size,
                cost=cost,
                memory=found["memory"],
                bytes=found["bytes"],
                events=found["events"],
                dropped=found["dropped"],
                load=found["load"],
                peak=found["peak"],
            )
        )
    for point in (points[0], *points[1:][-1:]):
        loaded = f"{point.memory:.0f} MiB, loaded in {point.load:.2f} s, {point.dropped:,} events lost"
        yield Figure(
            f"scaling: {point.size:,} {axis}", interpreter.version, "",
            f"{quantity('ns an event')(point.cost)}", "", Verdict.INFORMATION, point.cost, loaded,
        )  # fmt: skip
    yield Curve(axis, interpreter.version, tuple(points))
