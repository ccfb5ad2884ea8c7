"""Seeds: a believable database of any size, the same rows for the same arguments."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, insert, select

from taskflow.data.database import Database
from taskflow.data.models import Priority, Project, Task, TaskStatus, User, task_watchers
from taskflow.errors import TaskFlowError

LARGEST_SEED: Final = 1_000_000
BATCH: Final = 2_000
# Fixed, so that the same rows come out on any day; the last year is a full one for the annual report.
FIRST_YEAR: Final = 2023
LAST_YEAR: Final = 2025
BEGINNING: Final = datetime(FIRST_YEAR, 1, 1, 9, tzinfo=UTC)
MINUTES: Final = int((datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC) - BEGINNING).total_seconds()) // 60
PEOPLE: Final = 40
MOST_WATCHERS: Final = 4
NAMES: Final = [
    "Ada", "Alan", "Anita", "Barbara", "Donald", "Edsger", "Frances", "Grace", "Hedy", "Ivan",
    "Jean", "John", "Karen", "Katherine", "Ken", "Leslie", "Margaret", "Niklaus", "Radia", "Robin",
    "Shafi", "Sophie", "Tim", "Tony",
]  # fmt: skip
VERBS: Final = [
    "Fix", "Write", "Review", "Measure", "Migrate", "Test", "Document", "Remove", "Split", "Deploy",
]  # fmt: skip
OBJECTS: Final = [
    "the importer", "the login page", "the invoice export", "the nightly job", "the search index",
    "the cache", "the mail queue", "the billing report", "the mobile layout", "the audit log",
]  # fmt: skip
STATUS_WEIGHTS: Final = {
    TaskStatus.OPEN: 40,
    TaskStatus.ASSIGNED: 15,
    TaskStatus.IN_PROGRESS: 15,
    TaskStatus.COMPLETED: 30,
}
MOST_MINUTES_SPENT: Final = {TaskStatus.IN_PROGRESS: 600, TaskStatus.COMPLETED: 2400}
PRIORITY_WEIGHTS: Final = {Priority.LOW: 20, Priority.NORMAL: 50, Priority.HIGH: 22, Priority.URGENT: 8}


class AlreadySeeded(TaskFlowError):
    """The database holds data; seeding it again would mix the two."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """How many rows were written."""

    users: int
    projects: int
    tasks: int


async def seed(database: Database, projects: int, tasks: int, random_seed: int = 1) -> Seeded:
    """Fill an empty database with `projects` projects that share `tasks` tasks among 40 people.

    The schema is created when missing. ValueError for senseless numbers, AlreadySeeded when there
    are users already; in both cases nothing is written.
    """
    if not 1 <= projects <= LARGEST_SEED or not 0 <= tasks <= LARGEST_SEED:
        raise ValueError(
            f"between 1 and {LARGEST_SEED} projects and 0 and {LARGEST_SEED} tasks can be seeded"
        )
    chance = random.Random(random_seed)
    await database.create_schema()
    async with database.writing() as repo:
        session = repo.session
        if await session.scalar(select(func.count()).select_from(User)):
            raise AlreadySeeded("The database already holds users; seed an empty one.")
        await session.execute(insert(User), [_user(number) for number in range(1, PEOPLE + 1)])
        for first in range(1, projects + 1, BATCH):
            numbers = range(first, min(first + BATCH, projects + 1))
            await session.execute(insert(Project), [_project(chance, number) for number in numbers])
        for first in range(1, tasks + 1, BATCH):
            numbers = range(first, min(first + BATCH, tasks + 1))
            rows = [_task(chance, number, projects) for number in numbers]
            # Without render_nulls rows with and without a NULL go into separate statements.
            await session.execute(insert(Task), rows, execution_options={"render_nulls": True})
            watchers = [
                watcher
                for number, row in zip(numbers, rows, strict=True)
                for watcher in _watchers(chance, number, row["priority"])
            ]
            if watchers:
                await session.execute(insert(task_watchers), watchers)
    return Seeded(PEOPLE, projects, tasks)


def _user(number: int) -> dict[str, Any]:
    name = NAMES[(number - 1) % len(NAMES)]
    return {
        "name": f"{name} {number}",
        "email": f"{name.lower()}.{number}@taskflow.example",
        "created_at": BEGINNING,
    }


def _project(chance: random.Random, number: int) -> dict[str, Any]:
    return {
        "name": f"Project {number}",
        "owner_id": chance.randint(1, PEOPLE),
        "created_at": BEGINNING + timedelta(minutes=number),
    }


def _task(chance: random.Random, number: int, projects: int) -> dict[str, Any]:
    [status] = chance.choices(list(STATUS_WEIGHTS), list(STATUS_WEIGHTS.values()))
    [priority] = chance.choices(list(PRIORITY_WEIGHTS), list(PRIORITY_WEIGHTS.values()))
    # The root makes a year busier than the one before.
    created = BEGINNING + timedelta(minutes=int(MINUTES * chance.random() ** 0.5))
    worked = created + timedelta(hours=chance.randint(1, 400))
    return {
        "project_id": 1 + (number - 1) % projects,
        "assignee_id": None if status is TaskStatus.OPEN else chance.randint(1, PEOPLE),
        "title": f"{chance.choice(VERBS)} {chance.choice(OBJECTS)}",
        "description": "",
        "status": status,
        "priority": priority,
        "due_date": (created + timedelta(days=chance.randint(3, 90))).date()
        if chance.random() < 0.7
        else None,
        "minutes_spent": chance.randint(0, MOST_MINUTES_SPENT.get(status, 0)),
        "created_at": created,
        "updated_at": created if status is TaskStatus.OPEN else worked,
        "completed_at": worked if status is TaskStatus.COMPLETED else None,
    }


def _watchers(chance: random.Random, task_number: int, priority: Priority) -> list[dict[str, int]]:
    least = 1 if priority is Priority.URGENT else 0
    people = chance.sample(range(1, PEOPLE + 1), chance.randint(least, MOST_WATCHERS))
    return [{"task_id": task_number, "user_id": person} for person in people]
