"""The wheel in dist/ installs and works in a clean environment that has no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMOKE = Path(__file__).with_name("smoke.py")
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"

pytestmark = [
    pytest.mark.packaging,
    pytest.mark.skipif(
        not list((ROOT / "dist").glob(f"pyscope-*-{TAG}-*.whl")), reason="no wheel in dist/: run `make wheel`"
    ),
]


@pytest.fixture(scope="module")
def wheel() -> Path:
    (found,) = (ROOT / "dist").glob(f"pyscope-*-{TAG}-*.whl")
    return found


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The interpreter of an environment with the wheel, installed where PATH has no compiler."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    environment = {**os.environ, "PATH": str(folder / "bin")}
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--only-binary=:all:", f"{wheel}[cli]"],
        check=True,
        env=environment,
        timeout=300,
    )
    return python


def test_it_records_and_reports_without_a_compiler(clean: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [clean, SMOKE],
        cwd=tmp_path,
        env={"PATH": str(clean.parent), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert str(clean.parents[1]) in ended.stdout


def test_the_command_is_installed(clean: Path) -> None:
    ended = subprocess.run(
        [clean.with_name("pyscope"), "--version"], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0
    assert ended.stdout.startswith("PyScope ")


def test_it_holds_pyscope_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if ".dist-info" not in name} <= {"pyscope", "pyscope.libs"}
    assert "pyscope/py.typed" in names
    assert "pyscope/_child/sitecustomize.py" in names
    assert any(name.startswith("pyscope/_hook.") and name.endswith(".so") for name in names)
    assert any(name.startswith("pyscope/_codec.") and name.endswith(".so") for name in names)
    assert not [name for name in names if name.endswith((".cpp", ".pyx", ".hpp"))]
