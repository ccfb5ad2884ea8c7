"""The plots of docs/plots: SVG files, small, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

from benchmarks.curve import Curve
from benchmarks.figure import Figure

STYLE: Final[dict[str, Any]] = {
    "svg.hashsalt": "pyscope",  # ids of the file are made from it, not by chance
    "svg.fonttype": "none",  # letters stay text: small, and searchable
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}
COLOUR: Final = "#1f5f99"
OTHERS_COLOUR: Final = "#999999"
MISSING_DATE: Final = {"Date": None, "Creator": "PyScope benchmarks"}


def curve(path: Path, found: Curve) -> None:
    """Cost an event, memory and loading time along the curve's axis."""
    sizes = [point.size for point in found.points]
    with pyplot.rc_context(STYLE):
        figure, panels = pyplot.subplots(1, 3, figsize=(9.0, 2.6), layout="constrained")
        cost = [point.cost for point in found.points]
        spread = (
            [item.median - item.low for item in cost],
            [item.high - item.median for item in cost],
        )
        panels[0].errorbar(
            sizes, [item.median for item in cost], spread, marker="o", markersize=3, capsize=2, color=COLOUR
        )
        panels[1].plot(
            sizes, [point.memory for point in found.points], marker="o", markersize=3, color=COLOUR
        )
        panels[2].plot(sizes, [point.load for point in found.points], marker="o", markersize=3, color=COLOUR)
        titles = ("CPU ns an event", "memory while recording, MiB", "seconds to load")
        for panel, title in zip(panels, titles, strict=True):
            panel.set_xscale("log")
            panel.set_title(title, fontsize=9)
            panel.set_xlabel(found.axis)
        for panel in panels[:2]:
            panel.set_ylim(bottom=0)
        if max(sizes) > 100 * min(sizes):
            panels[2].set_yscale("log")
        _save(figure, path)


def bars(path: Path, figures: Sequence[Figure], ours: Sequence[bool]) -> None:
    """What each level or tool adds to the untraced work, in per cent, with its interval; PyScope's own in colour."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(9.0, 0.6 + 0.28 * len(figures)), layout="constrained")
        for row, (item, own) in enumerate(zip(figures, ours, strict=True)):
            assert item.interval is not None
            added = item.interval.scaled(100, -100)
            axes.barh(
                row, added.median, color=COLOUR if own else OTHERS_COLOUR, height=0.7,
                xerr=[[added.median - added.low], [added.high - added.median]], ecolor="#333333", capsize=2,
            )  # fmt: skip
        axes.set_yticks(range(len(figures)), [item.name for item in figures])
        axes.invert_yaxis()
        axes.axvline(0, color="#333333", linewidth=0.8)
        axes.set_xlabel("CPU time added, % of the untraced work")
        axes.grid(axis="y", visible=False)
        _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata=MISSING_DATE)
    pyplot.close(figure)
    # matplotlib leaves spaces at the ends of lines.
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n")
