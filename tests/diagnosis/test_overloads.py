"""What took very much of a resource: the flooded mailbox and the memory-hungry report are findings, their twins not."""

from __future__ import annotations

from pathlib import Path

import pyscope
from pyscope.analysis import overload
from pyscope.findings import ResourceIssue
from tests.diagnosis.conftest import Serve
from tests.diagnosis.service import wait_until
from tests.diagnosis.test_resources_during_report import (
    YEAR,
    fill_with_text,
    finished,
    held,
    report_process,
)

FLOODED = 200
MB = 1 << 20


def completed_while_the_worker_is_busy(serve: Serve, folder: Path, faults: str) -> list[ResourceIssue]:
    service = serve(faults=faults, projects=1, tasks=FLOODED)
    with pyscope.record(folder / "run.pyscope", probes=["auto"]):
        service.get("/projects/1/statistics")
        projects = service.application.actors.project_supervisor()
        assert projects is not None
        worker = projects.running_worker(1)
        assert worker is not None
        with held(worker):
            service.complete_task()
        wait_until(lambda: worker.message_queue_length == 0)
    return overload.find(pyscope.load(folder / "run.pyscope"))


def test_a_flooded_mailbox_is_a_finding_at_the_place_that_floods_it(serve: Serve, tmp_path: Path) -> None:
    [found] = completed_while_the_worker_is_busy(serve, tmp_path, "mailbox_flood")
    assert (found.kind, found.subject) == ("mailbox_backlog", "ProjectWorker")
    assert found.amount >= FLOODED
    assert found.call_site.function == "ProjectSupervisor._flood"
    assert found.call_site.file.endswith("project_supervisor.py")
    assert found.senders >= FLOODED - 10
    assert found.waited_ns > 0


def test_a_mailbox_that_is_told_once_is_none(serve: Serve, tmp_path: Path) -> None:
    assert completed_while_the_worker_is_busy(serve, tmp_path, "none") == []


def reported(serve: Serve, folder: Path, faults: str) -> list[ResourceIssue]:
    service = serve(faults=faults, tasks=4_000)
    fill_with_text(service, 12_000)  # a thousand at a time are little, all of them and copies much
    with pyscope.record(folder / "run.pyscope", probes=["auto"]):
        report = service.post("/reports", {"year": YEAR})["id"]
        finished(service, report)
        wait_until(lambda: report_process() is None)
    return overload.find(pyscope.load(folder / "run.pyscope"))


def test_a_report_that_holds_every_task_is_a_finding_in_the_process_that_makes_it(
    serve: Serve, tmp_path: Path
) -> None:
    [found] = reported(serve, tmp_path, "memory_hungry_report")
    assert found.kind == "memory_growth"
    assert found.amount > 100 * MB
    assert found.call_site.file.endswith("report_worker.py")
    # Before Python 3.12 a list comprehension is a function of its own.
    assert found.call_site.function.removesuffix(".<locals>.<listcomp>") in ("_tasks_at_once", "_copy")
    assert "so much each" in found.explanation


def test_a_report_that_streams_is_none(serve: Serve, tmp_path: Path) -> None:
    assert reported(serve, tmp_path, "none") == []
