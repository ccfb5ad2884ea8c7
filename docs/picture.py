"""Draws docs/report.svg, the README's picture: `python docs/picture.py RECORDING`."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

import pyscope
from pyscope import report
from pyscope.analysis.ranking import rank
from pyscope.analysis.summary import summarize


def main(recording: str) -> None:
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True, highlight=False)
    trace = pyscope.load(recording)
    title = Path(recording).name
    report.render(summarize(trace, limit=3), title=title, ranking=rank(trace, limit=6), console=console)
    svg = console.export_svg(title="pyscope report")
    # The fonts of the export would be fetched from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)
    svg = re.sub(r"/[\w./-]*/bin/(?=python)", "", svg)  # where this machine keeps its interpreter
    Path(__file__).with_name("report.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
