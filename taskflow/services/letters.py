"""Who is told of a change of a task, and in which words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import Select, select

from taskflow.data.database import Database
from taskflow.data.models import Project, User
from taskflow.data.outbox import Channel, Notification
from taskflow.services.events import TaskChange, TaskEvent


@dataclass(frozen=True, slots=True)
class _People:
    """Addresses by user, name and owner's address by project."""

    addresses: Mapping[int, str]
    projects: Mapping[int, tuple[str, str]]


async def letters_about(
    events: Sequence[TaskEvent], database: Database, webhook_urls: Sequence[str]
) -> list[Notification]:
    """The notifications that `events` call for.

    The assignee is mailed of an assignment, the owner of the project of a completion; every webhook gets
    every event.
    """
    people = await _people_of(events, database)
    letters = []
    for event in events:
        if (letter := _mail(event, people)) is not None:
            letters.append(letter)
        letters.extend(
            Notification(
                key=uuid4().hex, channel=Channel.WEBHOOK, recipient=url, subject="", content=_payload(event)
            )
            for url in webhook_urls
        )
    return letters


def _mail(event: TaskEvent, people: _People) -> Notification | None:
    project, owner = people.projects.get(event.project_id, ("an unknown project", None))
    match event.change:
        case TaskChange.ASSIGNED:
            recipient = people.addresses.get(event.assignee_id or 0)
            subject, said = f"Assigned to you: {event.title}", "has been assigned to you"
        case TaskChange.COMPLETED:
            recipient = owner
            subject, said = f"Completed: {event.title}", "is completed"
        case _:
            return None
    if recipient is None:
        return None
    text = f"Task {event.task_id} of {project}, “{event.title}”, {said}.\n\n{event.at:%Y-%m-%d %H:%M} UTC\n"
    return Notification(
        key=uuid4().hex, channel=Channel.EMAIL, recipient=recipient, subject=subject, content=text
    )


def _payload(event: TaskEvent) -> str:
    """The body of a webhook, shaped as the Standard Webhooks specification recommends."""
    return json.dumps(
        {
            "type": f"task.{event.change}",
            "timestamp": event.at.isoformat(),
            "data": {
                "task_id": event.task_id,
                "project_id": event.project_id,
                "title": event.title,
                "status": event.status,
                "assignee_id": event.assignee_id,
            },
        },
        ensure_ascii=False,
    )


async def _people_of(events: Sequence[TaskEvent], database: Database) -> _People:
    assignees = {
        event.assignee_id
        for event in events
        if event.change is TaskChange.ASSIGNED and event.assignee_id is not None
    }
    projects = {event.project_id for event in events if event.change is TaskChange.COMPLETED}
    projects |= {event.project_id for event in events if event.change is TaskChange.ASSIGNED}
    if not projects:
        return _People({}, {})
    async with database.reading() as repo:
        addresses = await repo.session.execute(_addresses(assignees))
        owners = await repo.session.execute(_owners(projects))
        return _People(dict(addresses.all()), {project: (name, email) for project, name, email in owners})


def _addresses(users: set[int]) -> Select[int, str]:
    return select(User.id, User.email).where(User.id.in_(users))


def _owners(projects: set[int]) -> Select[int, str, str]:
    return select(Project.id, Project.name, User.email).join(Project.owner).where(Project.id.in_(projects))
