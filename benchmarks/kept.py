"""What was measured, kept in build/bench: one JSON file a group and interpreter, written as it is finished."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import psutil

from benchmarks.curve import Curve
from benchmarks.figure import Figure
from benchmarks.interpreters import Interpreter
from benchmarks.worker import ROOT

FOLDER: Final = ROOT / "build" / "bench"
LIBRARIES: Final = (
    "fastapi", "sqlalchemy", "uvicorn", "viztracer", "yappi", "pyinstrument",
    "opentelemetry-instrumentation-fastapi",
)  # fmt: skip
# What the figures depend on: a change elsewhere leaves them as they are.
MEASURED: Final = ("native", "pyscope", "taskflow", "benchmarks")
QUIET: Final = 0.1  # of the machine's cores, used by others
LOOKING_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Where, when and from what a group was measured.

    `others`: the fraction of the machine that was in use before and after it, when nothing was measured.
    `load`: its load average then, to which what is measured adds as well.
    """

    commit: str
    date: str
    machine: str
    interpreter: dict[str, str]
    libraries: dict[str, str]
    factor: float  # 1: all the time that the plan gives
    load: tuple[float, float]
    others: tuple[float, float]
    seconds: float

    @property
    def quiet(self) -> bool:
        """Whether the machine had little else to do."""
        return max(self.others) <= QUIET


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished group on one interpreter."""

    group: str
    python: str
    circumstances: Circumstances
    figures: tuple[Figure, ...]
    curves: tuple[Curve, ...]

    @classmethod
    def of_json(cls, text: str) -> Self:
        """What `to_json` wrote. ValueError, KeyError or TypeError if it is something else."""
        values = json.loads(text)
        circumstances = values["circumstances"]
        return cls(
            values["group"],
            values["python"],
            Circumstances(
                **{
                    **circumstances,
                    "load": tuple(circumstances["load"]),
                    "others": tuple(circumstances["others"]),
                }
            ),
            tuple(map(Figure.of_dict, values["figures"])),
            tuple(map(Curve.of_dict, values["curves"])),
        )

    def to_json(self) -> str:
        """This as text."""
        values: dict[str, Any] = {
            "group": self.group,
            "python": self.python,
            "circumstances": asdict(self.circumstances),
            "figures": [figure.as_dict() for figure in self.figures],
            "curves": [curve.as_dict() for curve in self.curves],
        }
        return json.dumps(values, indent=1)


class Store:
    """The folder of kept groups."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, group: str, python: str) -> Kept | None:
        """What is kept of a group on an interpreter (as 3.12); None where nothing readable is."""
        try:
            return Kept.of_json(self._path(group, python).read_text())
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, kept: Kept) -> None:
        """Write it; a reader sees the old file or the new one, whole."""
        path = self._path(kept.group, kept.python)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.write_text(kept.to_json())
        draft.replace(path)

    def all(self, order: Sequence[tuple[str, str]]) -> Iterator[Kept]:
        """Everything kept of these groups on these interpreters, in that order."""
        for group, python in order:
            kept = self.find(group, python)
            if kept is not None:
                yield kept

    def _path(self, group: str, python: str) -> Path:
        return self._folder / f"{group}-{python}.json"


@dataclass(frozen=True, slots=True)
class Business:
    """How busy the machine is: its load average, and the fraction of its cores that others use now."""

    load: float
    others: float

    @classmethod
    def now(cls) -> Self:
        """Look for half a second, in which this process does nothing."""
        return cls(os.getloadavg()[0], psutil.cpu_percent(LOOKING_SECONDS) / 100)


def circumstances(
    interpreter: Interpreter, factor: float, before: Business, after: Business, seconds: float
) -> Circumstances:
    """The circumstances of what has just been measured."""
    return Circumstances(
        commit(),
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        {"version": interpreter.full_version, "compiler": interpreter.compiler.strip()},
        {name: found for name in LIBRARIES if (found := _version(name))},
        factor,
        (before.load, after.load),
        (before.others, after.others),
        seconds,
    )


def commit() -> str:
    """The commit that is checked out, "+" where files that are measured differ from it; "" without git."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--", *MEASURED)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
