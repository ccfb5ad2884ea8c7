"""Races: on an actor's book, in the database, across an await; forced to overlap, each beside a twin that is silent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy.util import await_only

from pyscope.findings import Race
from taskflow.actors.task_manager import TaskManager
from taskflow.data import queries
from taskflow.data.reports import Reports
from tests.diagnosis.conftest import Serve
from tests.diagnosis.service import PATIENCE, Service

ASSIGNERS = 10
YEAR = 2025


def at_once(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """What each call gives, each made by a client of its own at the same time."""
    calls = list(calls)
    with ThreadPoolExecutor(len(calls)) as clients:
        return [each.result() for each in [clients.submit(call) for call in calls]]


def observed(runtime: Any, kind: str | None = None) -> list[Race]:
    races = [race for race in runtime.get_race_conditions() if race.grade == "observed"]
    return [race for race in races if kind in (None, race.kind)]


def named(race: Race, *places: str) -> bool:
    """Whether what happened names these places, and every access has its stack in TaskFlow's code."""
    assert all("/taskflow/" in place.file for access in race.accesses for place in access.stack)
    assert all(access.location == access.stack[0] for access in race.accesses)
    return all(place in race.explanation for place in places)


class Meeting:
    """Lets coroutines of the service go on only when `count` of them have come so far.

    They look again and again: a signal from one to the other would put in order what is to race.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._come = 0

    async def meet(self) -> None:
        """Those who come later do not wait."""
        self._come += 1
        async with asyncio.timeout(PATIENCE):
            while self._come < self._count:
                await asyncio.sleep(0.001)


def meeting_before(monkeypatch: pytest.MonkeyPatch, statement: str, count: int = 2) -> None:
    """`count` requests come to a statement before any of them sends it."""
    make, meeting = getattr(queries, statement), Meeting(count)

    def meet_and_make(*arguments: Any) -> Any:
        await_only(meeting.meet())
        return make(*arguments)

    monkeypatch.setattr(queries, statement, meet_and_make)


class Gate:
    """The first request that comes to a statement is held back before it sends it, until the gate is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
        self.held, self._opened = threading.Event(), threading.Event()
        make = getattr(queries, statement)

        def come_and_make(*arguments: Any) -> Any:
            if not self.held.is_set():
                self.held.set()
                await_only(asyncio.to_thread(self._opened.wait, PATIENCE))
            return make(*arguments)

        monkeypatch.setattr(queries, statement, come_and_make)

    def open(self) -> None:
        """Lets it go on."""
        self._opened.set()


def manager_of(service: Service) -> TaskManager:
    manager = service.application.actors.task_manager()
    assert manager is not None
    return manager


# --- an actor's book -----------------------------------------------------------------------------


def assign_next(service: Service) -> list[tuple[int, int]]:
    """(task, assignee) as ten concurrent callers were told."""

    def ask(assignee: int) -> tuple[int, int]:
        task = service.post("/projects/1/assign-next", {"assignee_id": assignee})
        return task["id"], task["assignee_id"]

    return at_once(lambda assignee=user: ask(assignee) for user in range(1, ASSIGNERS + 1))


def test_ten_concurrent_assigners_check_and_act_on_the_same_book(
    serve: Serve, database_url: str, pyscope_runtime: Any
) -> None:
    service = serve(faults="assign_race", database_url=database_url)
    manager = manager_of(service)
    # Nobody leaves the window between check and act before all are in it.
    manager.in_race_window = threading.Barrier(ASSIGNERS).wait  # type: ignore[assignment]
    pyscope_runtime.monitor_concurrency([manager])
    told = assign_next(service)
    assert len({task for task, _ in told}) == 1
    assert len({assignee for _, assignee in told}) == ASSIGNERS
    [race] = observed(pyscope_runtime, "check_then_act")
    assert race.subject == "TaskManager.assignments"
    assert race.count > 1
    assert [access.operation for access in race.accesses] == ["check", "write", "write"]
    assert len({access.thread for access in race.accesses}) == 2
    assert all(access.thread.startswith("racing assigner") for access in race.accesses)
    assert named(race, "task_manager.py", "assign_next_past_the_mailbox")
    assert "threading.Lock" in race.suggestion
    assert "task_manager.py" in race.suggestion


def test_assigners_that_stand_in_the_mailbox_race_with_nobody(
    serve: Serve, database_url: str, pyscope_runtime: Any
) -> None:
    service = serve(database_url=database_url)
    pyscope_runtime.monitor_concurrency([manager_of(service)])
    told = assign_next(service)
    assert len({task for task, _ in told}) == ASSIGNERS
    assert pyscope_runtime.get_race_conditions() == []


def test_one_assigner_at_a_time_is_no_observed_race(serve: Serve, pyscope_runtime: Any) -> None:
    service = serve(faults="assign_race")
    pyscope_runtime.monitor_concurrency([manager_of(service)])
    tasks = [service.post("/projects/1/assign-next", {"assignee_id": user})["id"] for user in range(1, 5)]
    assert len(set(tasks)) == len(tasks)
    assert observed(pyscope_runtime) == []


def test_without_detection_races_happen_and_are_not_told(serve: Serve, pyscope_runtime: Any) -> None:
    service = serve(faults="assign_race")
    manager = manager_of(service)
    manager.in_race_window = threading.Barrier(ASSIGNERS).wait  # type: ignore[assignment]
    pyscope_runtime.monitor_concurrency([manager], detect_races=False)
    assert len({task for task, _ in assign_next(service)}) == 1
    assert pyscope_runtime.get_race_conditions() == []


# --- the database --------------------------------------------------------------------------------


def test_minutes_added_between_the_read_and_the_write_of_others_are_a_lost_update(
    serve: Serve, database_url: str, pyscope_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(faults="lost_update", database_url=database_url)
    task = service.create_task()
    pyscope_runtime.monitor_concurrency()
    gate = Gate(monkeypatch, "set_minutes")
    with ThreadPoolExecutor(1) as client:
        slow = client.submit(service.post, f"/tasks/{task}/time", {"minutes": 1})
        assert gate.held.wait(PATIENCE)
        service.post(f"/tasks/{task}/time", {"minutes": 5})
        gate.open()
        slow.result()
    assert service.get(f"/tasks/{task}")["minutes_spent"] == 1  # of six
    [race] = observed(pyscope_runtime)
    assert race.kind == "lost_update"
    assert race.subject.startswith("tasks.minutes_spent")
    assert sorted(access.operation for access in race.accesses) == ["read", "write", "write"]
    assert len({access.context for access in race.accesses}) == 2
    assert len({access.scope for access in race.accesses}) == 2
    assert 0 not in {access.scope for access in race.accesses}
    assert named(race, "repo.py", "set_minutes")
    assert any(place.function == "_add_in_python" for place in race.accesses[-1].stack)
    assert "minutes_spent = minutes_spent + …" in race.suggestion


def test_two_requests_that_both_read_before_either_writes_lose_the_minutes_of_one(
    serve: Serve, database_url: str, pyscope_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(faults="lost_update", database_url=database_url)
    task = service.create_task()
    pyscope_runtime.monitor_concurrency()
    meeting_before(monkeypatch, "set_minutes")
    at_once([lambda: service.post(f"/tasks/{task}/time", {"minutes": 1})] * 2)
    assert service.get(f"/tasks/{task}")["minutes_spent"] == 1
    assert {race.kind for race in observed(pyscope_runtime)} == {"lost_update"}


def test_minutes_that_the_database_adds_are_not_lost(
    serve: Serve, database_url: str, pyscope_runtime: Any
) -> None:
    service = serve(database_url=database_url)
    task = service.create_task()
    pyscope_runtime.monitor_concurrency()
    for _ in range(5):
        at_once([lambda: service.post(f"/tasks/{task}/time", {"minutes": 1})] * 4)
    assert service.get(f"/tasks/{task}")["minutes_spent"] == 20
    assert observed(pyscope_runtime) == []


def test_additions_of_transactions_that_overlap_are_safe(
    serve: Serve, postgres_url: str, pyscope_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(database_url=postgres_url)
    task = service.create_task()
    pyscope_runtime.monitor_concurrency()
    meeting_before(monkeypatch, "add_minutes")
    at_once([lambda: service.post(f"/tasks/{task}/time", {"minutes": 1})] * 2)
    assert service.get(f"/tasks/{task}")["minutes_spent"] == 2
    assert pyscope_runtime.get_race_conditions() == []


def test_minutes_added_one_after_the_other_are_no_observed_race(
    serve: Serve, database_url: str, pyscope_runtime: Any
) -> None:
    service = serve(faults="lost_update", database_url=database_url)
    task = service.create_task()
    pyscope_runtime.monitor_concurrency()
    for _ in range(4):
        service.post(f"/tasks/{task}/time", {"minutes": 1})
    assert service.get(f"/tasks/{task}")["minutes_spent"] == 4
    assert observed(pyscope_runtime) == []


def watched_by_two(service: Service) -> int:
    """An urgent task with two watchers, of whom one has to stay."""
    task = service.create_task(priority="urgent")
    for user in (1, 2):
        service.post(f"/tasks/{task}/watchers", {"user_id": user})
    return task


def leave(service: Service, task: int) -> list[int]:
    """What two concurrent removals of both watchers were answered."""
    return sorted(
        at_once(
            lambda user=user: service.client.delete(f"/tasks/{task}/watchers/{user}").status_code
            for user in (1, 2)
        )
    )


def test_watchers_who_leave_at_once_are_write_skew(
    serve: Serve, database_url: str, pyscope_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(faults="write_skew", database_url=database_url)
    task = watched_by_two(service)
    pyscope_runtime.monitor_concurrency()
    meeting_before(monkeypatch, "remove_watcher")
    assert leave(service, task) == [204, 204]
    assert service.get(f"/tasks/{task}/watchers") == []
    [race] = observed(pyscope_runtime)
    assert (race.kind, race.subject) == ("write_skew", "task_watchers.task_id")
    assert [access.operation for access in race.accesses] == ["read", "read", "delete", "delete"]
    assert len({access.context for access in race.accesses}) == 2
    assert named(race, "repo.py", "remove_watcher")
    assert any(place.function == "_remove_unlocked" for place in race.accesses[0].stack)
    assert "with_for_update()" in race.suggestion


def test_watchers_who_lock_the_task_first_leave_one(
    serve: Serve, database_url: str, pyscope_runtime: Any
) -> None:
    service = serve(database_url=database_url)
    pyscope_runtime.monitor_concurrency()
    for _ in range(3):
        task = watched_by_two(service)
        assert leave(service, task) == [204, 409]
        assert len(service.get(f"/tasks/{task}/watchers")) == 1
    assert observed(pyscope_runtime) == []


def test_a_lock_makes_transactions_that_overlap_count_one_after_the_other(
    serve: Serve, postgres_url: str, pyscope_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(database_url=postgres_url)
    task = watched_by_two(service)
    pyscope_runtime.monitor_concurrency()
    meeting_before(monkeypatch, "locked_task")
    assert leave(service, task) == [204, 409]
    assert pyscope_runtime.get_race_conditions() == []


def test_watchers_of_different_tasks_do_not_meet(
    serve: Serve, database_url: str, pyscope_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(faults="write_skew", database_url=database_url)
    tasks = [watched_by_two(service) for _ in range(2)]
    pyscope_runtime.monitor_concurrency()
    meeting_before(monkeypatch, "remove_watcher")
    at_once(lambda task=task: service.client.delete(f"/tasks/{task}/watchers/1") for task in tasks)
    assert [len(service.get(f"/tasks/{task}/watchers")) for task in tasks] == [1, 1]
    assert pyscope_runtime.get_race_conditions() == []


# --- across an await -----------------------------------------------------------------------------


def ask_for_reports_together(service: Service, monkeypatch: pytest.MonkeyPatch, count: int) -> set[int]:
    """The reports that two clients were told of; `count` of them look for the year's tasks at the same time."""
    tasks_of, meeting = Reports.tasks_of, Meeting(count)

    async def meet_and_count(reports: Reports, year: int) -> int:
        await meeting.meet()
        return await tasks_of(reports, year)

    monkeypatch.setattr(Reports, "tasks_of", meet_and_count)
    return {report["id"] for report in at_once([lambda: service.post("/reports", {"year": YEAR})] * 2)}


def test_two_requests_that_find_no_report_under_way_check_then_act_across_an_await(
    serve: Serve, database_url: str, pyscope_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(faults="check_then_act_await", database_url=database_url, tasks=20)
    pyscope_runtime.monitor_concurrency([service.application.reports])
    assert len(ask_for_reports_together(service, monkeypatch, 2)) == 2
    [race] = observed(pyscope_runtime)
    assert (race.kind, race.subject) == ("check_then_act", "ReportGenerator._under_way")
    assert [access.operation for access in race.accesses] == ["check", "write", "write"]
    assert len({access.context for access in race.accesses}) == 2
    assert {access.thread for access in race.accesses} == {"uvicorn"}
    assert len({access.scope for access in race.accesses}) == 2
    assert named(race, "reports.py", "_begin_unless_under_way_late", "_note_under_way")
    assert "asyncio.Lock" in race.suggestion
    assert "_note_under_way" in race.suggestion


def test_a_report_that_is_noted_before_the_first_await_is_begun_once(
    serve: Serve, database_url: str, pyscope_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(database_url=database_url, tasks=20)
    pyscope_runtime.monitor_concurrency([service.application.reports])
    assert len(ask_for_reports_together(service, monkeypatch, 1)) == 1
    assert pyscope_runtime.get_race_conditions() == []
