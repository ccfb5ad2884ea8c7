"""Of each pair of programs the faulty one is found, with its place and its cause; the fixed one is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pyscope.analysis import queries
from tests.twins.queries import CASES, QueryCase
from tests.twins.queries.cases import recorded
from tests.twins.queries.library import Library, build

_each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("library")
    library = Library(directory)
    build(library)
    library.close()
    return directory / "library.db"


@pytest.fixture
def library(built: Path, tmp_path: Path) -> Library:
    shutil.copy(built, tmp_path / "library.db")
    library = Library(tmp_path)
    yield library
    library.close()


def _untouched(library: Library, built: Path) -> None:
    library.close()
    shutil.copy(built, library.path)


@_each_case
def test_the_faulty_twin_is_found_at_its_place_and_the_fixed_one_is_not(
    case: QueryCase, built: Path, library: Library, tmp_path: Path
) -> None:
    faulty, trace = recorded(case.faulty, library, tmp_path / "faulty.pyscope")
    expected = case.expected
    found = [
        issue
        for issue in queries.find(trace)
        if (issue.kind, issue.cause, issue.relationship)
        == (expected.kind, expected.cause, expected.relationship)
    ]
    assert len(found) == 1, list(queries.find(trace))
    [issue] = found
    assert issue.query_count >= expected.queries
    assert any(place.function.split(".")[0] == case.faulty.__name__ for place in issue.stack), issue.stack
    assert Path(issue.call_site.file).parent == Path(__file__).parent
    assert issue.suggestion
    assert issue.total_ms > 0

    _untouched(library, built)
    fixed, trace = recorded(case.fixed, library, tmp_path / "fixed.pyscope")
    assert list(queries.find(trace)) == []
    assert fixed == faulty  # they do the same work
