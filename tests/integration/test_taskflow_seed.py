"""Seeding a database: the same rows each time, and only into an empty one."""

import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from taskflow.data.database import SyncDatabase
from taskflow.data.models import Priority, Task
from taskflow.data.seeds import AlreadySeeded
from taskflow.load.invariants import violations
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

TABLES = ("users", "projects", "tasks", "task_watchers")


def rows(directory: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(directory / "taskflow.db")
    try:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES
        }
    finally:
        connection.close()


def test_two_databases_seeded_alike_hold_the_same_rows(tmp_path: Path) -> None:
    stored = []
    for name in ("one", "other"):
        directory = tmp_path / name
        directory.mkdir()
        seed_taskflow(taskflow_settings(directory), projects=5, tasks=2100)
        stored.append(rows(directory))
    assert stored[0] == stored[1]
    assert {table: len(stored[0][table]) for table in ("users", "projects", "tasks")} == {
        "users": 40,
        "projects": 5,
        "tasks": 2100,
    }
    assert stored[0]["task_watchers"]


def test_seeded_tasks_were_created_over_three_years_and_break_no_invariant(tmp_path: Path) -> None:
    settings = taskflow_settings(tmp_path)
    seed_taskflow(settings, projects=2, tasks=900)
    database = SyncDatabase(settings)
    try:
        with database.reading() as repo:
            assert violations(repo.session) == []
            created = repo.session.scalars(select(Task.created_at)).all()
            unwatched = select(Task.id).where(Task.priority == Priority.URGENT, ~Task.watchers.any())
            assert repo.session.scalars(unwatched).all() == []
    finally:
        database.close()
    years = Counter(moment.year for moment in created)
    assert years.keys() == {2023, 2024, 2025}
    assert 0 < years[2023] < years[2024] < years[2025]


def test_a_database_with_users_is_not_seeded_again(tmp_path: Path) -> None:
    settings = taskflow_settings(tmp_path)
    seed_taskflow(settings, projects=1, tasks=10)
    before = rows(tmp_path)
    with pytest.raises(AlreadySeeded):
        seed_taskflow(settings, projects=1, tasks=10)
    assert rows(tmp_path) == before


@pytest.mark.parametrize(("projects", "tasks"), [(0, 1), (1, -1), (10**7, 1)])
def test_senseless_numbers_are_refused_before_anything_is_written(
    tmp_path: Path, projects: int, tasks: int
) -> None:
    with pytest.raises(ValueError, match="can be seeded"):
        seed_taskflow(taskflow_settings(tmp_path), projects, tasks)
    assert not (tmp_path / "taskflow.db").exists()


def test_the_seed_command_says_what_it_wrote(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "taskflow", "seed", "--projects", "2", "--tasks", "30"],
        env=os.environ | {"DATABASE_URL": f"sqlite:///{tmp_path / 'taskflow.db'}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "seeded 40 users, 2 projects, 30 tasks\n"), done.stderr
    assert len(rows(tmp_path)["tasks"]) == 30
