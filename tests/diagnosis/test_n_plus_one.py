"""N+1 queries: the dashboard's, lazily loaded, awaited, and in a get() loop; each beside its fixed twin."""

from __future__ import annotations

from typing import Any

import pytest

from pyscope.testing import assert_issue_detected
from tests.diagnosis.conftest import Serve
from tests.diagnosis.service import Service

OWN = ["taskflow.*"]
PATTERNS = ["n_plus_one_queries"]


@pytest.fixture
def on_each_database(serve: Serve, database_url: str) -> Service:
    """A service on SQLite, then on PostgreSQL."""
    return serve(database_url=database_url)


def watch(runtime: Any, threshold: int = 5, patterns: list[str] | None = None) -> None:
    runtime.start_performance_monitoring(
        modules=OWN, detect_patterns=patterns or PATTERNS, threshold=threshold
    )


def dashboard(service: Service, variant: str, limit: int = 100) -> Any:
    return service.get("/projects/1/dashboard", params={"variant": variant, "limit": limit})


def test_a_dashboard_of_100_tasks_sends_more_than_50_queries(
    on_each_database: Service, pyscope_runtime: Any
) -> None:
    watch(pyscope_runtime)
    assert len(dashboard(on_each_database, "lazy")["latest"]) == 100
    issues = pyscope_runtime.get_performance_issues()
    assert issues.query_count > 50
    issue = assert_issue_detected(issues, "n_plus_one_query", minimum_queries=50)
    assert issue.relationship == "Task.watchers"


def test_the_fixed_dashboard_has_no_issue(on_each_database: Service, pyscope_runtime: Any) -> None:
    watch(pyscope_runtime)
    assert len(dashboard(on_each_database, "fixed")["latest"]) == 100
    assert pyscope_runtime.get_performance_issues() == []
    assert pyscope_runtime.get_performance_issues().query_count == 0


def test_awaited_attributes_are_an_n_plus_one_too_and_their_place_is_the_coroutine(
    on_each_database: Service, pyscope_runtime: Any
) -> None:
    watch(pyscope_runtime)
    dashboard(on_each_database, "awaited")
    issue = assert_issue_detected(
        pyscope_runtime.get_performance_issues(), "n_plus_one_query", relationship="Task.watchers"
    )
    assert issue.call_site.file.endswith("taskflow/web/dashboard.py")
    assert "_lines_awaited" in issue.call_site.function


def test_the_finding_names_place_parent_and_cure(service: Service, pyscope_runtime: Any) -> None:
    watch(pyscope_runtime)
    dashboard(service, "lazy")
    issues = pyscope_runtime.get_performance_issues()
    watchers = assert_issue_detected(issues, "n_plus_one_query", relationship="Task.watchers")
    assert watchers.call_site.file.endswith("taskflow/web/dashboard.py")
    assert "_read_lines_one_by_one" in watchers.call_site.function
    assert "FROM tasks" in watchers.parent_statement
    assert "selectinload(Task.watchers)" in watchers.suggestion
    assert watchers.total_ms > 0
    people = assert_issue_detected(issues, "n_plus_one_query", relationship="Task.assignee")
    assert "joinedload(Task.assignee)" in people.suggestion


def test_a_loop_of_get_is_found_and_its_twin_with_one_select_is_not(
    serve: Serve, pyscope_runtime: Any
) -> None:
    faulty, fixed = serve(faults="n_plus_one_get_loop"), serve()
    watch(pyscope_runtime)
    people = faulty.get("/projects/1/people")
    issue = assert_issue_detected(pyscope_runtime.get_performance_issues(), "n_plus_one_query", cause="get")
    assert any(place.file.endswith("taskflow/web/people.py") for place in issue.stack)
    assert "one statement" in issue.suggestion
    watch(pyscope_runtime)
    assert fixed.get("/projects/1/people") == people
    assert pyscope_runtime.get_performance_issues() == []


def test_one_task_below_the_threshold_is_silent_and_one_more_is_not(
    service: Service, pyscope_runtime: Any
) -> None:
    watch(pyscope_runtime, threshold=10)
    dashboard(service, "lazy", limit=9)
    assert pyscope_runtime.get_performance_issues() == []
    dashboard(service, "lazy", limit=10)
    issues = pyscope_runtime.get_performance_issues()
    assert [issue.relationship for issue in issues] == ["Task.watchers"]
    assert issues[0].query_count == 10


def test_each_request_is_a_scope_of_its_own(service: Service, pyscope_runtime: Any) -> None:
    watch(pyscope_runtime)
    for _ in range(3):
        dashboard(service, "lazy", limit=20)
    issues = [i for i in pyscope_runtime.get_performance_issues() if i.relationship == "Task.watchers"]
    assert len(issues) == 3
    assert len({issue.scope for issue in issues}) == 3
    assert 0 not in {issue.scope for issue in issues}
    assert {issue.query_count for issue in issues} == {20}


def test_few_queries_in_each_of_many_requests_are_no_n_plus_one(
    service: Service, pyscope_runtime: Any
) -> None:
    watch(pyscope_runtime)
    for task in range(1, 15):
        service.get(f"/tasks/{task}")
    assert pyscope_runtime.get_performance_issues() == []


def test_modules_that_have_no_part_in_it_are_told_of_nothing(service: Service, pyscope_runtime: Any) -> None:
    pyscope_runtime.start_performance_monitoring(modules=["taskflow.actors.*"], detect_patterns=PATTERNS)
    dashboard(service, "lazy")
    assert pyscope_runtime.get_performance_issues() == []


def test_statements_are_recorded_without_their_values(service: Service, pyscope_runtime: Any) -> None:
    watch(pyscope_runtime)
    dashboard(service, "lazy")
    for issue in pyscope_runtime.get_performance_issues():
        assert "?" in issue.statement or "%(" in issue.statement
