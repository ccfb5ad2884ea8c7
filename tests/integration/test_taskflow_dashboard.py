"""The dashboard's N+1 queries, on purpose, and the fixed twin: both counted at the driver."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import event

from taskflow.faults import FAULTS, parse_faults
from taskflow.web.app import create_app
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

SHOWN = 30
SHOWN_TABLES = ("projects", "tasks", "users", "task_watchers")
FIXED_STATEMENTS = 6  # project, numbers by status, overdue, tasks, assignees, watchers


async def dashboard_with_statements(
    directory: Path, query: str = "", faults: str = "none"
) -> tuple[dict[str, Any], list[str]]:
    """The dashboard of project 1 and the SELECTs it took."""
    app = create_app(taskflow_settings(directory, faults=faults))
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        # Other parts of TaskFlow look into tables of their own meanwhile.
        if statement.startswith("SELECT") and any(f"FROM {table}" in statement for table in SHOWN_TABLES):
            statements.append(statement)

    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://taskflow") as client,
    ):
        event.listen(app.state.taskflow.database.engine.sync_engine, "before_cursor_execute", note)
        answer = await client.get(f"/projects/1/dashboard?limit={SHOWN}{query}")
    assert answer.status_code == 200, answer.text
    return answer.json(), statements


@pytest.fixture
def seeded(tmp_path: Path) -> Path:
    seed_taskflow(taskflow_settings(tmp_path))
    return tmp_path


@pytest.mark.parametrize("variant", ["lazy", "awaited"])
def test_a_faulty_dashboard_asks_for_the_people_of_each_task_by_itself(seeded: Path, variant: str) -> None:
    page, statements = asyncio.run(dashboard_with_statements(seeded, f"&variant={variant}"))
    # The identity map remembers: an assignee met before, as one or as a watcher, costs nothing more.
    met: set[str | None] = {None}
    strangers = 0
    for line in page["latest"]:
        strangers += line["assignee"] not in met
        met |= {line["assignee"], *line["watchers"]}
    assert len(page["latest"]) == SHOWN
    assert strangers > 5
    assert sum("task_watchers" in statement for statement in statements) == SHOWN
    assert len(statements) == 4 + SHOWN + strangers


def test_the_fixed_dashboard_takes_as_many_statements_whatever_it_shows(seeded: Path) -> None:
    _, statements = asyncio.run(dashboard_with_statements(seeded, "&variant=fixed"))
    assert len(statements) == FIXED_STATEMENTS


def test_every_variant_of_the_dashboard_shows_the_same(seeded: Path) -> None:
    pages = [
        asyncio.run(dashboard_with_statements(seeded, f"&variant={variant}"))[0]
        for variant in ("lazy", "awaited", "fixed")
    ]
    assert pages[0] == pages[1] == pages[2]
    assert any(line["watchers"] for line in pages[0]["latest"])


def test_the_faults_setting_chooses_the_variant(seeded: Path) -> None:
    _, fixed = asyncio.run(dashboard_with_statements(seeded, faults="none"))
    assert len(fixed) == FIXED_STATEMENTS
    for fault in ("n_plus_one_dashboard", "n_plus_one_dashboard_awaited"):
        _, faulty = asyncio.run(dashboard_with_statements(seeded, faults=fault))
        assert len(faulty) > SHOWN


def test_an_unknown_fault_is_refused_by_name() -> None:
    assert parse_faults(" n_plus_one_dashboard ,") == {"n_plus_one_dashboard"}
    assert all(fault.twin and fault.finding for fault in FAULTS.values())
    with pytest.raises(ValueError, match=r"unknown fault bad_luck; known: none, .*n_plus_one_dashboard,"):
        parse_faults("bad_luck")
