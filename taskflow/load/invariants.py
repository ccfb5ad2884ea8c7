"""What must hold in the database after any load: nothing lost, nothing done twice, no row that contradicts itself."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from taskflow.data.models import Task, TaskStatus, task_watchers
from taskflow.load.ledger import Ledger

SHOWN: Final = 5
AT_WORK: Final = {TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED}
CONTRADICTIONS: Final[dict[str, ColumnElement[bool]]] = {
    "open, and yet assigned to someone": and_(Task.status == TaskStatus.OPEN, Task.assignee_id.is_not(None)),
    "no longer open, but assigned to nobody": and_(
        Task.status != TaskStatus.OPEN, Task.assignee_id.is_(None)
    ),
    "completed, but nobody knows when": and_(
        Task.status == TaskStatus.COMPLETED, Task.completed_at.is_(None)
    ),
    "not completed, and yet it says when": and_(
        Task.status != TaskStatus.COMPLETED, Task.completed_at.is_not(None)
    ),
    "changed or completed before it was created": or_(
        Task.updated_at < Task.created_at, Task.completed_at < Task.created_at
    ),
    "of negative time": Task.minutes_spent < 0,
}


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the audit has to know of a task."""

    status: TaskStatus
    assignee_id: int | None
    minutes_spent: int
    watched: bool


def violations(session: Session, ledger: Ledger | None = None) -> list[str]:
    """Every invariant that is broken, in a sentence each; an empty list when all hold.

    Without a ledger only the rows themselves are looked at. With one, what the service acknowledged to
    the clients of that load must be stored, and, as far as every request was answered, nothing else.
    """
    found = [*_contradictions(session)]
    if ledger is not None:
        stored = _stored(session, ledger.title)
        for check in (_lost, _taken_twice, _assigned_otherwise, _not_as_far, _time_lost, _unwatched):
            found += check(ledger, stored)
    return found


def _contradictions(session: Session) -> Iterator[str]:
    for what, condition in CONTRADICTIONS.items():
        if count := session.scalar(select(func.count()).select_from(Task).where(condition)):
            example = session.scalar(select(func.min(Task.id)).where(condition))
            yield f"{_tasks(count)} {what}, for example {example}"


def _stored(session: Session, title: str) -> dict[int, _Stored]:
    watched = exists().where(task_watchers.c.task_id == Task.id)
    rows = session.execute(
        select(Task.id, Task.status, Task.assignee_id, Task.minutes_spent, watched).where(Task.title == title)
    )
    return {identity: _Stored(*values) for identity, *values in rows}


def _lost(ledger: Ledger, stored: dict[int, _Stored]) -> Iterator[str]:
    yield from _listed("created and not stored", set(ledger.created) - stored.keys())
    yield from _listed("created twice under one id", _repeated(ledger.created))
    if not ledger.unanswered:
        yield from _listed("stored, though nobody was told of it", stored.keys() - set(ledger.created))


def _taken_twice(ledger: Ledger, stored: dict[int, _Stored]) -> Iterator[str]:
    everyone = [task for task, _ in (*ledger.taken, *ledger.assigned)]
    yield from _listed("assigned to two clients", _repeated(everyone))
    yield from _listed("completed twice", _repeated(ledger.completed))
    if not ledger.unanswered:
        beyond_open = {task for task, row in stored.items() if row.status is not TaskStatus.OPEN}
        yield from _listed("assigned, but to no client", beyond_open - set(everyone))


def _assigned_otherwise(ledger: Ledger, stored: dict[int, _Stored]) -> Iterator[str]:
    wrong = {
        task
        for task, user in (*ledger.taken, *ledger.assigned)
        if task in stored and stored[task].assignee_id != user
    }
    yield from _listed("assigned to another than the client was told", wrong)


def _not_as_far(ledger: Ledger, stored: dict[int, _Stored]) -> Iterator[str]:
    status = {task: row.status for task, row in stored.items()}
    behind = {task for task, _ in (*ledger.taken, *ledger.assigned) if status.get(task) is TaskStatus.OPEN}
    behind |= {task for task in ledger.started if status.get(task) not in AT_WORK}
    behind |= {task for task in ledger.completed if status.get(task) is not TaskStatus.COMPLETED}
    yield from _listed("not as far as the client was told", behind)


def _time_lost(ledger: Ledger, stored: dict[int, _Stored]) -> Iterator[str]:
    for task, row in stored.items():
        told = ledger.minutes.get(task, 0)
        if row.minutes_spent < told or (row.minutes_spent > told and not ledger.unanswered):
            yield f"task {task} has {row.minutes_spent} minutes instead of the {told} that were logged"


def _unwatched(ledger: Ledger, stored: dict[int, _Stored]) -> Iterator[str]:
    unwatched = {task for task in ledger.watched if task in stored and not stored[task].watched}
    yield from _listed("urgent and without a watcher", unwatched)


def _repeated(tasks: Iterable[int]) -> set[int]:
    return {task for task, count in Counter(tasks).items() if count > 1}


def _listed(what: str, tasks: set[int]) -> Iterator[str]:
    if tasks:
        some = ", ".join(map(str, sorted(tasks)[:SHOWN]))
        yield f"{_tasks(len(tasks))} {what}: {some}{', …' if len(tasks) > SHOWN else ''}"


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
