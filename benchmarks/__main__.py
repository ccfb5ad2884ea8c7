"""`python -m benchmarks`: measure every figure, print the table, write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import document, suite
from benchmarks.estimator import Verdict
from benchmarks.figure import Figure, as_text
from benchmarks.interpreters import Interpreter, InterpreterMissing, find
from benchmarks.worker import ROOT, WorkerFailed

DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 even where a figure is missed, 1 if a measurement failed, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    effort = suite.QUICK if options.quick else suite.FULL
    groups = options.only or list(suite.GROUPS)
    try:
        interpreters = find(options.interpreter or [])
    except InterpreterMissing as error:
        print(error, file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    figures: list[Figure] = []
    failures: list[str] = []
    for name in groups:
        which = interpreters[:1] if name in suite.FIRST_INTERPRETER_ONLY else interpreters
        for interpreter in which:
            began = time.monotonic()
            try:
                figures += suite.GROUPS[name](interpreter, effort)
            except WorkerFailed as error:
                failures.append(f"{name} on {interpreter.full_version}: {error}")
            took = time.monotonic() - began
            print(f"{name}, Python {interpreter.full_version}: {took:.0f} s", file=sys.stderr, flush=True)
    print(as_text(figures))
    for failure in failures:
        print(f"\nNOT MEASURED: {failure}")
    _keep(options, figures, interpreters, failures, (load, os.getloadavg()[0]))
    missed = sum(figure.verdict is Verdict.MISSED for figure in figures)
    reached = sum(figure.verdict is Verdict.REACHED for figure in figures)
    asked = sum(bool(figure.asked) and bool(figure.verdict) for figure in figures)
    print(f"\n{reached} of {asked} reached, {missed} missed, {asked - reached - missed} without a verdict")
    return 1 if failures else 0


def _keep(
    options: argparse.Namespace,
    figures: list[Figure],
    interpreters: list[Interpreter],
    failures: list[str],
    load: tuple[float, float],
) -> None:
    if options.json:
        content = {
            "figures": [figure.as_dict() for figure in figures],
            "interpreters": [asdict(item) for item in interpreters],
            "failures": failures,
            "load": load,
        }
        options.json.write_text(json.dumps(content, indent=1))
    if options.only or options.quick or failures:
        print(f"\n{DOCUMENT.relative_to(ROOT)} is left as it is: only a full run writes it")
        return
    document.write(DOCUMENT, figures, interpreters, "full", load)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: intervals are wide, verdicts rare")
    parser.add_argument(
        "--interpreter", nargs="+", metavar="PATH", help="instead of every supported one of this machine"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(suite.GROUPS), metavar="NAME", help=f"{list(suite.GROUPS)}"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="keep the figures there as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
