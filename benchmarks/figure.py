"""A figure: what was asked, what was measured with its interval, the verdict; and the table of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.estimator import Interval, Verdict

Format = Callable[[Interval], str]


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table; `asked` is empty where a figure is for information only."""

    name: str
    python: str
    asked: str
    measured: str
    control: str
    verdict: Verdict
    interval: Interval | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Figure:
        """The figure that `as_dict` made."""
        found = values["interval"]
        return cls(
            **{
                **values,
                "verdict": Verdict(values["verdict"]),
                "interval": None if found is None else Interval(**found),
            }
        )


def percent(interval: Interval) -> str:
    """A ratio as what it adds, in per cent: 1.03 is +3.0 %."""
    middle, low, high = ((value - 1) * 100 for value in (interval.median, interval.low, interval.high))
    return f"{middle:+.1f} % [{low:+.1f}, {high:+.1f}]"


def lost(interval: Interval) -> str:
    """A lost fraction in per cent: 0.03 is 3.0 % lost."""
    middle, low, high = (value * 100 for value in (interval.median, interval.low, interval.high))
    return f"{middle:.1f} % lost [{low:+.1f}, {high:+.1f}]"


def points(interval: Interval) -> str:
    """A difference of ratios in points: 0.02 is +2.0 points."""
    middle, low, high = (value * 100 for value in (interval.median, interval.low, interval.high))
    return f"{middle:+.1f} points [{low:+.1f}, {high:+.1f}]"


def quantity(unit: str, digits: int = 1) -> Format:
    """A value with its unit."""
    return lambda i: f"{i.median:.{digits}f} {unit} [{i.low:.{digits}f}, {i.high:.{digits}f}]"


HEADINGS = ("figure", "Python", "asked", "measured [95 %]", "control", "verdict")


def _cells(figure: Figure) -> tuple[str, ...]:
    name = f"{figure.name} ({figure.note})" if figure.note else figure.name
    return (name, figure.python, figure.asked, figure.measured, figure.control, str(figure.verdict))


def as_text(figures: Sequence[Figure]) -> str:
    """The table for a terminal."""
    rows = [HEADINGS, *map(_cells, figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def as_markdown(figures: Sequence[Figure]) -> str:
    """The table for a document."""
    rows = [HEADINGS, ("---",) * len(HEADINGS), *map(_cells, figures)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
