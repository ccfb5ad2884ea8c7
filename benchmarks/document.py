"""docs/benchmarks.md: the machine, the versions, the dates and the tables, of whatever is kept."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import curve, plan, plots
from benchmarks.curve import Curve
from benchmarks.figure import Figure, as_markdown, percent
from benchmarks.kept import Kept, Store

PATH: Final = Path("docs") / "benchmarks.md"
PLOTS: Final = Path("docs") / "plots"
FIGURES: Final = Path("docs") / "benchmarks"
BARS: Final = ("own", "probes", "everything", "duty-cycle", "peers")
TITLE: Final = "TaskFlow over HTTP: "

INTRODUCTION: Final = """\
# Benchmarks

Written by `make bench` from the figures in `docs/benchmarks`, of each group those that were measured last.

How to read them:

- Each ratio compares blocks of the same work that ran in one process, in random order, a round at a time.
  The brackets hold the 95 % bootstrap interval of the median, over processes and over the rounds in each.
- A block begins with six pairs of requests that do not count: to start a recorder fills its ring, and with it the
  processor's caches, which a service that is recorded for hours does not feel. A full garbage collection follows them:
  what the start has allocated would bring the program's own next one, a tenth of a second, forward into the block.
- The untraced blocks run in a process that was recorded before. What a recorder leaves behind shows in no ratio but
  in the rows "stopped after a recording", of time and of instructions.
- The control is the untraced work against itself, measured in the same rounds. Where it reaches as far as
  what is asked, or the interval spans what is asked, there is no verdict.
- Costs are CPU time of the whole process, PyScope's drain thread included, unless a row says otherwise. A
  program that leaves a core idle sees less of it in its latency, one that saturates them sees it in full.
- An event's cost is what the recorder adds to an empty hook of the same backend; its bound is one clock
  reading, measured in the same rounds, and 6 ns.
- Other tools run as their manuals say, and what they gather is thrown away. OpenTelemetry's spans go to an
  exporter that drops them: its least cost. VizTracer stops by itself when greenlets switch, which SQLAlchemy's
  asynchronous engine does in each query; a row says so where it happened, and the comparison with it is made
  on the same statements without greenlets.
"""


def write(store: Store, versions: Sequence[str], root: Path) -> None:
    """Write the document, the plots and the figures beside it, under `root`; nothing where nothing is kept. Groups that
    are not in `store` stay as they were published before."""
    order = [(step.group, version) for step, version in plan.schedule(versions, long=True)]
    published = Store(root / FIGURES)
    for kept in store.all(order):
        published.keep(kept)
    found = list(published.all(order))
    if not found:
        return
    folder = root / PLOTS
    parts = [INTRODUCTION, *_facts(found), "", *_missing(order, found)]
    for section in dict.fromkeys(group.section for group in plan.GROUPS.values()):
        mine = [item for item in found if plan.GROUPS[item.group].section == section]
        figures = [figure for item in mine for figure in item.figures]
        if figures:
            parts += [f"\n## {section}\n", as_markdown(figures)]
        if section == plan.SERVICE:
            parts += _bars(folder, found)
        if section == plan.SCALING:
            parts += _curves(folder, mine)
    parts += ["\n## Where each group comes from\n", _origins(found)]
    path = root / PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts) + "\n")


def _facts(found: Sequence[Kept]) -> list[str]:
    around = [item.circumstances for item in found]
    pythons = {item.python: item.circumstances.interpreter for item in found}
    libraries = {name: text for item in around for name, text in item.libraries.items()}
    others = [part for item in around for part in item.others]
    dates = sorted(item.date for item in around)
    busy = sum(not item.quiet for item in around)
    return [
        f"- Measured: {dates[0]}" + (f" to {dates[-1]}" if dates[-1] != dates[0] else ""),
        f"- Commit: {', '.join(dict.fromkeys(item.commit or 'unknown' for item in around))}"
        " (+: with changes that were not committed)",
        *(f"- Machine: {machine}" for machine in dict.fromkeys(item.machine for item in around)),
        f"- Other work used {min(others):.0%} to {max(others):.0%} of the machine before and after each group"
        + (f"; it was busy around {busy} of {len(around)}: their intervals are wider for it" if busy else ""),
        "- CPython "
        + ", ".join(f"{item['version']} ({item['compiler']})" for _, item in sorted(pythons.items())),
        "- " + ", ".join(f"{name} {text}" for name, text in libraries.items()),
    ]


def _missing(order: Sequence[tuple[str, str]], found: Sequence[Kept]) -> list[str]:
    measured = {(item.group, item.python) for item in found}
    missing = [pair for pair in order if pair not in measured]
    if not missing:
        return []
    by_group = itertools.groupby(sorted(missing), key=lambda pair: pair[0])
    names = [f"{group} ({', '.join(version for _, version in pairs)})" for group, pairs in by_group]
    return [f"**Not measured yet:** {'; '.join(names)}."]


def _bars(folder: Path, found: Sequence[Kept]) -> list[str]:
    """A plot of the levels and tools on the interpreter that is measured in full."""
    first = next((item.python for item in found if item.group in BARS), None)
    shown: list[Figure] = []
    ours: list[bool] = []
    for item in found:
        if item.group not in BARS or item.python != first:
            continue
        for figure in item.figures:
            if figure.interval is not None and figure.measured == percent(figure.interval):
                shown.append(figure)
                ours.append(item.group != "peers" or "every" in figure.name)
    if not shown:
        return []
    plots.bars(folder / "overhead.svg", [_named(figure) for figure in shown], ours)
    return [f"\n![CPU time that each level and each other tool adds, Python {first}](plots/overhead.svg)"]


def _named(figure: Figure) -> Figure:
    name = figure.name.removeprefix(TITLE) + (" *" if figure.note else "")
    return Figure(name, figure.python, "", figure.measured, "", figure.verdict, figure.interval)


def _curves(folder: Path, found: Sequence[Kept]) -> list[str]:
    merged: dict[tuple[str, str], Curve] = {}
    for item in found:
        for one in item.curves:
            key = (one.axis, one.python)
            merged[key] = merged[key].extended(one) if key in merged else one
    parts = []
    for (axis, python), whole in merged.items():
        name = f"scaling-{axis.replace(' ', '-')}.svg"
        plots.curve(folder / name, whole)
        parts += [
            f"\n### {axis.capitalize()}, Python {python}\n",
            f"![Cost an event, memory and loading time by {axis}](plots/{name})\n",
            curve.as_markdown(whole),
        ]
    return parts


def _origins(found: Sequence[Kept]) -> str:
    rows = [
        (
            "group",
            "Python",
            "measured",
            "commit",
            "others' work before",
            "after",
            "took",
            "share of its time",
        ),
        ("---",) * 8,
    ]
    for item in found:
        around = item.circumstances
        rows.append(
            (
                item.group,
                item.python,
                around.date,
                around.commit or "unknown",
                f"{around.others[0]:.0%}",
                f"{around.others[1]:.0%}",
                f"{around.seconds:.0f} s",
                f"{around.factor:.0%}",
            )
        )
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"{table}\n\n`python -m benchmarks --again --only GROUP` measures a group anew."
