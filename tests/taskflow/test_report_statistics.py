"""The numbers of an annual report, against straightforward computations over the same tasks."""

import statistics
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from taskflow.data.models import Priority, TaskStatus
from taskflow.services.report_statistics import YearStatistics

TODAY = date(2025, 6, 1)
NEW_YEAR = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Example:
    created_at: datetime
    completed_at: datetime | None = None
    due_date: date | None = None
    project_id: int = 1
    assignee_id: int | None = 1
    title: str = ""
    description: str = ""
    status: TaskStatus = TaskStatus.OPEN
    priority: Priority = Priority.NORMAL


examples = st.builds(
    lambda minutes, cycle, due, project, assignee, title, priority: Example(
        NEW_YEAR + timedelta(minutes=minutes),
        None if cycle is None else NEW_YEAR + timedelta(minutes=minutes + cycle),
        None if due is None else (NEW_YEAR + timedelta(minutes=minutes)).date() + timedelta(days=due),
        project,
        assignee,
        title,
        status=TaskStatus.OPEN if cycle is None else TaskStatus.COMPLETED,
        priority=priority,
    ),
    st.integers(0, 365 * 24 * 60 - 1),
    st.none() | st.integers(0, 100_000),
    st.none() | st.integers(-5, 90),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from(["", "Fix the importer", "Ünïcode wörds, FIX them; a_b 12345"]),
    st.sampled_from(Priority),
)


def figures_of(tasks: list[Example]) -> dict:
    gathered = YearStatistics(2025, TODAY)
    for task in tasks:
        gathered.add(task)
    return gathered.figures({1: "One"}, {1: "Ada"})


@given(st.lists(examples, max_size=60))
def test_every_number_is_what_counting_by_hand_gives(tasks: list[Example]) -> None:
    figures = figures_of(tasks)
    assert figures["tasks"] == len(tasks)
    assert sum(figures["by_status"].values()) == sum(figures["by_priority"].values()) == len(tasks)
    for number, month in enumerate(figures["months"], 1):
        mine = [task for task in tasks if task.created_at.month == number]
        done = [task for task in mine if task.completed_at]
        late = [
            task
            for task in mine
            if task.due_date and (task.completed_at.date() if task.completed_at else TODAY) > task.due_date
        ]
        assert (month["created"], month["completed"], month["late"]) == (len(mine), len(done), len(late))
        days = [
            (task.completed_at - task.created_at) / timedelta(days=1) for task in done if task.completed_at
        ]
        assert month["cycle_days"]["p50"] == (round(statistics.median(days), 2) if days else None)
    projects = Counter(task.project_id for task in tasks)
    assert [project["tasks"] for project in figures["projects"]] == sorted(projects.values(), reverse=True)[
        :10
    ]


@given(st.lists(examples, max_size=30), st.randoms())
def test_the_order_of_the_tasks_does_not_matter(tasks: list[Example], chance: object) -> None:
    shuffled = list(tasks)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert figures_of(shuffled) == figures_of(tasks)


def test_words_are_counted_whatever_their_case_and_language() -> None:
    figures = figures_of(
        [
            Example(NEW_YEAR, title="Fix the IMPORTER", description="importer Straße; naïve_importer x1234"),
        ]
    )
    assert figures["words"] == 5
    assert figures["frequent_words"][0] == {"word": "importer", "times": 3}
    assert {word["word"] for word in figures["frequent_words"]} == {"importer", "straße", "naïve"}


def test_a_year_without_completed_tasks_has_no_percentiles() -> None:
    figures = figures_of([Example(NEW_YEAR)])
    assert figures["cycle_days"] == {"p50": None, "p90": None, "p99": None}
    assert figures["months"][0]["cycle_days"]["p99"] is None
