"""Each call inside a probe is made to raise: the program must not notice, whichever it is."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import everything
import pytest
from everything import Surroundings
from injection import Injection, Point, complaints, outcome
from surroundings import surroundings

import pyscope
from pyscope import probes
from pyscope.probes.sql import statements

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "8"))  # `make faults` takes more
DEEP = (
    "actors",
    "state",
    "tasks",
    "threads",
)  # where the probes that need to be named have something to watch


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    with surroundings() as servers:
        yield servers


@pytest.fixture(autouse=True)
def _probes_that_do_not_give_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(probes, "MOST_FAULTS", 10**9)
    # Points are looked for in Python code: what the compiled path calls is made to raise in the probe's own tests.
    monkeypatch.setattr(statements, "_compiled", None)
    logging.disable(logging.WARNING)  # stamina tells of each retry
    yield
    logging.disable(logging.NOTSET)


def recorded(name: str, around: Surroundings, injection: Injection, path: Path) -> tuple[Any, list[str]]:
    """What a part of the program gives, and what was complained of, while PyScope fails as the injection says."""

    def watch(subject: object) -> None:
        injection.paused = True
        for probe in map(probes.installed, ("state", "accesses")):
            probe.watch(subject)  # type: ignore[union-attr]
        injection.paused = False

    around.watch = watch
    wanted = probes.names() if name in DEEP else ["auto"]
    with (
        warnings.catch_warnings(),
        pyscope.record(path, probes=wanted, modules=["everything"], ring_mb=1),
    ):
        warnings.simplefilter("ignore")
        part = everything.parts()[name]
        with complaints() as found, injection.armed():
            got = outcome(lambda: part(around))
    around.watch = lambda _: None
    return got, found


class Untried(set[Point]):
    """All points but those that have been tried."""

    def __contains__(self, point: object) -> bool:
        return not super().__contains__(point)


@pytest.mark.parametrize("name", everything.NAMES)
def test_whatever_fails_inside_a_probe_the_program_does_the_same(
    name: str, around: Surroundings, tmp_path: Path
) -> None:
    expected = everything.parts()[name](around)
    path = tmp_path / "run.pyscope"
    tried = Untried()
    for _ in range(ROUNDS):  # what lies behind a point is reached once that has been tried
        injection = Injection(tried)
        got, found = recorded(name, around, injection, path)
        if got != expected or found:
            culprits = []
            for point in injection.raised:
                got, found = recorded(name, around, Injection([point]), path)
                if got != expected or found:
                    culprits.append((point, got if got != expected else "", found[:2]))
            pytest.fail(
                f"{len(culprits)} of {injection.raised}:\n" + "\n".join(str(c)[:300] for c in culprits)
            )
        if not injection.raised:
            break
        tried.update(injection.raised)
    assert tried
    injection = Injection()  # nothing of it has been broken for good
    assert recorded(name, around, injection, path) == (expected, [])
