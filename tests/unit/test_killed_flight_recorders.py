"""A flight recorder with a path writes it at its stop. One that is killed has none: its ring is written for it."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import pyscope
from pyscope.errors import PyScopeWarning, RecordingNotFound

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import multiprocessing, os, sys

def leaf(): pass

def child():
    for _ in range(7): leaf()
    os.kill(os.getpid(), 9)

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=child)
    process.start()
    process.join()
    for _ in range(5): leaf()
    if sys.argv[2] == "killed": os.kill(os.getpid(), 9)
"""


def record(folder: Path, method: str, end: str) -> None:
    (folder / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "pyscope", "run", "--mode", "flight", "-o", "run.pyscope", "program.py", method, end],
        cwd=folder, capture_output=True, text=True, timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYSCOPE_RING_DIR": str(folder), "PYSCOPE_RING_MB": "4"},
    )  # fmt: skip
    assert done.returncode == (-9 if end == "killed" else 0), done.stderr


def leaves(path: Path) -> int:
    return len(pyscope.load(path).find(function="leaf"))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_that_was_killed_is_in_its_parents_recording(tmp_path: Path, method: str) -> None:
    record(tmp_path, method, "ended")
    assert leaves(tmp_path / "run.pyscope") == 5 + 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program.py", "run.pyscope"]


@pytest.mark.parametrize("whole_folder", [False, True])
def test_the_recording_of_a_killed_one_and_its_children_is_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_folder: bool
) -> None:
    monkeypatch.setenv("PYSCOPE_RING_DIR", str(tmp_path))
    record(tmp_path, "fork", "killed")
    assert not (tmp_path / "run.pyscope").exists()
    rows = pyscope.recover(tmp_path if whole_folder else tmp_path / "run.pyscope")
    assert len(rows) == 2
    assert [row.problem for row in rows] == [None, None]
    assert leaves(tmp_path / "run.pyscope") == 5 + 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program.py", "run.pyscope"]
    assert pyscope.recover(tmp_path) == []


def test_what_stands_at_its_path_and_is_no_recording_is_kept_and_so_is_the_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYSCOPE_RING_DIR", str(tmp_path))
    record(tmp_path, "fork", "killed")
    (tmp_path / "run.pyscope").write_text("notes")
    problems = {row.problem for row in pyscope.recover(tmp_path) if row.path.endswith("run.pyscope")}
    assert any("not overwritten" in str(problem) for problem in problems)
    assert (tmp_path / "run.pyscope").read_text() == "notes"
    (tmp_path / "run.pyscope").unlink()
    pyscope.recover(tmp_path / "run.pyscope")
    assert leaves(tmp_path / "run.pyscope") >= 5


def test_where_nothing_was_left_there_is_nothing_to_recover(tmp_path: Path) -> None:
    with pytest.raises(RecordingNotFound):
        pyscope.recover(tmp_path / "run.pyscope")


@pytest.mark.skipif(os.getuid() != 0, reason="needs files of another user")
def test_rings_that_somebody_else_has_laid_are_left_alone_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their folder is everybody's; what they say is written where they say, in the name of whoever recovers."""
    monkeypatch.setenv("PYSCOPE_RING_DIR", str(tmp_path))
    record(tmp_path, "fork", "killed")
    rings = sorted(tmp_path.glob("*.ring"))
    for ring in rings:
        os.chown(ring, 65534, 65534)
    os.mkfifo(tmp_path / "pyscope-65534-1-a.ring")
    rows = pyscope.recover(tmp_path / "run.pyscope")
    (tmp_path / "pyscope-65534-1-a.ring").unlink()
    assert [row.path for row in rows] == list(map(str, rings))
    assert all(f"Read it with: pyscope report {row.path}" in str(row.problem) for row in rows)
    assert leaves(rings[0]) + leaves(rings[1]) == 5 + 7
    assert sorted(tmp_path.glob("*.ring")) == rings
    assert not (tmp_path / "run.pyscope").exists()


def test_what_could_not_be_written_at_the_stop_is_kept_and_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rings").mkdir()
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("PYSCOPE_RING_DIR", str(tmp_path / "rings"))
    path = tmp_path / "folder" / "run.pyscope"

    def leaf() -> None: ...

    recording = pyscope.start(path, mode="flight", modules=[__name__], ring_mb=4)
    for _ in range(11):
        leaf()
    (tmp_path / "folder").rmdir()
    with pytest.warns(PyScopeWarning, match=f"pyscope recover {path}"):
        recording.stop()
    (tmp_path / "folder").mkdir()
    [row] = pyscope.recover(path)
    assert row.problem is None
    assert leaves(path) == 11
    assert list((tmp_path / "rings").iterdir()) == []


def test_a_stop_is_whole_where_warnings_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSCOPE_RING_DIR", str(tmp_path))
    (tmp_path / "folder").mkdir()
    recording = pyscope.start(tmp_path / "folder" / "run.pyscope", mode="flight", modules=["*"], ring_mb=4)
    (tmp_path / "folder").rmdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PyScopeWarning):
            recording.stop()
    with pyscope.record(tmp_path / "next.pyscope", modules=["*"], ring_mb=4) as recording:
        recording.dump(tmp_path / "dump.pyscope")
    assert pyscope.load(tmp_path / "next.pyscope").processes[0].state == "stopped"


def test_a_ring_in_the_folder_that_the_project_names_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, "fork", "killed")
    (tmp_path / "rings").mkdir()
    for ring in tmp_path.glob("*.ring"):
        ring.rename(tmp_path / "rings" / ring.name)
    (tmp_path / "pyproject.toml").write_text('[tool.pyscope]\nring_dir = "rings"\n')
    monkeypatch.delenv("PYSCOPE_RING_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    pyscope.recover("run.pyscope")
    assert leaves(tmp_path / "run.pyscope") == 5 + 7
