"""A curve: how cost, memory and loading grow along one axis, as numbers that a table and a plot are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.estimator import Interval


@dataclass(frozen=True, slots=True)
class Point:
    """One size: `cost` in CPU ns an event, `memory` in MiB, `load` in seconds, `peak` in GB."""

    size: int
    cost: Interval
    memory: float
    bytes: float
    events: int
    dropped: int
    load: float
    peak: float


@dataclass(frozen=True, slots=True)
class Curve:
    """The points of one axis on one interpreter."""

    axis: str
    python: str
    points: tuple[Point, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Curve:
        """The curve that `as_dict` made."""
        points = [Point(**{**item, "cost": Interval(**item["cost"])}) for item in values["points"]]
        return cls(values["axis"], values["python"], tuple(points))

    def extended(self, other: Curve) -> Curve:
        """This curve with the points of another one that it does not have."""
        sizes = {point.size for point in self.points}
        added = [point for point in other.points if point.size not in sizes]
        return Curve(
            self.axis, self.python, tuple(sorted((*self.points, *added), key=lambda item: item.size))
        )


HEADINGS = (
    "",
    "CPU ns an event [95 %]",
    "memory",
    "bytes an event",
    "events lost",
    "load",
    "peak of loading",
)


def as_markdown(curve: Curve) -> str:
    """The table beside the plot."""
    rows: list[Sequence[str]] = [(curve.axis, *HEADINGS[1:]), ("---:",) * len(HEADINGS)]
    for point in curve.points:
        cost = point.cost
        rows.append(
            (
                f"{point.size:,}",
                f"{cost.median:.1f} [{cost.low:.1f}, {cost.high:.1f}]",
                f"{point.memory:.1f} MiB",
                f"{point.bytes:.2f}",
                f"{point.dropped:,} of {point.events + point.dropped:,}",
                f"{point.load:.2f} s",
                f"{point.peak:.2f} GB",
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
