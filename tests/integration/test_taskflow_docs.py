"""docs/taskflow.md: its table is that of `taskflow.faults`, its other table that of the scenarios, its commands run."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from taskflow.faults import FAULTS
from taskflow.load import SCENARIOS
from tests.integration.servers import Valkey

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "taskflow.md").read_text(encoding="utf-8")
SAMPLES = re.findall(r"```sh\n(.*?)```", TEXT, re.S)
READY_SECONDS = 60
COMMAND_SECONDS = 240


def rows_below(header: str) -> list[list[str]]:
    """The cells of the table that begins with `header`."""
    _, _, *rows = TEXT[TEXT.index(header) :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_the_table_of_faults_says_what_the_code_says() -> None:
    documented = rows_below("| fault |")
    assert documented == [
        [
            f"`{fault.name}`{' (on by default)' if fault.on_by_default else ''}",
            fault.does,
            fault.twin,
            fault.finding,
        ]
        for fault in FAULTS.values()
    ]


def test_the_table_of_scenarios_says_what_the_code_says() -> None:
    documented = {name.strip("`"): int(clients) for name, clients, _ in rows_below("| scenario |")}
    assert documented == SCENARIOS


class Terminal:
    """Runs the commands of a sample as someone in a new folder would, with `python` being this one.

    `serve` goes to the background until the terminal is closed, on a port that is free here.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        self._background = ExitStack()

    def type(self, line: str) -> str:
        """Run one line; returns what it printed."""
        line = line.replace("8000", str(self.port))
        environment = self._environment.copy()
        words = shlex.split(line)
        while "=" in words[0] or words[0] == "export":
            if words[0] != "export":
                name, _, value = words[0].partition("=")
                environment[name] = self._environment.get(f"TEST_{name}", value)
            if line.startswith("export"):
                self._environment = environment
            words = words[1:]
            if not words:
                return ""
        assert words[:3] == ["python", "-m", "taskflow"], line
        command = [sys.executable, *words[1:]]
        if words[3] == "serve":
            self._background.enter_context(self._serving(command, environment))
            return ""
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}{done.stdout}"
        return done.stdout

    def close(self) -> None:
        """Ctrl-C for whatever runs in the background."""
        self._background.close()

    @contextmanager
    def _serving(self, command: list[str], environment: dict[str, str]) -> Iterator[None]:
        server = subprocess.Popen(command, cwd=self.folder, env=environment, start_new_session=True)
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not self._answers():
                assert server.poll() is None, "the server ended early"
                assert time.monotonic() < deadline, "the server is not ready"
                time.sleep(0.05)
            yield
            server.send_signal(signal.SIGINT)
            assert server.wait(READY_SECONDS) == 0
        finally:
            server.kill()
            server.wait()

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/readyz", trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False


@contextmanager
def terminal(folder: Path, **environment: str) -> Iterator[Terminal]:
    opened = Terminal(folder, environment)
    try:
        yield opened
    finally:
        opened.close()


def test_there_are_the_samples_that_the_tests_below_run() -> None:
    assert len(SAMPLES) == 4
    assert "make demo" in TEXT  # run by test_taskflow_demo.py


def test_the_samples_for_a_first_look_run_one_after_the_other(tmp_path: Path) -> None:
    with terminal(tmp_path) as user:
        output = "".join(user.type(line) for sample in SAMPLES[:2] for line in sample.splitlines())
        for page in ("/docs", "/projects/1/board"):
            answer = httpx2.get(f"http://127.0.0.1:{user.port}{page}", trust_env=False)
            assert answer.status_code == 200
    assert "seeded 40 users, 50 projects, 5000 tasks" in output
    assert "every invariant holds" in output
    for scenario in ("steady", "rush", "chaos"):
        assert f"0 errors (scenario {scenario}" in output
    assert '"scenario": "reports"' in output


@pytest.fixture
def real_servers(postgres_url: str, valkey: Valkey) -> dict[str, str]:
    """What the sample's addresses stand for here."""
    return {"TEST_DATABASE_URL": postgres_url, "TEST_REDIS_URL": valkey.url}


def test_the_sample_with_real_servers_runs(tmp_path: Path, real_servers: dict[str, str]) -> None:
    with terminal(tmp_path, **real_servers) as user:
        output = "".join(user.type(line) for line in SAMPLES[2].splitlines())
        ready = httpx2.get(f"http://127.0.0.1:{user.port}/readyz", trust_env=False).json()
    assert "seeded 40 users, 50 projects, 5000 tasks" in output
    assert (ready["parts"]["database"], ready["parts"]["cache"]) == ("ok", "ok")
    assert not (tmp_path / "taskflow.db").exists()


def test_the_sample_with_faults_and_a_recording_runs(tmp_path: Path) -> None:
    with terminal(tmp_path) as user:
        for line in SAMPLES[3].splitlines():
            user.type(line)
    assert (tmp_path / "run.pyscope").exists()
