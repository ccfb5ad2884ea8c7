"""`python -m benchmarks`: measure what is not measured yet, print the table, write docs/benchmarks.md.

Each group's figures are kept in build/bench as soon as they are finished, so that a run that was stopped
goes on where it was. A full run takes little more than an hour; figures mean little while the machine is busy.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import document, kept, plan
from benchmarks.curve import Curve
from benchmarks.effort import QUICK_FACTOR, QUICK_PROCESSES, Effort
from benchmarks.estimator import Verdict
from benchmarks.figure import Figure, as_text
from benchmarks.interpreters import Interpreter, InterpreterMissing, find
from benchmarks.kept import Kept, Store
from benchmarks.worker import ROOT


@dataclass
class Run:
    """What one call measures, in order, and what went wrong."""

    store: Store
    factor: float
    quick: bool
    ends: float
    failures: list[str] = field(default_factory=list)

    def measure(self, step: plan.Step, interpreter: Interpreter) -> None:
        """One group on one interpreter, kept if it ends well."""
        name = f"{step.group}, Python {interpreter.full_version}"
        if time.monotonic() > self.ends:
            print(f"{name}: not begun, the time is over", file=sys.stderr, flush=True)
            return
        effort = Effort(step.seconds * self.factor)
        if self.quick:
            effort = Effort(step.seconds * self.factor, QUICK_FACTOR, QUICK_PROCESSES)
        before, began = kept.Business.now(), time.monotonic()
        try:
            found = list(plan.GROUPS[step.group].measure(interpreter, effort))
        except Exception as error:  # the groups after it are worth having
            self.failures.append(f"{name}: {type(error).__name__}: {error}")
            found = []
        took = time.monotonic() - began
        if found:
            around = kept.circumstances(interpreter, self.factor, before, kept.Business.now(), took)
            figures = tuple(item for item in found if isinstance(item, Figure))
            curves = tuple(item for item in found if isinstance(item, Curve))
            self.store.keep(Kept(step.group, interpreter.version, around, figures, curves))
        print(f"{name}: {took:.0f} s", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 even where a figure is missed, 1 if a measurement failed, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    store = Store(kept.FOLDER / "quick" if options.quick else kept.FOLDER)
    versions = list(plan.ASKED)
    failures: list[str] = []
    if not options.document:
        try:
            interpreters = {item.version: item for item in find(options.interpreter or [])}
        except InterpreterMissing as error:
            print(error, file=sys.stderr)
            return 2
        versions = sorted({*versions, *interpreters})
        failures = _measure(options, store, interpreters)
    order = [(step.group, version) for step, version in plan.schedule(versions, options.only, long=True)]
    found = list(store.all(order))
    figures = [figure for item in found for figure in item.figures]
    print(as_text(figures))
    for failure in failures:
        print(f"\nNOT MEASURED: {failure}")
    if options.quick:
        print(f"\n{document.PATH} is left as it is: a quick run is a try")
    else:
        document.write(store, versions, ROOT)
    print(f"\n{summary(figures)}")
    return 1 if failures else 0


def summary(figures: Sequence[Figure]) -> str:
    """How many figures are as asked."""
    asked = [figure for figure in figures if figure.asked and figure.verdict is not Verdict.INFORMATION]
    reached = sum(figure.verdict is Verdict.REACHED for figure in asked)
    missed = sum(figure.verdict is Verdict.MISSED for figure in asked)
    return f"{reached} of {len(asked)} reached, {missed} missed, {len(asked) - reached - missed} without a verdict"


def _measure(options: argparse.Namespace, store: Store, interpreters: dict[str, Interpreter]) -> list[str]:
    """Measure what is chosen and not kept; returns what failed."""
    todo = [
        (step, interpreters[version])
        for step, version in plan.schedule(list(interpreters), options.only, long=options.long)
        if options.again or store.find(step.group, version) is None
    ]
    planned = sum(step.seconds for step, _ in todo)
    factor = QUICK_FACTOR if options.quick else 1.0
    ends = float("inf")
    if options.minutes is not None:
        factor = min(factor, options.minutes * 60 / planned) if planned else factor
        ends = time.monotonic() + options.minutes * 60
    print(
        f"{len(todo)} groups to measure, about {planned * factor / 60:.0f} minutes",
        file=sys.stderr,
        flush=True,
    )
    run = Run(store, factor, options.quick, ends)
    for step, interpreter in todo:
        run.measure(step, interpreter)
    return run.failures


def _minutes(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be more than 0 minutes")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--again", action="store_true", help="measure also what is kept in build/bench")
    parser.add_argument("--only", nargs="+", choices=list(plan.GROUPS), metavar="GROUP", default=[],
                        help=", ".join(plan.GROUPS))  # fmt: skip
    parser.add_argument("--interpreter", nargs="+", metavar="PATH", help="instead of all of this machine")
    parser.add_argument("--minutes", type=_minutes, metavar="M",
                        help="shorten every share so that what is chosen fits; then begin nothing more")  # fmt: skip
    parser.add_argument("--long", action="store_true", help="also what takes minutes more")
    parser.add_argument("--quick", action="store_true",
                        help="a try in minutes: intervals are wide, verdicts rare; kept apart")  # fmt: skip
    parser.add_argument("--document", action="store_true", help="measure nothing, write from what is kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
