"""The interpreters to measure, each in an environment that has PyScope built and TaskFlow's libraries."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.worker import ROOT, quiet_environment

ENVIRONMENTS: Final = ROOT / "build" / "bench-venvs"
SUPPORTED: Final = ("3.11", "3.12", "3.13", "3.14")
PROBE: Final = (
    "import pyscope._codec, pyscope._hook, numpy, psutil, click, rich, fastapi, httpx2, uvicorn, aiosqlite"
)
DESCRIBE: Final = "import platform; print(platform.python_version(), platform.python_compiler(), sep='|')"


class InterpreterMissing(Exception):
    """An interpreter cannot be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that can import all that is measured."""

    path: str
    full_version: str
    compiler: str

    @property
    def version(self) -> str:
        """As 3.12."""
        return ".".join(self.full_version.split(".")[:2])

    @property
    def backends(self) -> list[str]:
        """The native backends that it has."""
        return ["frame", "setprofile"] if self.version == "3.11" else ["monitoring", "frame", "setprofile"]


def find(paths: Sequence[str]) -> list[Interpreter]:
    """The interpreters at `paths`, or every supported one of this machine. Raises InterpreterMissing."""
    found = list(paths) or _output(["sh", str(ROOT / ".ci" / "interpreters.sh"), "all"]).split()
    if not found:
        raise InterpreterMissing("no CPython from 3.11 on was found: name one with --interpreter PATH")
    return [_ready(path) for path in found]


def _ready(path: str) -> Interpreter:
    version = _output([path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    if version not in SUPPORTED:
        raise InterpreterMissing(f"{path} is {version or 'no Python'}; supported: {', '.join(SUPPORTED)}")
    made_here = ENVIRONMENTS / version / "bin" / "python"
    for candidate in (path, str(ROOT / ".venv" / version / "bin" / "python"), str(made_here)):
        if _works(candidate):
            return _described(candidate)
    environment = made_here.parents[1]
    environment.parent.mkdir(parents=True, exist_ok=True)
    print(f"making an environment for Python {version} …", flush=True)
    if not made_here.exists():
        _checked(["sh", str(ROOT / ".ci" / "environment.sh"), path, str(environment)])
    _checked([str(made_here), "setup.py", "-q", "build_ext", "--inplace"])
    if not _works(str(made_here)):
        raise InterpreterMissing(f"Python {version} cannot import PyScope and TaskFlow: {PROBE}")
    return _described(str(made_here))


def _described(path: str) -> Interpreter:
    full_version, _, compiler = _output([path, "-c", DESCRIBE]).strip().partition("|")
    return Interpreter(path, full_version, compiler)


def _works(path: str) -> bool:
    return Path(path).exists() and _run([path, "-c", PROBE]).returncode == 0


def _output(command: Sequence[str]) -> str:
    try:
        return _run(command).stdout
    except OSError as error:
        raise InterpreterMissing(f"{command[0]} cannot be run: {error.strerror}") from error


def _checked(command: Sequence[str]) -> None:
    done = _run(command)
    if done.returncode:
        raise InterpreterMissing(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=quiet_environment(),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
