"""Of each pair of programs the faulty one's race is found with its grade; nothing is found in the fixed one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyscope.analysis import database_races
from tests.integration.servers import postgres_server
from tests.twins.database import CASES, DatabaseCase
from tests.twins.database.bank import Bank, opened
from tests.twins.database.cases import recorded


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
