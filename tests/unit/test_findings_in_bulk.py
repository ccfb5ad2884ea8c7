"""What findings read in bulk is what they find one by one, on a recording of a hundred requests."""

from __future__ import annotations

from collections import Counter

import pytest

import pyscope
from benchmarks import findings_scale
from pyscope.analysis import database_races, external, queries, races, states, time_parts
from pyscope.analysis.ranking import rank
from pyscope.trace import Trace

REQUESTS = 100


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    path = tmp_path_factory.mktemp("bulk") / "run.pyscope"
    findings_scale.record(path=str(path), events=REQUESTS * findings_scale.EVENTS_A_REQUEST, ring_mb=16)
    return pyscope.load(path)


def test_each_request_has_its_own_n_plus_one(trace: Trace) -> None:
    found = [issue for issue in queries.find(trace) if issue.relationship == "Project.tasks"]
    assert len(found) == REQUESTS
    assert len({issue.scope for issue in found}) == REQUESTS
    assert {(issue.query_count, issue.parents, issue.total_ms) for issue in found} == {(6, 6, 6.0)}
    assert {issue.parent_statement for issue in found} == {findings_scale.PARENTS}
    assert [issue.time_ns for issue in found] == sorted(issue.time_ns for issue in found)
    for issue in found:
        scope = trace.scopes.get(issue.scope)
        assert scope is not None
        assert issue.time_ns + issue.duration_ns <= scope.end_ns


def test_transitions_are_counted_as_the_changes_name_them(trace: Trace) -> None:
    counted = states.counted(trace)
    assert counted == Counter(change.transition for change in states.find(trace))
    assert counted == {"task_assigned": REQUESTS}


def test_scopes_are_the_same_row_by_row(trace: Trace) -> None:
    scopes = trace.scopes
    assert list(scopes) == [scopes.at(row) for row in range(len(scopes))]
    assert [scope.parts.sql_count for scope in time_parts.of_scopes(trace)] == [11] * REQUESTS


def test_calls_that_succeeded_at_once_can_be_left_out(trace: Trace) -> None:
    every, noted = external.find(trace), external.find(trace, all_calls=False)
    assert len(every) == REQUESTS
    assert noted == [call for call in every if call.retries or call.outcome != "succeeded"]
    assert len(noted) == REQUESTS // 10


def test_what_a_lock_guards_is_no_race_and_what_two_transactions_write_is_looked_at(trace: Trace) -> None:
    assert races.find(trace) == []
    assert all(race.kind == "lost_update" for race in database_races.find(trace))
    ranking = rank(trace)
    assert ranking is not None
    [route] = ranking.routes
    assert (route.kind, route.name, route.count, route.failed) == (
        "request",
        "GET /projects/{id}",
        REQUESTS,
        0,
    )
    assert (route.sql_count, route.cpu_ns) == (11 * REQUESTS, 9 * findings_scale.MS * REQUESTS)
    assert route.wall_ns == sum(scope.parts.wall_ns for scope in time_parts.of_scopes(trace))
    assert route.sql_ns == 11 * findings_scale.MS * REQUESTS
    assert {row.kind for row in ranking.findings} >= {"n_plus_one_query", "external_call"}
