"""A request that waits for an actor: the message is its own, and a slow answer is told with the actor it comes from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import pyscope
from pyscope.events.actors import MESSAGE_SENT
from taskflow.actors.task_manager import TaskManager
from tests.diagnosis.conftest import Serve
from tests.diagnosis.service import Service

SLOW = 0.7


def slowed(service: Service, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The TaskManager takes its time for each new task."""
    manager = service.application.actors.task_manager()
    assert isinstance(manager, TaskManager)
    create_task = manager.create_task

    def create_slowly(*arguments: Any) -> Any:
        time.sleep(seconds)
        return create_task(*arguments)

    monkeypatch.setattr(manager, "create_task", create_slowly)


def test_a_request_that_waits_for_an_actor_says_so(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service = serve()
    slowed(service, monkeypatch, SLOW)
    with pyscope.record(tmp_path / "run.pyscope", probes=["auto"]):
        service.create_task()
    trace = pyscope.load(tmp_path / "run.pyscope")
    [sent] = [row for row in trace.probe_events(MESSAGE_SENT).records() if row.name == "create_task"]
    request = trace.scopes.get(sent.scope)
    assert request is not None
    assert request.name == "POST /tasks"
    [message] = [row for row in trace.scopes if row.name == "TaskManager.create_task"]
    assert message.parent == request.id
    slow = [finding for finding in pyscope.diagnose(trace) if finding.kind == "slow_call"]
    assert any("it waited for TaskManager's answer to create_task" in finding.why for finding in slow)
    assert any(finding.change.startswith("Shorten what TaskManager does for create_task") for finding in slow)


def test_a_request_that_an_actor_answers_at_once_is_not_slow(serve: Serve, tmp_path: Path) -> None:
    service = serve()
    with pyscope.record(tmp_path / "run.pyscope", probes=["auto"]):
        service.create_task()
    assert [
        f for f in pyscope.diagnose(pyscope.load(tmp_path / "run.pyscope")) if f.kind == "slow_call"
    ] == []
