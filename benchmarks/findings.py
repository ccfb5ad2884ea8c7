"""`make bench-findings`: precision and recall of the detectors on the pairs of programs in tests/twins.

Of each pair the faulty program must be found as its table says, and nothing at all may be found in the fixed one.
Recall: faulty programs found. Precision: of the programs in which something was found, those that are faulty.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

RECALL_BOUND: Final = 0.95


@dataclass
class Score:
    """What was found in the pairs of one domain."""

    domain: str
    pairs: int = 0
    found: int = 0
    false_observed: int = 0
    false_possible: int = 0
    seconds: float = 0.0
    misses: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float:
        """Found faulty programs of all faulty ones."""
        return self.found / self.pairs if self.pairs else 0.0

    @property
    def precision(self) -> float:
        """Findings in faulty programs of all findings, of grade `observed` where there are grades."""
        alarms = self.found + self.false_observed
        return self.found / alarms if alarms else 1.0


# A pair: its name, what was expected, and what was found in the faulty and in the fixed program: kind, subject, grade.
Outcome = tuple[str, tuple[str, str, str], list[tuple[str, str, str]], list[tuple[str, str, str]]]


def _queries(folder: Path) -> Iterator[Outcome]:
    from pyscope.analysis import queries
    from tests.twins.queries import CASES
    from tests.twins.queries.cases import recorded
    from tests.twins.queries.library import Library, build

    template = folder / "template"
    template.mkdir()
    library = Library(template)
    build(library)
    library.close()
    for case in CASES:
        results = []
        for label, program in (("faulty", case.faulty), ("fixed", case.fixed)):
            place = folder / f"{case.name}-{label}"
            place.mkdir()
            shutil.copy(template / "library.db", place / "library.db")
            library = Library(place)
            _, trace = recorded(program, library, place / "run.pyscope")
            library.close()
            results.append([(issue.kind, issue.relationship, issue.cause) for issue in queries.find(trace)])
        wanted = case.expected
        yield case.name, (wanted.kind, wanted.relationship, wanted.cause), results[0], results[1]


def _races(cases: Sequence[Any]) -> Callable[[Path], Iterator[Outcome]]:
    def run(folder: Path) -> Iterator[Outcome]:
        from tests.twins.races import PATIENCE, SHORT_PATIENCE, recorded

        for case in cases:
            results = [
                [
                    (race.kind, race.subject, race.grade)
                    for race in recorded(program, folder / f"{case.name}-{n}", patience)
                ]
                for n, (program, patience) in enumerate(
                    ((case.faulty, PATIENCE), (case.fixed, SHORT_PATIENCE))
                )
            ]
            yield case.name, case.expected, results[0], results[1]

    return run


def _database(folder: Path) -> Iterator[Outcome]:
    from pyscope.analysis import database_races
    from tests.integration.servers import postgres_server
    from tests.twins.database import CASES
    from tests.twins.database.bank import opened
    from tests.twins.database.cases import recorded

    with postgres_server() as server, opened(server.new_database()) as postgres:
        for case in CASES:
            results = []
            for label, program in (("faulty", case.faulty), ("fixed", case.fixed)):
                path = folder / f"{case.name}-{label}.pyscope"
                if case.database == "postgresql":
                    postgres.fill()
                    _, trace = recorded(program, postgres, path)
                else:
                    with opened(f"sqlite:///{folder / f'{case.name}-{label}.db'}") as bank:
                        bank.fill()
                        _, trace = recorded(program, bank, path)
                races = database_races.find(trace)
                results.append([(race.kind, race.subject, race.grade) for race in races])
            wanted = case.expected
            yield case.name, (wanted.kind, wanted.subject, wanted.grade), results[0], results[1]


def _domains() -> dict[str, Callable[[Path], Iterator[Outcome]]]:
    from tests.twins import tasks, threads

    return {
        "N+1 and repeated queries": _queries,
        "races: threads": _races(threads.CASES),
        "races: asyncio": _races(tasks.CASES),
        "races: database": _database,
    }


def measure(domain: str, run: Callable[[Path], Iterator[Outcome]]) -> Score:
    """Runs every pair of a domain."""
    score = Score(domain)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pyscope-twins-") as folder:
        for name, expected, faulty, fixed in run(Path(folder)):
            score.pairs += 1
            if expected in faulty:
                score.found += 1
            else:
                score.misses.append(f"{name}: missed {expected}, found {faulty}")
            if fixed:
                possible = all(grade == "possible" for *_, grade in fixed)
                score.false_possible += possible
                score.false_observed += not possible
                score.misses.append(f"{name}: the fixed program is said to have {fixed}")
    score.seconds = time.monotonic() - began
    return score


def main() -> int:
    """Prints the table. Exit status: 0 if every bound is reached, else 1."""
    scores = [measure(domain, run) for domain, run in _domains().items()]
    races = [score for score in scores if score.domain.startswith("races")]
    total = Score("races: all")
    for score in races:
        total.pairs += score.pairs
        total.found += score.found
        total.false_observed += score.false_observed
        total.false_possible += score.false_possible
        total.seconds += score.seconds
    table = Table(
        title="Detectors on pairs of programs, one faulty and one fixed", title_justify="left", box=None
    )
    table.add_column("")
    for name in ("pairs", "recall", "precision", "false: observed", "false: possible", "seconds"):
        table.add_column(name, justify="right")
    for score in [*scores, total]:
        table.add_row(
            score.domain, str(score.pairs), f"{100 * score.recall:.1f} %", f"{100 * score.precision:.1f} %",
            str(score.false_observed), str(score.false_possible), f"{score.seconds:.0f}",
        )  # fmt: skip
    console = Console(width=110, highlight=False)
    console.print(table)
    for score in scores:
        for miss in score.misses:
            console.print(f"  {miss}")
    reached = all(score.recall >= RECALL_BOUND and not score.false_observed for score in scores)
    console.print(
        f"asked: recall ≥ {RECALL_BOUND:.0%}, no false finding of grade observed: {'reached' if reached else 'MISSED'}"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
