"""`make suites`: the test suites of packages from PyPI, untraced, with an empty hook, with the package's own modules
traced, and with every call traced.

Each suite must give the same results each time; the ratios of wall times stand beside. The sdists are fetched
with pip into build/suites and their tests run from there, against the code that is in them.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.worker import ROOT

FOLDER: Final = ROOT / "build" / "suites"
MODES: Final = ("untraced", "empty", "own", "traced")
QUIET: Final = ("-W", "ignore::pytest.PytestDeprecationWarning")  # a suite may be older than pytest
SECONDS: Final = 900.0  # of one run of one suite


@dataclass(frozen=True, slots=True)
class Suite:
    """A package's tests. `version` is pinned, so that a figure can be compared with an earlier one; `source`: where
    its code lies in the sdist; `tests`: what pytest is given; `needs`: what else has to be installed."""

    package: str
    version: str
    source: str
    tests: tuple[str, ...]
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


SUITES: Final = (
    Suite("markupsafe", "3.0.2", "src", ("tests",)),
    Suite("click", "8.1.8", "src", ("tests",)),
    Suite(
        "attrs", "24.3.0", "src", ("tests",), ("hypothesis", "cloudpickle"), ("--ignore=tests/test_mypy.yml",)
    ),
    Suite("jinja2", "3.1.5", "src", ("tests",), ("trio",)),
    Suite("networkx", "3.4.2", ".", ("networkx/classes", "networkx/algorithms/shortest_paths")),
    Suite("sqlalchemy", "2.0.36", "lib", ("test/base", "test/sql/test_operators.py")),
)


class SuiteFailed(Exception):
    """A suite could not be fetched or run; the message says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the outcome of each test by name, how the process ended, and how long it took."""

    outcomes: dict[str, str]
    code: int
    seconds: float


def fetch(suite: Suite, python: str) -> Path:
    """The folder of the unpacked sdist. Raises SuiteFailed."""
    unpacked = FOLDER / f"{suite.package}-{suite.version}"
    if unpacked.is_dir():
        return unpacked
    sdists = FOLDER / "sdists"
    command = [python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(sdists)]
    done = subprocess.run([*command, f"{suite.package}=={suite.version}"], capture_output=True, text=True)
    found = [
        *sdists.glob(f"{suite.package}-{suite.version}.tar.gz"),
        *sdists.glob(f"{suite.package.title()}-*.tar.gz"),
    ]
    if done.returncode or not found:
        raise SuiteFailed(f"{suite.package} {suite.version} cannot be fetched: {done.stderr.strip()[-300:]}")
    with tarfile.open(found[0]) as archive:
        top = archive.getnames()[0].split("/")[0]
        archive.extractall(FOLDER, filter="data")
    (FOLDER / top).rename(unpacked)
    return unpacked


@functools.cache
def needed(suite: Suite, python: str) -> list[Path]:
    """The folder with what a suite needs beside its package and pytest, if anything. Raises SuiteFailed."""
    if not suite.needs:
        return []
    tag = subprocess.run(
        [python, "-c", "import sys; print(sys.implementation.cache_tag)"], capture_output=True, text=True
    )
    folder = FOLDER / f"{suite.package}-needs-{tag.stdout.strip()}"
    if not folder.is_dir():
        command = [python, "-m", "pip", "install", "-q", "--target", str(folder), *suite.needs]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SuiteFailed(f"{', '.join(suite.needs)} cannot be installed: {done.stderr.strip()[-300:]}")
    return [folder]


def _path() -> Path:
    """A folder with PyScope and the plugin alone: this project's own `tests` would hide a suite's."""
    folder = FOLDER / "path"
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in (
        ("pyscope", ROOT / "pyscope"),
        ("suite_hook.py", ROOT / "benchmarks" / "suite_hook.py"),
    ):
        if not (folder / name).exists():
            (folder / name).symlink_to(target)
    return folder


def run(suite: Suite, folder: Path, mode: str, python: str) -> Run:
    """One run of a suite in a process of its own. Raises SuiteFailed where it gives no results."""
    report = FOLDER / f"{suite.package}-{mode}-{os.getpid()}.xml"
    command = [python, "-m", "pytest", "-q", *suite.options, "-p", "no:cacheprovider", *QUIET]
    command += ["-p", "suite_hook", f"--junitxml={report}", "-o", "addopts="]
    paths = map(str, [folder / suite.source, _path(), *needed(suite, python)])
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYSCOPE_", "PYTEST_"))
    }
    environment |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "SUITE_MODE": mode,
        "SUITE_PACKAGE": suite.package if suite.package != "attrs" else "attr",
        "SUITE_RECORDING": str(FOLDER / f"{suite.package}-{os.getpid()}.pyscope"),
    }
    began = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, *suite.tests],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise SuiteFailed(f"{suite.package} ({mode}) took more than {SECONDS:.0f} s") from None
    seconds = time.perf_counter() - began
    if not report.exists():
        raise SuiteFailed(f"{suite.package} ({mode}) gave no results: {(done.stdout + done.stderr)[-600:]}")
    outcomes = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        tags = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        name, number = f"{case.get('classname')}::{case.get('name')}", 0
        while f"{name}#{number}" in outcomes:
            number += 1
        outcomes[f"{name}#{number}"] = tags[0] if tags else "passed"
    report.unlink()
    if "passed" not in outcomes.values():
        raise SuiteFailed(f"no test of {suite.package} passed ({mode}): {done.stdout[-600:]}")
    return Run(outcomes, done.returncode, seconds)


def differences(one: Run, other: Run) -> list[str]:
    """What two runs of a suite do not have in common, in words."""
    found = [] if one.code == other.code else [f"exit code {one.code} and {other.code}"]
    for name in sorted(one.outcomes.keys() | other.outcomes.keys()):
        pair = one.outcomes.get(name, "missing"), other.outcomes.get(name, "missing")
        if pair[0] != pair[1]:
            found.append(f"{name}: {pair[0]} and {pair[1]}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs the suites and prints a table; the exit code is 1 if any result differed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suites", description=__doc__)
    parser.add_argument("--package", action="append", help="this one; may be repeated (all)")
    parser.add_argument("--interpreter", default=sys.executable, help="the Python to use (this one)")
    options = parser.parse_args(arguments)
    wanted = [suite for suite in SUITES if not options.package or suite.package in options.package]
    different = 0
    print(
        f"{'suite':<22}{'tests':>7}{'passed':>8}{'untraced':>10}{'empty hook':>12}{'own traced':>12}"
        f"{'all traced':>12}  results"
    )
    for suite in wanted:
        try:
            folder = fetch(suite, options.interpreter)
            run(suite, folder, MODES[0], options.interpreter)  # the first one fills the disk's cache
            runs = [run(suite, folder, mode, options.interpreter) for mode in MODES]
        except SuiteFailed as failure:
            print(f"{suite.package:<22}{failure}")
            different += 1
            continue
        found = [each for other in runs[1:] for each in differences(runs[0], other)]
        different += bool(found)
        passed = sum(outcome == "passed" for outcome in runs[0].outcomes.values())
        ratios = [f"×{other.seconds / runs[0].seconds:.2f}" for other in runs[1:]]
        print(
            f"{suite.package + ' ' + suite.version:<22}{len(runs[0].outcomes):>7}{passed:>8}{runs[0].seconds:>9.1f}s"
            f"{''.join(f'{ratio:>12}' for ratio in ratios)}  {'the same' if not found else 'DIFFERENT'}",
            flush=True,
        )
        for each in found[:10]:
            print(f"    {each}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
