"""docs/benchmarks.md: the machine, the versions, the date and the table, as they were measured."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figure import Figure, as_markdown
from benchmarks.interpreters import Interpreter

NAMED = ("fastapi", "sqlalchemy", "uvicorn", "viztracer")

INTRODUCTION = """\
# Benchmarks

Written by `make bench`. Each ratio compares blocks of the same work that ran in one process, in random
order, a round at a time; the interval is the 95 % bootstrap interval of the median over all rounds of all
processes. The control is the baseline against itself, measured in the same rounds: where it is as wide as
what is asked, the verdict is "no verdict". Costs are CPU time of the whole process, PyScope's drain thread
included, unless a row says otherwise. The bound of an event is one clock reading, measured in the same
rounds, and 6 ns; its cost is what the recorder adds to an empty hook of the same backend.
"""


def write(path: Path, figures: Sequence[Figure], interpreters: Sequence[Interpreter], effort: str,
          load: tuple[float, float]) -> None:  # fmt: skip
    """Write the document. `load`: the machine's load average before and after."""
    path.parent.mkdir(parents=True, exist_ok=True)
    versions = ", ".join(f"{name} {found}" for name in NAMED if (found := _version(name)))
    pythons = ", ".join(f"{item.full_version} ({item.compiler.strip()})" for item in interpreters)
    facts = [
        f"- Date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, effort: {effort}",
        f"- Machine: {_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        f"- Load average before and after: {load[0]:.1f} and {load[1]:.1f} on {os.cpu_count()} cores"
        + (" (other work was running: the intervals are wider for it)" if load[0] > 0.5 else ""),
        f"- CPython {pythons}",
        f"- {versions}",
    ]
    path.write_text(f"{INTRODUCTION}\n" + "\n".join(facts) + f"\n\n{as_markdown(figures)}\n")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
