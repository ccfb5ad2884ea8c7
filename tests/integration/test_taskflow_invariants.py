"""The audit after a load: silent when everything fits, and a sentence for each thing that does not."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.orm import Session

from taskflow.data.database import SyncDatabase
from taskflow.data.models import Priority, Task, TaskStatus, now, task_watchers
from taskflow.load import Ledger
from taskflow.load.invariants import violations
from taskflow.settings import Settings
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

OPEN, TAKEN, ASSIGNED, DONE = range(101, 105)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A seeded database that the tests leave as it is."""
    settings = taskflow_settings(tmp_path_factory.mktemp("invariants"))
    seed_taskflow(settings, projects=2, tasks=100)
    return settings


@pytest.fixture
def session(settings: Settings) -> Iterator[Session]:
    """A transaction, rolled back at the end, with the four tasks of a load, of which `a_ledger` tells."""
    database = SyncDatabase(settings)
    at = now()
    with database.reading() as repo:
        for task, status, assignee, minutes in (
            (OPEN, TaskStatus.OPEN, None, 0),
            (TAKEN, TaskStatus.ASSIGNED, 1, 0),
            (ASSIGNED, TaskStatus.ASSIGNED, 2, 30),
            (DONE, TaskStatus.COMPLETED, 3, 0),
        ):
            repo.session.add(
                Task(
                    id=task, project_id=1, title="Load 1", status=status, assignee_id=assignee,
                    minutes_spent=minutes, priority=Priority.URGENT, created_at=at, updated_at=at,
                    completed_at=at if status is TaskStatus.COMPLETED else None,
                )
            )  # fmt: skip
        repo.session.flush()
        repo.session.execute(insert(task_watchers), [{"task_id": OPEN, "user_id": 1}])
        yield repo.session
    database.close()


def a_ledger() -> Ledger:
    return Ledger(
        title="Load 1",
        created=[OPEN, TAKEN, ASSIGNED, DONE],
        taken=[(TAKEN, 1), (DONE, 3)],
        assigned=[(ASSIGNED, 2)],
        started=[DONE],
        completed=[DONE],
        minutes={ASSIGNED: 30},
        watched=[OPEN],
    )


def test_a_database_in_order_breaks_no_invariant(session: Session) -> None:
    assert violations(session, a_ledger()) == []


def task_to(task: int, **values: object) -> Callable[[Session, Ledger], object]:
    return lambda session, _: session.execute(update(Task).where(Task.id == task).values(values))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (task_to(OPEN, assignee_id=4), "1 task open, and yet assigned to someone, for example 101"),
        (task_to(DONE, completed_at=None), "completed, but nobody knows when"),
        (task_to(TAKEN, completed_at=now()), "not completed, and yet it says when"),
        (task_to(OPEN, created_at=now().replace(year=2100)), "before it was created"),
        (task_to(OPEN, title="gone"), "1 task created and not stored: 101"),
        (lambda _, ledger: ledger.created.remove(OPEN), "1 task stored, though nobody was told of it: 101"),
        (lambda _, ledger: ledger.created.append(OPEN), "created twice under one id: 101"),
        (lambda _, ledger: ledger.taken.append((TAKEN, 1)), "assigned to two clients: 102"),
        (lambda _, ledger: ledger.assigned.append((TAKEN, 1)), "assigned to two clients: 102"),
        (lambda _, ledger: ledger.completed.append(DONE), "completed twice: 104"),
        (lambda _, ledger: ledger.taken.remove((TAKEN, 1)), "assigned, but to no client: 102"),
        (task_to(ASSIGNED, assignee_id=9), "assigned to another than the client was told: 103"),
        (lambda _, ledger: ledger.started.append(TAKEN), "not as far as the client was told: 102"),
        (lambda _, ledger: ledger.completed.append(TAKEN), "not as far as the client was told: 102"),
        (task_to(ASSIGNED, minutes_spent=20), "103 has 20 minutes instead of the 30"),
        (task_to(OPEN, minutes_spent=1), "101 has 1 minutes instead of the 0"),
        (lambda session, _: session.execute(delete(task_watchers)), "urgent and without a watcher: 101"),
    ],
)
def test_each_damage_is_named(
    session: Session, damage: Callable[[Session, Ledger], object], complaint: str
) -> None:
    ledger = a_ledger()
    damage(session, ledger)
    assert any(complaint in found for found in violations(session, ledger))


def test_what_was_never_answered_may_have_happened_or_not(session: Session) -> None:
    ledger = a_ledger()
    ledger.created.remove(OPEN)
    ledger.taken.remove((TAKEN, 1))
    ledger.minutes.clear()
    assert len(violations(session, ledger)) == 3
    ledger.unanswered = 3
    assert violations(session, ledger) == []


def audit(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "taskflow", "audit", *arguments],
        env=os.environ | {"DATABASE_URL": settings.database_url},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_audit_command_reads_a_ledger_and_says_what_is_broken(settings: Settings, tmp_path: Path) -> None:
    done = audit(settings)
    assert (done.returncode, done.stdout) == (0, "every invariant holds\n"), done.stderr
    a_ledger().write(tmp_path / "ledger.json")
    done = audit(settings, str(tmp_path / "ledger.json"))
    assert done.returncode == 1
    assert "4 tasks created and not stored: 101, 102, 103, 104" in done.stdout


def test_a_file_that_is_no_ledger_is_refused(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "ledger.json"
    for content in ("no JSON", "[]", '{"minutes": {}}', '{"title": "x", "minutes": {}, "taken": [1]}'):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"ledger\.json is not the ledger of a load"):
            Ledger.read(file)
    done = audit(settings, str(file))
    assert done.returncode == 2
    assert done.stderr.startswith(f"{file} is not the ledger of a load")
    assert "Traceback" not in done.stderr


def test_a_ledger_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    a_ledger().write(tmp_path / "ledger.json")
    assert Ledger.read(tmp_path / "ledger.json") == a_ledger()
