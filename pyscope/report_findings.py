"""Printing for people: what went wrong, where, why, and what to change; and where the time of requests went."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pyscope.analysis.counting import duration
from pyscope.printing import (
    BAD,
    FAINT,
    GOOD,
    HEAD,
    WARN,
    count,
    of_all,
    one_line,
    short_count,
    size,
    titled,
)
from pyscope.rows import Location

if TYPE_CHECKING:
    from pyscope.analysis.ranking import Ranked, Ranking, RouteRow

__all__ = ["render"]

_STYLES = {5: BAD, 4: BAD, 3: WARN, 2: WARN, 1: FAINT}
_MOST_TRANSITIONS = 8


def render(ranking: Ranking, console: Console) -> None:
    """Prints what went wrong, worst first."""
    if ranking.findings:
        console.print(Text("Findings, worst first", style=HEAD))
        for number, finding in enumerate(ranking.findings, 1):
            console.print(_finding(number, finding))
        if ranking.more:
            console.print(Text(f"  … and {count(ranking.more, 'more finding')}", style=FAINT))
        console.print()
    else:
        console.print(Text("Findings: none.\n", style=GOOD))
    if ranking.routes:
        console.print(_routes(ranking.routes, ranking.more_routes, console.width))
    facts = _facts(ranking)
    if facts:
        console.print(Text(facts + "\n"))


def _finding(number: int, finding: Ranked) -> RenderableType:
    head = Text(f"{number:>3}  ", style=FAINT)
    head.append(one_line(finding.what), style=_STYLES[finding.severity])
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style=FAINT, no_wrap=True, justify="right", width=11)
    table.add_column(overflow="fold")
    for label, text in (("where", _where(finding.where)), ("why", finding.why), ("change", finding.change)):
        if text:
            table.add_row(label, Text(one_line(text)))
    return Group(head, table)


def _where(location: Location | None) -> str:
    if location is None:
        return ""
    return f"{_short(location.file)}:{location.line} in {location.function}"


def _short(file: str) -> str:
    """Relative to the working directory where it lies below it."""
    here = os.path.join(os.getcwd(), "")
    return file.removeprefix(here)


def _routes(rows: Sequence[RouteRow], more: int, width: int) -> RenderableType:
    wide = width >= 120
    fails = any(row.failed for row in rows)
    table = titled(
        f"Requests, messages, reports and jobs: where their time went{of_all(len(rows), len(rows) + more)}"
    )
    table.add_column("", ratio=1, no_wrap=True, overflow="ellipsis")
    columns = [
        "count",
        *(["failed"] if fails else []),
        *(["p50"] if wide else []),
        "p95",
        "CPU",
        "SQL",
        "external",
    ]
    for name in [*columns, "locks"]:
        table.add_column(name, justify="right", no_wrap=True, style=BAD if name == "failed" else FAINT)
    for row in rows:
        table.add_row(
            row.name,
            short_count(row.count),
            *([short_count(row.failed) if row.failed else ""] if fails else []),
            *([duration(row.p50_ns)] if wide else []),
            Text(duration(row.p95_ns), style="default"),
            "" if row.cpu_ns is None else _share(row.cpu_ns, row.wall_ns),
            _share(row.sql_ns, row.wall_ns)
            + (f" ({row.sql_count / row.count:.0f})" if row.sql_count else ""),
            _share(row.external_ns, row.wall_ns),
            _share(row.lock_ns, row.wall_ns),
        )
    return Group(table, "")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole and 200 * part >= whole else ""


def _facts(ranking: Ranking) -> str:
    found = list(ranking.transitions.items())
    parts = []
    if found:
        shown = ", ".join(f"{name} {short_count(times)} ×" for name, times in found[:_MOST_TRANSITIONS])
        more = f" and {len(found) - _MOST_TRANSITIONS} more kinds" if len(found) > _MOST_TRANSITIONS else ""
        parts.append(f"State changes: {shown}{more}.")
    if ranking.peak_memory:
        of = f", of the largest of {ranking.processes} processes" if ranking.processes > 1 else ""
        parts.append(f"Peak memory: {size(ranking.peak_memory)}{of}.")
    return " ".join(parts)
