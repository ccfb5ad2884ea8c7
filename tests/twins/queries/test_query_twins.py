"""Of each pair of programs the faulty one is found, with its place and its cause; the fixed one is not."""

from __future__ import annotations

import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import orm, select

import pyscope
from pyscope.analysis import queries
from tests.twins.queries import CASES, QueryCase
from tests.twins.queries import library as models
from tests.twins.queries.cases import Program, recorded
from tests.twins.queries.library import Library, build
from tests.twins.queries.quiet import QUIET

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


def _follow(suggestion: str) -> None:
    """Builds the statement with the options that are advised; SQLAlchemy refuses those that do not fit."""
    advised = re.search(r"\.options\((.*)\) on the statement that loads (\w+)\.", suggestion)
    if advised is None or "…" in advised[1]:
        return
    names = {"select": select} | vars(orm) | vars(models)
    str(eval(f"select({advised[2]}).options({advised[1]})", names))


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
    _follow(issue.suggestion)
    assert issue.total_ms > 0

    _untouched(library, built)
    fixed, trace = recorded(case.fixed, library, tmp_path / "fixed.pyscope")
    assert list(queries.find(trace)) == []
    assert fixed == faulty  # they do the same work


@pytest.mark.parametrize("program", QUIET, ids=lambda program: program.__name__)
def test_programs_with_good_reason_are_left_alone(program: Program, library: Library, tmp_path: Path) -> None:
    _, trace = recorded(program, library, tmp_path / "run.pyscope")
    assert list(queries.find(trace)) == []
    if program.__name__.startswith("four_"):  # and these are just one below
        assert len(queries.find(trace, threshold=4)) == 1


def test_a_living_recording_says_what_the_saved_one_says(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    program = next(case.faulty for case in CASES if case.name == "two_levels")
    with pyscope.record(path, modules=["tests.twins.queries.*"], probes=["sqlalchemy"], ring_mb=8):
        program(library)
        living = queries.find(pyscope.load(path))
    saved = queries.find(pyscope.load(path))
    assert len(living) == 2
    assert [replace(issue, time_ns=0, duration_ns=0) for issue in living] == [
        replace(issue, time_ns=0, duration_ns=0) for issue in saved
    ]  # a saved recording's clock is measured over a longer time
    assert living.query_count == saved.query_count == 18


def test_a_loop_in_code_that_is_not_recorded_is_one(library: Library, tmp_path: Path) -> None:
    def loop() -> None:
        for key in range(1, models.AUTHORS + 1):
            models.books_of(library, key)

    with pyscope.record(
        tmp_path / "run.pyscope", modules=[models.__name__], probes=["sqlalchemy"], ring_mb=8
    ):
        thread = threading.Thread(target=loop)
        thread.start()
        thread.join()
    found = queries.find(pyscope.load(tmp_path / "run.pyscope"))
    assert {(issue.cause, issue.query_count) for issue in found} == {("get", 6), ("collection", 6)}


def test_what_loaded_the_parents_is_told_and_the_advice_covers_both_levels(
    library: Library, tmp_path: Path
) -> None:
    program = next(case.faulty for case in CASES if case.name == "two_levels")
    _, trace = recorded(program, library, tmp_path / "run.pyscope")
    outer, inner = queries.find(trace)
    assert outer.parent_statement.startswith("SELECT authors.id")
    assert (outer.parents, outer.query_count) == (6, 6)
    assert "selectinload(Author.books)" in outer.suggestion
    assert inner.parent_statement == outer.statement
    assert (inner.parents, inner.query_count) == (12, 12)
    assert "selectinload(Author.books).selectinload(Book.reviews)" in inner.suggestion


def test_a_threshold_of_one_is_refused(library: Library, tmp_path: Path) -> None:
    _, trace = recorded(QUIET[0], library, tmp_path / "run.pyscope")
    with pytest.raises(ValueError, match="at least 2"):
        queries.find(trace, threshold=1)
