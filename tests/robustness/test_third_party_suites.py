"""A package's own tests give the same results under the recorder; `make suites` runs those of more packages."""

from __future__ import annotations

import sys

import pytest

from benchmarks import suites

pytestmark = pytest.mark.timeout(280)


def test_the_tests_of_a_package_from_pypi_give_the_same_results_traced() -> None:
    [suite] = [suite for suite in suites.SUITES if suite.package == "markupsafe"]
    folder = suites.fetch(suite, sys.executable)
    untraced = suites.run(suite, folder, "untraced", sys.executable)
    assert sum(outcome == "passed" for outcome in untraced.outcomes.values()) > 30
    for mode in suites.MODES[1:]:
        assert suites.differences(untraced, suites.run(suite, folder, mode, sys.executable)) == []


def test_a_result_that_differs_is_named() -> None:
    one = suites.Run({"a": "passed", "b": "passed"}, 0, 1.0)
    other = suites.Run({"a": "failure", "c": "passed"}, 1, 1.0)
    assert suites.differences(one, other) == [
        "exit code 0 and 1",
        "a: passed and failure",
        "b: passed and missing",
        "c: missing and passed",
    ]
