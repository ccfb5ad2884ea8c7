"""Of each pair of programs the faulty one's race is found with its grade; nothing is found in the fixed one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import pyscope
from pyscope.analysis import database_races
from pyscope.findings import Race
from tests.integration.servers import postgres_server
from tests.twins.database import CASES, DatabaseCase
from tests.twins.database.bank import Bank, opened
from tests.twins.database.cases import Program, recorded
from tests.twins.database.quiet import QUIET
from tests.twins.database.updates import model_read_and_written


@pytest.fixture(scope="module")
def postgres_bank() -> Iterator[Bank]:
    with postgres_server() as server, opened(server.new_database()) as bank:
        yield bank


@pytest.fixture
def bank(case: DatabaseCase, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bank]:
    if case.database == "postgresql":
        bank: Bank = request.getfixturevalue("postgres_bank")
        bank.fill()
        yield bank
    else:
        with opened(f"sqlite:///{tmp_path / 'bank.db'}") as bank:
            bank.fill()
            yield bank


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_race_of_the_faulty_twin_is_found_and_the_fixed_one_has_none(
    case: DatabaseCase, bank: Bank, tmp_path: Path
) -> None:
    right, trace = recorded(case.faulty, bank, tmp_path / "faulty.pyscope")
    assert right == (case.expected.grade == "possible")  # the database is wrong where the race was observed
    races = database_races.find(trace)
    expected = case.expected
    assert {(race.kind, race.subject, race.grade) for race in races} == {
        (expected.kind, expected.subject, expected.grade)
    }, races
    for race in races:
        assert len({(access.thread, access.context) for access in race.accesses}) == 2
        assert all(access.location.file.startswith(str(Path(__file__).parent)) for access in race.accesses)
        assert [access.time_ns for access in race.accesses] == sorted(
            access.time_ns for access in race.accesses
        )

    bank.fill()
    right, trace = recorded(case.fixed, bank, tmp_path / "fixed.pyscope")
    assert right
    assert database_races.find(trace) == []


@pytest.mark.parametrize("program", QUIET, ids=lambda program: program.__name__)
def test_nothing_is_found_where_no_harm_is_done(
    program: Program, postgres_bank: Bank, tmp_path: Path
) -> None:
    postgres_bank.fill()
    right, trace = recorded(program, postgres_bank, tmp_path / "run.pyscope")
    assert right
    assert database_races.find(trace) == []


def test_a_living_recording_says_what_the_saved_one_says(postgres_bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    postgres_bank.fill()
    with pyscope.record(path, modules=["tests.twins.database.*"], probes=["sqlalchemy"], ring_mb=8):
        model_read_and_written(postgres_bank)
        living = database_races.find(pyscope.load(path))
    saved = database_races.find(pyscope.load(path))
    assert len(living) == 1
    # A saved recording's clock is measured over a longer time: times may differ a little.
    assert [_without_times(race) for race in living] == [_without_times(race) for race in saved]


def _without_times(race: Race) -> Race:
    return replace(race, accesses=tuple(replace(access, time_ns=0) for access in race.accesses))


def test_a_race_that_happens_again_and_again_is_told_once(postgres_bank: Bank, tmp_path: Path) -> None:
    postgres_bank.fill()

    def again(bank: Bank) -> bool:
        for _ in range(3):
            model_read_and_written(bank)
        return True

    _, trace = recorded(again, postgres_bank, tmp_path / "run.pyscope")
    [race] = database_races.find(trace)
    assert race.count == 3
    assert "with_for_update" in race.suggestion
    assert [access.operation for access in race.accesses] == ["read", "write", "write"]
