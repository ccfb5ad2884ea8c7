"""Probes of libraries in older versions that services still have: installed from the index and really used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).resolve().parents[2]

ASK_BY_POSITION = """
import pykka
from pyscope import runtime

class Double(pykka.ThreadingActor):
    def on_receive(self, message):
        return message * 2

runtime.monitor_concurrency()
actor = Double.start()
runtime.monitor_process(actor)
print(actor.ask(1, True, 5), actor.ask(2, False).get(timeout=5), actor.ask(3, timeout=5))
actor.stop()
runtime.stop_all()
"""


def installed(folder: Path, *packages: str) -> dict[str, str]:
    """The environment of a process that imports these versions."""
    place = folder / "site-packages"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place, *packages], check=True
    )
    return {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{ROOT}"}


@pytest.mark.parametrize(
    ("packages", "tests"),
    [
        (["tenacity==8.2.3"], "tests/external/test_retries.py"),
        (["pykka==4.0.2"], "tests/unit/test_actors_probe.py"),
    ],
    ids=["tenacity", "pykka"],
)
def test_the_probe_s_tests_pass_with_an_older_version(
    tmp_path: Path, packages: list[str], tests: str
) -> None:
    environment = installed(tmp_path, *packages)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout


def test_pykka_3_is_asked_by_position_as_it_allows(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK_BY_POSITION],
        env=installed(tmp_path, "pykka==3.1.1"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("2 4 6\n", 0), done.stderr


STACKS_OF_GREENLETS = """
import sys, greenlet, pyscope

def leaf():
    greenlet.getcurrent().parent.switch()

def outer():
    greenlet.greenlet(leaf).switch()

with pyscope.record(sys.argv[1], probes=["sync"]):
    greenlet.greenlet(outer).switch()
trace = pyscope.load(sys.argv[1])
print(greenlet.__version__, sorted(function.qualname for function in trace.functions))
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="greenlet 1 is for Python up to 3.11")
def test_greenlet_1_tells_no_parents_in_its_c_api(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(STACKS_OF_GREENLETS)
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "run.pyscope")],
        env=installed(tmp_path, "greenlet==1.1.3"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("1.1.3 ['leaf', 'outer']\n", 0), done.stderr
