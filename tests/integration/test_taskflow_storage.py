"""File storage on real folders and in memory: whole files or none, and nothing outside its root."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import ValidationError

from taskflow.integrations.retries import DeliveryFailed
from taskflow.integrations.storage import BadFileName, FileMissing, FileStorage
from taskflow.settings import Settings

QUICK = {"faults": "none", "external_backoff_seconds": 0.01, "external_backoff_max_seconds": 0.05}


def storage(url: object, **values: object) -> FileStorage:
    return FileStorage(Settings.model_validate(QUICK | {"storage_url": str(url)} | values))


@pytest.fixture(params=["folder", "file", "memory"])
def any_storage(request: pytest.FixtureRequest, tmp_path: Path) -> FileStorage:
    urls = {"folder": str(tmp_path / "a/b"), "file": f"file://{tmp_path}/a", "memory": f"memory://{uuid4()}"}
    return storage(urls[request.param])


def test_what_is_written_is_read_and_listed(any_storage: FileStorage) -> None:
    assert any_storage.names() == []
    any_storage.write("reports/2025/annual.json", b"{}")
    any_storage.write("a.txt", b"first")
    any_storage.write("a.txt", b"second")
    assert any_storage.names() == ["a.txt", "reports/2025/annual.json"]
    assert any_storage.read("a.txt") == b"second"
    assert any_storage.read("reports/2025/annual.json") == b"{}"


def test_a_file_that_is_not_there_is_said_to_be_missing(any_storage: FileStorage) -> None:
    any_storage.write("reports/a", b"")
    for name in ("b", "reports", "reports/a/b"):
        with pytest.raises(FileMissing, match=f"no file {name}"):
            any_storage.read(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", "a\\b", "a\0b", "~/x", ".hidden", "a/.b",
     "file:///etc/passwd", "a b", "é", "a\n", "x" * 201],
)  # fmt: skip
def test_a_name_that_is_not_a_plain_relative_path_is_refused(any_storage: FileStorage, name: str) -> None:
    with pytest.raises(BadFileName):
        any_storage.write(name, b"")
    with pytest.raises(BadFileName):
        any_storage.read(name)
    assert any_storage.names() == []


def test_a_symbolic_link_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "up").symlink_to(tmp_path)
    for name in ("up/secret", "up/new"):
        with pytest.raises(BadFileName, match="leads out"):
            storage(tmp_path / "root").read(name)
        with pytest.raises(BadFileName, match="leads out"):
            storage(tmp_path / "root").write(name, b"")
    assert not (tmp_path / "new").exists()


def test_readers_see_the_old_file_or_the_new_one_whole(tmp_path: Path) -> None:
    files = storage(tmp_path)
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]
    files.write("big", contents[0])
    done = threading.Event()

    def rewrite() -> None:
        for turn in range(60):
            files.write("big", contents[turn % 2])
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(files.read("big"))
    writer.join()
    assert seen <= set(contents)
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    files = storage(tmp_path)
    files.write("kept", b"old")
    program = (
        "import os, signal, sys\n"
        "from taskflow.integrations.storage import FileStorage\n"
        "from taskflow.settings import Settings\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "FileStorage(Settings(storage_url=sys.argv[1])).write('kept', b'new')\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60)
    assert killed.returncode == -9
    assert files.read("kept") == b"old"
    assert files.names() == ["kept"]


def test_a_full_disk_is_tried_four_times_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def full(_: int) -> None:
        attempts.append(os.listdir(tmp_path))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeliveryFailed, match=r"big could not be stored: .*No space left"):
        storage(tmp_path).write("big", b"x")
    assert len(attempts) == 4
    assert os.listdir(tmp_path) == []


def test_the_fault_failing_storage_fails_every_write_and_its_twin_writes(
    any_storage: FileStorage, tmp_path: Path
) -> None:
    faulty = storage(tmp_path / "faulty", faults="failing_storage")
    with pytest.raises(DeliveryFailed, match="No space left"):
        faulty.write("a", b"x")
    with pytest.raises(FileMissing):
        faulty.read("a")
    any_storage.write("a", b"x")
    assert any_storage.read("a") == b"x"


def test_only_storage_in_memory_is_private_to_the_process(tmp_path: Path) -> None:
    assert storage(tmp_path).shared
    assert not storage("memory://x").shared


def test_a_storage_url_of_an_unknown_kind_is_refused_as_a_setting() -> None:
    with pytest.raises(ValidationError, match="not a folder nor an fsspec URL"):
        storage("nonsense://x")
