"""The state probe and mapped classes of SQLAlchemy: attributes that are set, UPDATE statements that pass objects by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from pyscope.analysis import states
from pyscope.findings import StateChange
from taskflow.data.models import Base, Project, Task, TaskStatus, User
from tests.unit.watching import watching

pytestmark = pytest.mark.filterwarnings("ignore:modules=")


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    engine = create_engine(f"sqlite:///{tmp_path}/tasks.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(User(id=1, name="Ada", email="ada@example.org"))
        session.flush()
        session.add(Project(id=1, name="Engine", owner_id=1))
        session.flush()
        session.add_all([Task(id=number, project_id=1, title=f"task {number}") for number in (1, 2)])
        session.commit()
    yield engine
    engine.dispose()


def changes(tmp_path: Path, engine: Engine, body: Callable[[Session], None]) -> list[StateChange]:
    with watching(tmp_path, "state") as watch:
        watch.probe("state").watch(Task)
        with Session(engine) as session:
            body(session)
            session.commit()
    return states.find(watch.trace)


def assign(session: Session) -> None:
    task = session.get_one(Task, 1)
    task.assignee_id = 1
    task.status = TaskStatus.ASSIGNED


def test_an_attribute_that_is_set_tells_old_new_and_the_key(tmp_path: Path, engine: Engine) -> None:
    found = changes(tmp_path, engine, assign)
    assert [change.attribute for change in found] == ["assignee_id", "status"]
    change = found[1]
    assert (change.transition, change.old, change.new, change.key) == (
        "task_assigned",
        "open",
        "assigned",
        "1",
    )
    assert (change.trigger, change.seen, change.process) == ("assign", "write", "Task")


def test_loading_expiring_and_refreshing_are_no_changes(tmp_path: Path, engine: Engine) -> None:
    def body(session: Session) -> None:
        tasks = session.scalars(select(Task)).all()
        session.expire_all()
        assert [task.status for task in tasks] == [TaskStatus.OPEN] * 2
        session.refresh(tasks[0])

    assert changes(tmp_path, engine, body) == []


def test_the_old_value_of_an_expired_attribute_is_unknown_and_not_queried(
    tmp_path: Path, engine: Engine
) -> None:
    def body(session: Session) -> None:
        task = session.get_one(Task, 1)
        session.expire(task, ["description"])
        task.description = "new"

    [change] = changes(tmp_path, engine, body)
    assert (change.old, change.new, change.known) == (None, "new", False)


def test_a_new_row_has_a_first_status_only_if_it_was_given_one(tmp_path: Path, engine: Engine) -> None:
    def body(session: Session) -> None:
        session.add(Task(project_id=1, title="a"))
        session.add(Task(project_id=1, title="b", status=TaskStatus.OPEN))

    [change] = changes(tmp_path, engine, body)
    assert (change.transition, change.old) == ("task_open", None)


def test_an_update_statement_tells_what_its_where_clause_knows(tmp_path: Path, engine: Engine) -> None:
    def body(session: Session) -> None:
        session.execute(
            update(Task)
            .where(Task.id == 2, Task.status == TaskStatus.OPEN)
            .values(status=TaskStatus.ASSIGNED, assignee_id=1, minutes_spent=Task.minutes_spent + 5)
            .execution_options(synchronize_session=False)
        )

    found = {change.attribute: change for change in changes(tmp_path, engine, body)}
    status = found["status"]
    assert (status.transition, status.old, status.new) == ("task_assigned", "open", "assigned")
    assert (status.key, status.seen, status.known, status.object) == ("2", "statement", True, 0)
    assert status.trigger.endswith("body")
    assert (found["assignee_id"].new, found["assignee_id"].known) == (1, False)
    assert (found["minutes_spent"].new, found["minutes_spent"].known) == (None, False)


def test_an_update_that_met_no_row_is_no_change(tmp_path: Path, engine: Engine) -> None:
    def body(session: Session) -> None:
        session.execute(
            update(Task)
            .where(Task.id == 2, Task.status == TaskStatus.COMPLETED)
            .values(status=TaskStatus.OPEN)
            .execution_options(synchronize_session=False)
        )
        session.execute(update(User).values(name="Grace"))

    assert changes(tmp_path, engine, body) == []


def test_the_asynchronous_engine_is_seen_too(tmp_path: Path, engine: Engine) -> None:
    async def main() -> None:
        async_engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/tasks.db")
        async with AsyncSession(async_engine) as session:
            task = await session.get_one(Task, 1)
            task.assignee_id = 1
            task.status = TaskStatus.ASSIGNED
            await session.execute(
                update(Task).where(Task.id == 2).values(status=TaskStatus.ASSIGNED, assignee_id=1)
            )
            await session.commit()
        await async_engine.dispose()

    with watching(tmp_path, "state") as watch:
        watch.probe("state").watch(Task)
        asyncio.run(main())
    found = [change for change in states.find(watch.trace) if change.transition == "task_assigned"]
    assert [(change.key, change.seen) for change in found] == [("1", "write"), ("2", "statement")]
    assert all(change.trigger.endswith("main") for change in found)


def test_the_mapped_class_and_the_engine_are_as_found_after_removal(tmp_path: Path, engine: Engine) -> None:
    before = dict(vars(Task))
    listeners = list(engine.dispatch.after_execute)
    changes(tmp_path, engine, assign)
    assert {name: id(value) for name, value in vars(Task).items()} == {
        name: id(value) for name, value in before.items()
    }
    assert list(engine.dispatch.after_execute) == listeners
