"""`pyscope dump PID`: the flight recorder of another process, written to a file while it goes on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import pyscope
from pyscope import attach, backends
from pyscope.errors import NotRecording, RecorderError

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534

WAITING = """
import multiprocessing, os, sys, time

def work(n):
    return n + 1

def serve(times):
    for n in range(times):
        work(n)
    os.write(1, b"ready\\n")
    time.sleep(600)

if __name__ == "__main__":
    workers = [multiprocessing.get_context("fork").Process(target=serve, args=(40,), daemon=True)
               for _ in range(int(sys.argv[1]))]
    for worker in workers:
        worker.start()
    serve(30)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program that calls `work` 30 times, and 40 times in each of its workers, and waits."""
    (tmp_path / "service.py").write_text(WAITING)
    with ExitStack() as ending:

        def begin(*options: str, workers: int = 0, recorded: bool = True) -> subprocess.Popen[str]:
            command = ["-m", "pyscope", "run", *options] if recorded else []
            service = subprocess.Popen(
                [sys.executable, *command, "service.py", str(workers)],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYSCOPE_RING_MB": "4"},
                stdout=subprocess.PIPE,
                text=True,
                process_group=0,
            )
            ending.callback(service.communicate)
            ending.callback(os.killpg, service.pid, 9)
            assert service.stdout is not None
            for _ in range(1 + workers):
                assert service.stdout.readline() == "ready\n"
            return service

        yield begin
    for ring in Path("/dev/shm").glob(f"pyscope-{os.getuid()}-*.ring"):  # those of the killed
        if not backends.native().owner_alive(str(ring)) and "service.py" in str(meta(ring)):  # type: ignore[union-attr]
            ring.unlink(missing_ok=True)


def meta(ring: Path) -> object:
    native = backends.native()
    assert native is not None
    return json.loads(native.ring_meta(str(ring)))["argv"]


def command(folder: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pyscope", "dump", *map(str, arguments)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def calls(path: Path, function: str) -> int:
    return len(pyscope.load(path).find(function=function))


def test_the_command_writes_what_a_living_process_holds_and_says_how_to_read_it(
    start: Start, tmp_path: Path
) -> None:
    service = start("--mode", "flight", "--modules", "__main__")
    said = command(tmp_path, service.pid, "-o", "incident.pyscope").stdout
    assert str(service.pid) in said
    assert "pyscope report incident.pyscope" in said
    assert calls(tmp_path / "incident.pyscope", "work") == 30
    assert service.poll() is None


def test_without_a_name_the_dump_is_named_after_the_process_and_a_second_one_replaces_it(
    start: Start, tmp_path: Path
) -> None:
    service = start("--mode", "flight", "--modules", "__main__")
    for _ in range(2):
        (row,) = json.loads(command(tmp_path, service.pid, "--json").stdout)
        assert row["pid"] == service.pid
        assert row["events"] >= 60
    assert calls(tmp_path / f"dump-{service.pid}.pyscope", "work") == 30
    assert (tmp_path / f"dump-{service.pid}.pyscope").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("*.new*")] == []


def test_workers_come_into_the_same_recording_unless_they_are_left_out(start: Start, tmp_path: Path) -> None:
    service = start("--mode", "flight", "--modules", "__main__", workers=2)
    rows = attach.dump(service.pid, tmp_path / "all.pyscope")
    assert rows[0].pid == service.pid
    assert len(rows) == 3
    trace = pyscope.load(tmp_path / "all.pyscope")
    assert {process.pid for process in trace.processes} == {row.pid for row in rows}
    assert calls(tmp_path / "all.pyscope", "work") == 30 + 2 * 40
    (alone,) = attach.dump(service.pid, tmp_path / "one.pyscope", children=False)
    assert alone.pid == service.pid
    assert calls(tmp_path / "one.pyscope", "work") == 30


def test_a_process_that_streams_is_refused_with_the_name_of_its_recording(
    start: Start, tmp_path: Path
) -> None:
    service = start("-o", "run.pyscope", "--modules", "__main__")
    with pytest.raises(RecorderError, match=f"stream mode, all of it into {tmp_path}/run.pyscope"):
        attach.dump(service.pid, tmp_path / "dump.pyscope")


def test_a_process_without_pyscope_is_refused_with_what_to_do(start: Start, tmp_path: Path) -> None:
    service = start(recorded=False)
    said = command(tmp_path, service.pid, code=2).stderr
    assert f"process {service.pid} is not being recorded" in said
    assert "--mode flight" in said


def test_a_process_that_is_over_is_refused(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(NotRecording, match=f"there is no process {ended.pid}"):
        attach.dump(ended.pid, tmp_path / "dump.pyscope")


def test_what_is_no_process_id_is_a_usage_error(tmp_path: Path) -> None:
    assert "Invalid value for 'PID'" in command(tmp_path, "service", code=2).stderr


@pytest.mark.parametrize(
    ("target", "message"), [("missing/a.pyscope", "no folder"), ("service.py", "not over")]
)
def test_where_a_dump_cannot_be_written_everything_is_left_as_it_was(
    tmp_path: Path, target: str, message: str
) -> None:
    (tmp_path / "service.py").write_text(WAITING)
    with pytest.raises(RecorderError, match=message):
        attach.dump(os.getpid(), tmp_path / target)
    assert (tmp_path / "service.py").read_text() == WAITING


def test_another_users_process_is_refused_with_its_owner(start: Start, tmp_path: Path) -> None:
    """As root this takes a process that is nobody's; anyone else cannot look into process 1."""
    if os.getuid() != 0:
        with pytest.raises(RecorderError, match="run this as that user, or as root"):
            attach.mapped_ring(1)
        return
    pid = start("--mode", "flight").pid
    reader, writer = os.pipe()
    stranger = os.fork()
    if stranger == 0:
        try:
            os.setuid(NOBODY)
            attach.mapped_ring(pid)
            os.write(writer, b"it may")
        except RecorderError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(stranger, 0)
    os.close(writer)
    with open(reader) as file:
        said = file.read()
    assert re.fullmatch(rf"process {pid} belongs to the user \w+: run this as that user, or as root", said), (
        said
    )


def test_a_ring_that_was_deleted_is_told(start: Start) -> None:
    service = start("--mode", "flight")
    ring = attach.mapped_ring(service.pid)
    assert ring is not None
    os.unlink(ring.path)
    with pytest.raises(RecorderError, match="was deleted"):
        attach.mapped_ring(service.pid)


def test_a_process_that_only_reads_rings_is_not_taken_for_a_recorded_one(start: Start) -> None:
    import mmap

    ring = attach.mapped_ring(start("--mode", "flight").pid)
    assert ring is not None
    with open(ring.path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert attach.mapped_ring(os.getpid()) is None
        with pytest.raises(NotRecording, match="is not being recorded"):
            attach.dump(os.getpid(), "never.pyscope", children=False)


def test_what_a_killed_worker_did_is_in_the_dump(start: Start, tmp_path: Path) -> None:
    service = start("--mode", "flight", workers=2)
    [killed, *_] = [
        int(pid) for pid in Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
    ]
    os.kill(killed, 9)
    while "zombie" not in Path(f"/proc/{killed}/status").read_text():
        time.sleep(0.01)
    rows = attach.dump(service.pid, tmp_path / "dump.pyscope")
    assert killed in {row.pid for row in rows}
    trace = pyscope.load(tmp_path / "dump.pyscope")
    assert len(trace.find(function="work")) == 30 + 40 + 40


def test_a_dump_goes_where_a_link_points_and_never_in_place_of_a_device(start: Start, tmp_path: Path) -> None:
    service = start("--mode", "flight")
    (tmp_path / "link.pyscope").symlink_to(tmp_path / "target.pyscope")
    attach.dump(service.pid, tmp_path / "link.pyscope")
    assert (tmp_path / "link.pyscope").is_symlink()
    assert len(pyscope.load(tmp_path / "target.pyscope").find(function="work")) == 30
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(RecorderError, match="a device, a pipe or a socket"):
        attach.dump(service.pid, pipe)
    assert pipe.is_fifo()
