"""The numbers of an annual report, gathered task by task in memory that does not grow with their text."""

import re
from array import array
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final, Protocol

import numpy

from taskflow.data.models import Priority, TaskStatus

MONTHS: Final = 12
LEADERS: Final = 10
WORDS: Final = 25
SECONDS_PER_DAY: Final = 86_400
_WORD: Final = re.compile(r"[^\W\d_]{4,}")


class ReportedTask(Protocol):
    """What a report looks at: a row of the stream, or a Task."""

    @property
    def project_id(self) -> int: ...
    @property
    def assignee_id(self) -> int | None: ...
    @property
    def title(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def status(self) -> TaskStatus: ...
    @property
    def priority(self) -> Priority: ...
    @property
    def due_date(self) -> date | None: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def completed_at(self) -> datetime | None: ...


class YearStatistics:
    """Fed with `add` for each task of the year, in any order; `figures` is what came together.

    A cycle time is the days from a task's creation to its completion. A task is late when it was completed
    after its due date, or is unfinished and its due date lies before `today`.
    """

    def __init__(self, year: int, today: date) -> None:
        self.year = year
        self.tasks = 0
        self._today = today
        self._created = [0] * MONTHS
        self._completed = [0] * MONTHS
        self._late = [0] * MONTHS
        self._cycle_days = [array("d") for _ in range(MONTHS)]
        self._by_status: Counter[str] = Counter()
        self._by_priority: Counter[str] = Counter()
        self._by_project: Counter[int] = Counter()
        self._by_assignee: Counter[int] = Counter()
        self._words: Counter[str] = Counter()
        self._word_count = 0

    def add(self, task: ReportedTask) -> None:
        """Take one task into account."""
        self.tasks += 1
        month = task.created_at.month - 1
        self._created[month] += 1
        self._by_status[task.status.value] += 1
        self._by_priority[task.priority.value] += 1
        self._by_project[task.project_id] += 1
        if task.completed_at is not None:
            self._completed[month] += 1
            self._cycle_days[month].append(
                (task.completed_at - task.created_at).total_seconds() / SECONDS_PER_DAY
            )
            if task.assignee_id is not None:
                self._by_assignee[task.assignee_id] += 1
        if task.due_date is not None:
            ended = task.completed_at.date() if task.completed_at else self._today
            self._late[month] += ended > task.due_date
        words = _WORD.findall(f"{task.title} {task.description}".lower())
        self._word_count += len(words)
        self._words.update(words)

    @property
    def leading_projects(self) -> list[int]:
        """The ids of the projects with the most tasks."""
        return [project for project, _ in _leaders(self._by_project)]

    @property
    def leading_assignees(self) -> list[int]:
        """The ids of those who completed the most tasks."""
        return [assignee for assignee, _ in _leaders(self._by_assignee)]

    def figures(self, projects: Mapping[int, str], people: Mapping[int, str]) -> dict[str, Any]:
        """Everything, ready for JSON; `projects` and `people` are the names of the leading ones."""
        everything = array("d")
        for month in self._cycle_days:
            everything.extend(month)
        return {
            "year": self.year,
            "tasks": self.tasks,
            "by_status": {status.value: self._by_status[status.value] for status in TaskStatus},
            "by_priority": {priority.value: self._by_priority[priority.value] for priority in Priority},
            "cycle_days": _percentiles(everything),
            "months": [
                {
                    "month": f"{self.year}-{month + 1:02}",
                    "created": self._created[month],
                    "completed": self._completed[month],
                    "late": self._late[month],
                    "cycle_days": _percentiles(self._cycle_days[month]),
                }
                for month in range(MONTHS)
            ],
            "projects": [
                {"name": projects.get(project, f"project {project}"), "tasks": tasks}
                for project, tasks in _leaders(self._by_project)
            ],
            "people": [
                {"name": people.get(person, f"user {person}"), "completed": tasks}
                for person, tasks in _leaders(self._by_assignee)
            ],
            "words": self._word_count,
            "frequent_words": [
                {"word": word, "times": times}
                for word, times in sorted(self._words.items(), key=lambda item: (-item[1], item[0]))[:WORDS]
            ],
        }


def _leaders(counts: Counter[int]) -> list[tuple[int, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:LEADERS]


def _percentiles(days: "array[float]") -> dict[str, float | None]:
    """Median, 90th and 99th percentile, None where there is nothing to take them of."""
    if not days:
        return {"p50": None, "p90": None, "p99": None}
    p50, p90, p99 = numpy.percentile(numpy.frombuffer(days), [50, 90, 99])
    return {"p50": round(float(p50), 2), "p90": round(float(p90), 2), "p99": round(float(p99), 2)}
