"""Resources while the annual report is made: memory and CPU of its process, mailboxes, and what is left afterwards."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import psutil
import pytest

from pyscope import runtime
from pyscope.errors import ConfigError
from pyscope.findings import ProcessResources, ResourceMetrics
from taskflow.actors.project_worker import ProjectWorker
from tests.diagnosis.conftest import Serve
from tests.diagnosis.service import PATIENCE, Service, wait_until

YEAR = 2025
WORKER = "taskflow.services.report_worker"
TASKS = 1_000
MB = 1024 * 1024


@dataclass(frozen=True)
class Reported:
    """A finished report, the process that made it, and what PyScope saw meanwhile."""

    view: dict[str, Any]
    pid: int
    metrics: ResourceMetrics

    @property
    def process(self) -> ProcessResources:
        return self.metrics.by_process[self.pid]


def report_process() -> int | None:
    """The id of the process that makes a report now."""
    for process in psutil.Process().children():
        try:
            if WORKER in process.cmdline():
                return process.pid
        except psutil.Error:  # it has ended meanwhile
            continue
    return None


def running_report_process(besides: int | None = None) -> int:
    found: list[int] = []

    def there() -> bool:
        pid = report_process()
        if pid is not None and pid != besides:
            found.append(pid)
        return bool(found)

    wait_until(there)
    return found[0]


def finished(service: Service, report: int) -> dict[str, Any]:
    view: dict[str, Any] = {}

    def over() -> bool:
        time.sleep(0.05)  # asking without a pause takes the processor from the report
        view.update(service.get(f"/reports/{report}"))
        return view["status"] in ("finished", "failed")

    wait_until(over)
    assert view["status"] == "finished", view
    return view


def make_report(service: Service) -> Reported:
    runtime.start_resource_monitoring(
        metrics=["memory", "cpu"], interval=0.02
    )  # a report may take half a second
    report = service.post("/reports", {"year": YEAR})["id"]
    pid = running_report_process()
    view = finished(service, report)
    metrics = runtime.get_resource_metrics()
    runtime.stop_resource_monitoring()
    return Reported(view, pid, metrics)


def fill_with_text(service: Service, length: int = 45_000) -> None:
    """Gives each task of the year a long description, so that holding all of them shows."""
    database = service.application.settings.database_url.removeprefix("sqlite:///")
    with sqlite3.connect(database) as connection:
        connection.execute(
            "UPDATE tasks SET description = printf('%.*c', ?, 'x') || id WHERE created_at LIKE ?",
            (length, f"{YEAR}%"),
        )
    connection.close()


@pytest.fixture(scope="module")
def reported(service: Service) -> Reported:
    """The report of a service without faults."""
    runtime.reset()
    return make_report(service)


def test_the_reports_process_is_told_of_by_its_id_with_an_exact_peak(reported: Reported) -> None:
    mine = reported.process
    assert mine.pid == reported.pid
    assert "python" in mine.name
    assert mine.peak_is_exact
    assert mine.peak_memory >= max(sample.value for sample in mine.memory_samples) > 0
    # What the process says of itself is read from the kernel too, just before its end.
    assert 0.5 * reported.view["peak_memory"] < mine.peak_memory <= 1.1 * reported.view["peak_memory"]


def test_the_peak_of_all_is_that_of_the_process_that_had_most(reported: Reported) -> None:
    metrics = reported.metrics
    assert set(metrics.by_process) >= {os.getpid(), reported.pid}
    assert metrics.peak_memory == max(process.peak_memory for process in metrics.by_process.values()) > 0
    together = max(sample.value for sample in metrics.memory_samples)
    assert together > max(sample.value for sample in metrics.by_process[os.getpid()].memory_samples)


def test_there_are_more_than_ten_samples_of_cpu_in_order_of_time(reported: Reported) -> None:
    assert len(reported.metrics.cpu_usage_samples) > 10
    mine = reported.process.cpu_usage_samples
    times = [sample.time_ns for sample in mine]
    assert len(mine) > 10
    assert times == sorted(times)
    assert all(sample.value >= 0 for sample in mine)
    assert max(sample.value for sample in mine) > 5


def test_the_samples_of_the_process_account_for_its_cpu_time(reported: Reported) -> None:
    mine = reported.process.cpu_usage_samples
    seconds = sum(
        later.value / 100 * (later.time_ns - earlier.time_ns) / 1e9 for earlier, later in pairwise(mine)
    )
    # Its first half second may pass before it is found, its last moments after the last sample.
    assert 0.2 * reported.view["cpu_seconds"] < seconds < 1.5 * reported.view["cpu_seconds"]


def test_the_process_has_ended_and_nothing_more_is_sampled(
    service: Service, reported: Reported, pyscope_runtime: Any
) -> None:
    wait_until(lambda: report_process() is None)
    assert not psutil.pid_exists(reported.pid)
    pyscope_runtime.start_resource_monitoring(metrics=["memory"])
    sampled = set(pyscope_runtime.get_resource_metrics().by_process)
    assert os.getpid() in sampled
    assert reported.pid not in sampled
    pyscope_runtime.stop_resource_monitoring()
    after = pyscope_runtime.get_resource_metrics()
    assert after.memory_samples
    assert pyscope_runtime.get_resource_metrics() == after
    assert service.client.get("/readyz").status_code == 200


def test_a_report_that_holds_every_task_needs_far_more_memory_than_one_that_streams(
    serve: Serve, pyscope_runtime: Any
) -> None:
    peaks = {}
    for faults in ("memory_hungry_report", "none"):
        service = serve(faults=faults, tasks=TASKS)
        fill_with_text(service)
        peaks[faults] = make_report(service).process.peak_memory
    print({faults: f"{peak / MB:.0f} MB" for faults, peak in peaks.items()})
    assert peaks["memory_hungry_report"] > peaks["none"] + 40 * MB


def test_a_process_that_was_killed_and_its_successor_are_both_told_of(
    service: Service, pyscope_runtime: Any
) -> None:
    pyscope_runtime.start_resource_monitoring(metrics=["memory", "cpu"])
    report = service.post("/reports", {"year": YEAR})["id"]
    first = running_report_process()
    wait_until(lambda: first in pyscope_runtime.get_resource_metrics().by_process)
    os.kill(first, signal.SIGKILL)
    second = running_report_process(besides=first)
    assert finished(service, report)["restarts"] == 1
    by_process = pyscope_runtime.get_resource_metrics().by_process
    assert {first, second} <= set(by_process)
    last = by_process[first].memory_samples[-1].time_ns
    assert last <= by_process[second].memory_samples[-1].time_ns
    assert all(by_process[pid].peak_memory > 0 for pid in (first, second))


@pytest.mark.parametrize(
    ("metrics", "empty"),
    [
        (["memory"], {"cpu_usage_samples", "message_queue_length_samples"}),
        (["cpu"], {"memory_samples", "message_queue_length_samples"}),
        (["message_queue_length"], {"memory_samples", "cpu_usage_samples"}),
    ],
)
def test_only_what_was_asked_for_is_told(
    service: Service, pyscope_runtime: Any, metrics: list[str], empty: set[str]
) -> None:
    pyscope_runtime.start_resource_monitoring([service.application.actors.task_manager()], metrics=metrics)
    service.create_task()
    found = pyscope_runtime.get_resource_metrics()
    series = {"memory_samples", "cpu_usage_samples", "message_queue_length_samples"}
    assert {name for name in series if not getattr(found, name)} == empty
    assert (found.peak_memory > 0) == ("memory" in metrics)


def test_senseless_wishes_are_refused_and_begin_nothing(service: Service, pyscope_runtime: Any) -> None:
    with pytest.raises(ConfigError, match="'message_queue_length'"):
        pyscope_runtime.start_resource_monitoring(metrics=["disk"])
    for interval in (0, -1.0, float("nan"), 3601.0):
        with pytest.raises(ConfigError, match="interval"):
            pyscope_runtime.start_resource_monitoring(interval=interval)
    with pytest.raises(ProcessLookupError):
        pyscope_runtime.start_resource_monitoring([2**30])
    assert pyscope_runtime.get_resource_metrics().by_process == {}
    assert service.client.get("/readyz").status_code == 200


# Mailboxes


@contextmanager
def held(worker: ProjectWorker) -> Iterator[None]:
    """The worker begins with its next message and does not finish it before the block ends."""
    going_on = threading.Event()
    refresh = worker.refresh

    def when_allowed() -> None:
        assert going_on.wait(PATIENCE)
        refresh()

    worker.refresh = when_allowed  # type: ignore[method-assign]
    try:
        yield
    finally:
        going_on.set()
        del worker.refresh


def longest_mailboxes(service: Service, pyscope_runtime: Any) -> dict[str, float]:
    """The longest that each actor's mailbox was while a task was completed and the worker had no time for it."""
    service.get("/projects/1/statistics")
    actors = service.application.actors
    projects = actors.project_supervisor()
    assert projects is not None
    worker = projects.running_worker(1)
    assert worker is not None
    pyscope_runtime.start_resource_monitoring(
        [worker, actors.task_manager()], metrics=["message_queue_length"]
    )
    with held(worker):
        service.complete_task()
        found = pyscope_runtime.get_resource_metrics()
    wait_until(lambda: worker.message_queue_length == 0)
    emptied = pyscope_runtime.get_resource_metrics()
    assert emptied.by_process["ProjectWorker"].message_queue_length_samples[-1].value == 0
    assert max(s.value for s in found.message_queue_length_samples) == max(
        s.value for mailbox in found.by_process.values() for s in mailbox.message_queue_length_samples
    )
    return {
        str(name): max(sample.value for sample in mailbox.message_queue_length_samples)
        for name, mailbox in found.by_process.items()
        if mailbox.message_queue_length_samples
    }


def test_a_flooded_mailbox_holds_a_message_for_each_task_and_the_fixed_one_a_handful(
    serve: Serve, pyscope_runtime: Any
) -> None:
    flooded = longest_mailboxes(serve(faults="mailbox_flood", projects=1, tasks=200), pyscope_runtime)
    assert set(flooded) == {"ProjectWorker", "TaskManager"}
    assert flooded["ProjectWorker"] >= 200
    assert flooded["TaskManager"] < 10
    fixed = longest_mailboxes(serve(projects=1, tasks=200), pyscope_runtime)
    assert fixed["ProjectWorker"] < 10


def test_a_mailbox_with_a_bound_never_holds_more(serve: Serve, pyscope_runtime: Any) -> None:
    service = serve(faults="mailbox_flood", projects=1, tasks=200, worker_queue=10)
    assert longest_mailboxes(service, pyscope_runtime)["ProjectWorker"] == 10
