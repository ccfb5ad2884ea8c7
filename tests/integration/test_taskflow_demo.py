"""The demo: the whole way from a running service to a printed report, and out of it at any moment."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

DEMO = [sys.executable, "-m", "taskflow.demo"]


@pytest.fixture(autouse=True)
def _folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the demo leaves for its user is removed; not in `tmp_path`, too long for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield


def test_the_demo_records_a_real_service_and_prints_what_ran(tmp_path: Path) -> None:
    recording = tmp_path / "demo.pyscope"
    done = subprocess.run(
        [*DEMO, "--seconds", "2", "-o", str(recording)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    assert recording.exists()
    faults, audit, said = (done.stdout[done.stdout.index(step) :] for step in ("faults:", "4/5", "5/5"))
    assert "n_plus_one_dashboard" in faults.splitlines()[0]
    assert "scenario chaos" in done.stdout
    assert " 0 of them forged" in done.stdout
    assert "task" in audit.splitlines()[2] or "every invariant holds" in audit
    assert "Hottest functions" in said
    assert "N+1 queries: Task." in said
    assert "taskflow/web/dashboard.py" in said
    assert str(recording) in said


def test_an_unknown_fault_is_refused_with_what_is_known() -> None:
    done = subprocess.run([*DEMO, "--faults", "bad_luck"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "unknown fault bad_luck; known: none, assign_race" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("step", "seconds_into_it", "number"),
    [
        ("1/5", 0.0, signal.SIGINT),
        ("2/5", 0.0, signal.SIGINT),
        ("2/5", 0.3, signal.SIGTERM),
        ("3/5", 0.2, signal.SIGINT),
        ("3/5", 5.0, signal.SIGINT),
    ],
)
def test_the_demo_interrupted_at_any_step_leaves_no_process_behind(
    tmp_path: Path, step: str, seconds_into_it: float, number: int
) -> None:
    command = [*DEMO, "--seconds", "30", "-o", str(tmp_path / "demo.pyscope")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert any(line.startswith(step) for line in demo.stdout)
        time.sleep(seconds_into_it)
        family = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert "nothing is left running" in errors
    assert "Traceback" not in errors
    assert family or seconds_into_it == 0
    _, left = psutil.wait_procs(family, timeout=1)
    assert not left
