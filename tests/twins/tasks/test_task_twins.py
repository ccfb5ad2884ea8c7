"""Of each pair of programs with asyncio tasks the faulty one is found, as expected; the fixed one is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.twins.races import SHORT_PATIENCE, RaceCase, recorded
from tests.twins.tasks import CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_faulty_twin_is_found_and_the_fixed_one_is_not(case: RaceCase, tmp_path: Path) -> None:
    found = recorded(case.faulty, tmp_path / "faulty.pyscope")
    assert case.expected in [(race.kind, race.subject, race.grade) for race in found], found
    race = next(race for race in found if (race.kind, race.subject, race.grade) == case.expected)
    assert len(race.accesses) == 3
    assert all(Path(access.location.file).parent == Path(__file__).parent for access in race.accesses)
    assert race.explanation
    assert Path(race.accesses[0].location.file).name in race.suggestion

    assert recorded(case.fixed, tmp_path / "fixed.pyscope", SHORT_PATIENCE) == []
