"""Printing for people: what `report`, `recover`, `dump` and `doctor` found, as tables in the width there is."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.text import Text

from pyscope import report_findings
from pyscope.analysis.counting import duration
from pyscope.printing import (
    BAD,
    BAR,
    FAINT,
    GOOD,
    HEAD,
    WARN,
    bar,
    count,
    grid,
    of_all,
    one_line,
    place,
    short_count,
    size,
    tail,
    terminal,
    titled,
)
from pyscope.views.source import program_words

if TYPE_CHECKING:
    from pyscope.analysis.ranking import Ranking
    from pyscope.analysis.summary import CallRow, ExceptionRow, FunctionRow, Order, ProcessRow, Summary
    from pyscope.attach import Dumped
    from pyscope.doctor import Diagnosis
    from pyscope.parts import Recovered

__all__ = ["program", "render", "render_diagnosis", "render_dumped", "render_recovered"]

_TITLES = {
    "self": "Hottest functions, by time in themselves",
    "total": "Hottest functions, by total time",
    "calls": "Most called functions",
}
_ENOUGH_EVENTS = 10_000  # below, the file's fixed parts outweigh the events


# --- report --------------------------------------------------------------------------------------


def render(
    summary: Summary, *, title: str, ranking: Ranking | None = None, console: Console | None = None
) -> None:
    """Print a summary, and what went wrong if probes have told. `title` is usually the recording's path; `console` is
    standard output if None."""
    console = console or terminal()
    console.print(_overview(summary, title, console.width))
    if ranking is not None:
        report_findings.render(ranking, console)
    for order, rows in summary.tables.items():
        if rows:
            console.print(_functions(rows, order, summary, console))
    if summary.slowest:
        console.print(_slowest(summary.slowest, summary, console.width))
    if summary.exceptions:
        console.print(_exceptions(summary.exceptions, summary.all_exceptions, console.width))
    if summary.functions and not summary.listed:
        console.print(Text("No function that ran matches the pattern.\n", style=WARN))
    if not summary.calls:
        console.print(
            Text(
                "No call was recorded. Did the program run code of the selected modules? "
                "`pyscope run --modules '*'` records everything.\n",
                style=WARN,
            )
        )
    console.print(_losses(summary))
    console.print(_cost(summary))


def _overview(summary: Summary, title: str, width: int) -> RenderableType:
    started = datetime.datetime.fromtimestamp(summary.start_ns / 1e9).astimezone()
    lines = [
        Text.assemble((tail(title, width), HEAD)),
        Text(
            f"{duration(summary.duration_ns)} from {started:%Y-%m-%d %H:%M:%S}, "
            f"{count(summary.calls, 'call')} of {count(summary.functions, 'function')} in "
            f"{count(len(summary.processes), 'process', 'processes')}, {count(summary.threads, 'thread')}"
            + (
                f", {count(summary.contexts, 'task or greenlet', 'tasks and greenlets')}"
                if summary.contexts
                else ""
            )
        ),
    ]
    table = grid()
    table.add_column("pid", justify="right", style=FAINT, no_wrap=True)
    table.add_column("command", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("recorded", no_wrap=True, style=FAINT)
    for process in summary.processes[:20]:
        table.add_row(str(process.pid), one_line(program(process.command)), _how(process))
    if len(summary.processes) > 20:
        table.add_row("", f"… and {len(summary.processes) - 20} more processes", "")
    return Group(*lines, table, "")


def program(command: str) -> str:
    """What was recorded, without the interpreter's folder and the part of the line that is ours."""
    return " ".join(program_words(command.split(" ")))


def _how(process: ProcessRow) -> Text:
    text = Text(f"{process.python} {process.backend}".strip())
    if process.state not in ("stopped", ""):
        text.append(f" {process.state}", style=WARN)
    return text


def _functions(
    rows: Sequence[FunctionRow], order: Order, summary: Summary, console: Console
) -> RenderableType:
    width = console.width
    wide, narrow = width >= 120, width < 60
    bar_width = 20 if wide else 8
    biggest = max(_weight(row, order) for row in rows) or 1
    table = titled(_TITLES[order] + of_all(len(rows), summary.listed))
    if not narrow:
        table.add_column("", width=bar_width, no_wrap=True)
    table.add_column("self", justify="right", no_wrap=True)
    if not narrow:
        table.add_column("%", justify="right", no_wrap=True, style=FAINT)
    table.add_column("total", justify="right", no_wrap=True)
    table.add_column("calls", justify="right", no_wrap=True)
    if wide:
        table.add_column("a call", justify="right", no_wrap=True)
    table.add_column("function", ratio=1, no_wrap=True)
    room = width - (25 if narrow else bar_width + (53 if wide else 37))
    for row in rows:
        cells: list[RenderableType] = [
            Text(bar(_weight(row, order) / biggest, bar_width, console.encoding), style=BAR),
            duration(row.self_ns),
            f"{100 * row.self_ns / summary.self_ns:.0f}" if summary.self_ns else "",
            duration(row.total_ns),
            short_count(row.calls),
        ]
        if narrow:
            del cells[2], cells[0]
        if wide:
            cells.append(duration(row.total_ns / row.calls))
        table.add_row(*cells, place(row.name, row.file, row.line, room))
    return Group(table, "")


def _weight(row: FunctionRow, order: Order) -> int:
    return {"self": row.self_ns, "total": row.total_ns, "calls": row.calls}[order]


def _slowest(rows: Sequence[CallRow], summary: Summary, width: int) -> RenderableType:
    wide = width >= 120
    table = titled("Slowest call of each function" + of_all(len(rows), summary.all_slowest))
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("at", justify="right", no_wrap=True, style=FAINT)
    table.add_column("function", ratio=3, no_wrap=True)
    table.add_column("where", ratio=1, no_wrap=True, overflow="ellipsis", style=FAINT)
    table.add_column("outcome", no_wrap=True, overflow="ellipsis", max_width=40 if wide else 14)
    room = (width - (60 if wide else 36)) * 3 // 4
    for row in rows:
        table.add_row(
            duration(row.duration_ns),
            "+" + duration(max(row.start_ns, 0)),
            place(row.name, row.file, row.line, room),
            one_line(row.context or row.thread)
            if len(summary.processes) < 2
            else f"{row.pid} {one_line(row.context or row.thread)}",
            _outcome(row),
        )
    return Group(table, "")


def _outcome(row: CallRow) -> Text:
    if row.outcome == "returned":
        return Text(row.outcome, style=FAINT)
    if row.exception:
        return Text(row.exception.removeprefix("builtins."), style=BAD)
    return Text(row.outcome, style=WARN)


def _exceptions(rows: Sequence[ExceptionRow], there: int, width: int) -> RenderableType:
    table = titled("Exceptions, where they first left a function" + of_all(len(rows), there))
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("exception", no_wrap=True, overflow="ellipsis", style=BAD, max_width=width // 3)
    table.add_column("function", ratio=1, no_wrap=True)
    room = width - 12 - min(width // 3, max(len(row.exception) for row in rows))
    for row in rows:
        table.add_row(
            short_count(row.count),
            row.exception.removeprefix("builtins."),
            place(row.name, row.file, row.line, room),
        )
    return Group(table, "")


def _losses(summary: Summary) -> RenderableType:
    if not summary.losses:
        return Text("Losses: none.", style=GOOD)
    table = titled("Losses: events that are missing")
    table.add_column("events", justify="right", no_wrap=True, style=BAD)
    table.add_column("from", justify="right", no_wrap=True)
    table.add_column("to", justify="right", no_wrap=True)
    table.add_column("process", justify="right", no_wrap=True, style=FAINT)
    table.add_column("reason", ratio=1)
    for row in summary.losses[:20]:
        table.add_row(
            "unknown" if row.count is None else short_count(row.count),
            "+" + duration(max(row.start_ns, 0)),
            "+" + duration(max(row.end_ns, 0)),
            str(row.pid or ""),
            row.reason,
        )
    if len(summary.losses) > 20:
        table.add_row("", "", "", "", f"… and {len(summary.losses) - 20} more")
    return Group(table, "")


def _cost(summary: Summary) -> Text:
    cost = summary.cost
    parts = [f"{short_count(cost.events)} events ({short_count(cost.events_per_second)}/s)"]
    parts.append(
        f"{size(cost.file_bytes)} on disk"
        + (
            f" ({cost.bytes_per_event:.1f} bytes an event)"
            if cost.bytes_per_event and cost.events >= _ENOUGH_EVENTS
            else ""
        )
    )
    parts.append(
        f"{duration(cost.drain_cpu_ns)} CPU in the drain"
        + (f" ({100 * cost.drain_share:.2f} % of a core)" if cost.drain_share is not None else "")
    )
    if cost.ring_bytes:
        parts.append(f"ring {size(cost.ring_bytes)}")
    return Text("Recorder: " + ", ".join(parts) + ".")


# --- recover -------------------------------------------------------------------------------------


def render_recovered(found: Sequence[Recovered], path: Path, *, console: Console | None = None) -> None:
    """Print what `recover` made complete."""
    console = console or terminal()
    if not found:
        console.print(Text(f"Nothing to recover in {path}: no dead process has left a ring.", style=GOOD))
        return
    table = titled("Recovered")
    table.add_column("pid", justify="right", no_wrap=True)
    table.add_column("events", justify="right", no_wrap=True)
    table.add_column("pages", justify="right", no_wrap=True)
    table.add_column("lost", justify="right", no_wrap=True)
    table.add_column("recording", ratio=1, overflow="fold")
    for row in found:
        detail = Text(row.path)
        if row.problem:
            detail.append(f"\n{row.problem}", style=BAD)
        table.add_row(
            str(row.pid or ""),
            short_count(row.events),
            short_count(row.pages),
            Text(short_count(row.dropped), style=BAD if row.dropped else FAINT),
            detail,
        )
    console.print(table)


def render_dumped(found: Sequence[Dumped], path: Path, *, console: Console | None = None) -> None:
    """Print what `attach.dump` copied, and what to do with it."""
    console = console or terminal()
    table = titled("Dumped")
    table.add_column("pid", justify="right", no_wrap=True)
    table.add_column("events", justify="right", no_wrap=True)
    table.add_column("pages", justify="right", no_wrap=True)
    for row in found:
        table.add_row(str(row.pid), short_count(row.events), short_count(row.pages))
    console.print(table)
    console.print(Text(f"Read it with: pyscope report {path}", style=GOOD), soft_wrap=True)


# --- doctor --------------------------------------------------------------------------------------


def render_diagnosis(found: Diagnosis, *, console: Console | None = None) -> None:
    """Print what `doctor` found, the verdict last."""
    console = console or terminal()
    facts = grid()
    facts.add_column(style=HEAD, no_wrap=True)
    facts.add_column(ratio=1, overflow="fold")
    facts.add_row("Interpreter", f"{found.python}  {found.executable}")
    for module, problem in found.extensions.items():
        facts.add_row(
            module,
            Text("ready", style=GOOD) if problem is None else Text(f"not usable: {problem}", style=BAD),
        )
    read_ns = found.clock.get("read_ns")
    facts.add_row("Clock", f"{found.clock['kind']}" + (f", {read_ns:.1f} ns a reading" if read_ns else ""))
    for number, ring in enumerate(found.rings):
        verdict = "room" if ring.fits else ring.problem
        facts.add_row(
            "Ring" if number == 0 else "", f"{ring.folder}: {size(ring.free_bytes)} free, {verdict}"
        )
    for leftover in found.leftovers:
        if leftover.path.endswith(".new"):
            what = "empty, pyscope recover deletes it"
        elif leftover.recording is None:
            what = "it belongs to no file; pyscope report reads it"
        else:
            what = f"pyscope recover {leftover.recording}"
        facts.add_row(
            "Left over",
            Text(f"{leftover.path} of process {leftover.pid}, {size(leftover.bytes)}: {what}", WARN),
        )
    there = [name for name, installed in found.extras.items() if installed]
    missing = [name for name, installed in found.extras.items() if not installed]
    facts.add_row(
        "Extras",
        Text.assemble(
            (", ".join(there) or "none", GOOD if there else FAINT),
            (f"   (missing: pip install 'pyscope[{','.join(missing)}]')" if missing else "", FAINT),
        ),
    )
    console.print(facts, "")

    table = titled("Backends, in the order of preference")
    table.add_column("", no_wrap=True)
    table.add_column("name", no_wrap=True)
    table.add_column("why", ratio=1)
    for choice in found.backends:
        named = found.backend_named == choice.name
        taken = named if found.backend_named != "auto" else choice.chosen
        mark = Text("→", style=GOOD) if taken else Text("" if choice.available else "×", style=FAINT)
        reason = "asked for by the setting backend" if named and choice.available else choice.reason
        table.add_row(mark, Text(choice.name, style=HEAD if taken else ""), reason)
    console.print(table, "")

    table = titled("Settings in force")
    table.add_column("name", no_wrap=True)
    table.add_column("value", ratio=1, overflow="fold")
    table.add_column("from", ratio=1, overflow="fold", style=FAINT)
    for row in found.settings:
        table.add_row(row.name, row.value, row.source)
    console.print(table, "")

    for sentence in found.unknown:
        console.print(Text(sentence, style=WARN))
    if found.works:
        console.print(Text("Recording works here.", style=GOOD))
    for problem in found.problems:
        console.print(Text(f"Recording does not work here: {problem}.", style=BAD))
