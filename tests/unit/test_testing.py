"""The pytest plugin: its fixture leaves nothing behind, its assertions say what was there instead."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import pyscope
from pyscope.findings import ExternalCall, PerformanceIssue, StateChange, SupervisorEvent
from pyscope.rows import Location
from pyscope.testing import (
    assert_event_captured,
    assert_function_traced,
    assert_issue_detected,
    assert_retry_attempts,
    assert_state_transition,
    assert_timeout_captured,
)

HERE = Location(__file__, 1, "test")
CHANGE = StateChange(
    "Task", "status", "open", "assigned", "task_assigned", "assign", 1, "main", "7", 1, "write", True, (), 0
)
ISSUE = PerformanceIssue(
    "n_plus_one_query", 60, "SELECT", "SELECT", "Task.owner", HERE, "selectinload", 9.0, 0
)
EVENT = SupervisorEvent("child_restarted", "projects", "worker-7", "RuntimeError", 1, 1, 0, ())
CALL = ExternalCall(
    "smtp", "MAIL", "127.0.0.1:25", (), True, 3, "timed_out", 1, 1, "aiosmtplib", "stamina", HERE, ()
)


ANSWERED = dataclasses.replace(CALL, timed_out=False, retries=0, outcome="succeeded")


def test_each_assertion_returns_what_it_found() -> None:
    assert assert_state_transition([CHANGE], "task_assigned", process="Task", old="open") is CHANGE
    assert assert_issue_detected([ISSUE], "n_plus_one_query", minimum_queries=50) is ISSUE
    assert assert_event_captured([EVENT], "child_restarted", child="worker-*", restart_count=1) is EVENT
    assert assert_timeout_captured([CALL], "smtp", peer="127.0.0.1:25") is CALL
    assert assert_retry_attempts([CALL], "smtp", 3) is CALL


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: assert_state_transition([CHANGE], "task_completed"), "1 × Task.status: task_assigned"),
        (lambda: assert_state_transition([CHANGE], "task_assigned", process="Job"), "with process='Job'"),
        (lambda: assert_state_transition([CHANGE], "task_assigned", new="done"), ", new='assigned'"),
        (lambda: assert_state_transition([CHANGE], "task_assigned", new=None), "with new=None"),
        (lambda: assert_timeout_captured([CALL], "smtp", client="smtplib"), "client='aiosmtplib'"),
        (lambda: assert_issue_detected([ISSUE], "n_plus_one_query", minimum_queries=61), "60 queries"),
        (
            lambda: assert_event_captured([EVENT], "child_restarted", child="other"),
            "projects/worker-7: RuntimeError",
        ),
        (lambda: assert_timeout_captured([CALL], "http"), "smtp MAIL 127.0.0.1:25: timed_out, 3 retries"),
        (lambda: assert_timeout_captured([ANSWERED], "smtp"), "no call to smtp timed out"),
        (lambda: assert_retry_attempts([CALL], "smtp", 2), "had 2 retries"),
        (lambda: assert_retry_attempts([CALL], "http", 3), "no call to http had 3 retries"),
        (lambda: assert_issue_detected([ISSUE], "repeated_query"), "n_plus_one_query"),
        (lambda: assert_event_captured([EVENT], "child_started"), "child_restarted projects/worker-7"),
        (lambda: assert_function_traced([], "shop", "insert", 1), "no calls were captured at all"),
    ],
)
def test_a_failed_assertion_says_what_was_there(check: object, message: str) -> None:
    with pytest.raises(AssertionError) as failed:
        check()  # type: ignore[operator]
    assert message in str(failed.value)


def test_a_field_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(
        TypeError, match="StateChange has no field 'value'; it has process, attribute, old, new"
    ):
        assert_state_transition([CHANGE], "task_completed", value="assigned")
    with pytest.raises(TypeError, match="ExternalCall has no field 'retry'"):
        assert_timeout_captured([CALL], "smtp", retry=3)


def test_a_run_of_pytest_is_recorded_also_where_warnings_are_errors(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text("def test_one():\n    assert True\n")
    command = [
        sys.executable,
        "-m",
        "pyscope",
        "run",
        "--modules",
        "test_shop",
        "-o",
        "run.pyscope",
        "-m",
        "pytest",
    ]
    done = subprocess.run(
        [*command, "-q", "-W", "error", "-p", "no:cacheprovider", "test_shop.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(pyscope.load(tmp_path / "run.pyscope").find(function="test_one")) == 1


def test_the_fixture_traces_and_undoes_everything(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("class Repo:\n    def insert(self, row):\n        return row\n")
    (tmp_path / "test_shop.py").write_text(
        "import shop\n"
        "from pyscope import recorder\n"
        "from pyscope.testing import assert_function_traced\n"
        "def test_one(pyscope_runtime):\n"
        "    pyscope_runtime.start_tracing(modules=['shop'])\n"
        "    shop.Repo().insert(1)\n"
        "    call = assert_function_traced(pyscope_runtime.get_traces(), 'shop', 'Repo.insert', 1)\n"
        "    assert call.outcome == 'returned'\n"
        "def test_two(pyscope_runtime):\n"
        "    assert recorder.active() is None\n"
        "    assert pyscope_runtime.get_traces() == []\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
