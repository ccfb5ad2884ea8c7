"""A disk that is full, read-only, stalled or taken away harms the recording, never the program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from programs import NATIVE, Programs

import pyscope


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(
            f"a small tmpfs cannot be mounted ({done.stderr.strip()}): run these tests as root, or in a container "
            "with `docker run --cap-add SYS_ADMIN`"
        )


@pytest.fixture
def disk(programs: Programs) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = programs.folder / "disk"
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", "size=1m", "pyscope-test", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


FILLING = """
    import sys, warnings
    import pyscope
    warnings.simplefilter("always")
    def leaf(): pass
    def many():
        for _ in range(1000): leaf()
    recording = pyscope.start("disk/run.pyscope", modules=["__main__"], backend=sys.argv[1], ring_mb=16)
    done = 0
    while recording.figures["backend"] is not None and done < 20_000_000:
        many()
        done += 1000
    for _ in range(10): many()  # the program goes on
    pyscope.stop()
    print(done)
"""


def leaves(trace: pyscope.Trace) -> int:
    return len(trace.find(function="leaf"))


@pytest.mark.parametrize("backend", NATIVE)
def test_a_full_disk_ends_the_recording_and_recover_saves_the_rest(
    programs: Programs, disk: Path, backend: str
) -> None:
    done = programs.run(FILLING, backend)
    made = int(done.stdout)
    path = disk / "run.pyscope"
    assert "No space left on device" in done.stderr
    assert f"pyscope recover {path}" in done.stderr
    before = pyscope.load(path)
    assert before.processes[0].state == "write_failed"
    (loss,) = [loss for loss in before.losses if loss.reason == "write_error"]
    assert "No space left on device" in loss.detail
    assert made - 1000 <= leaves(before) <= made
    with_failure = pyscope.recover(path)  # still full: says so, and loses nothing
    assert "No space left on device" in str(with_failure[0].problem)
    assert leaves(pyscope.load(path)) == leaves(before)
    _mount("-o", "remount,size=64m", str(disk))
    (row,) = pyscope.recover(path)
    assert row.problem is None
    after = pyscope.load(path)
    assert after.processes[0].state == "recovered"
    assert after.losses == []
    assert leaves(after) == leaves(before)
    assert programs.left_behind() == []


def test_a_disk_that_has_room_again_before_the_stop_loses_nothing(programs: Programs, disk: Path) -> None:
    (disk / "ballast").write_bytes(bytes(400_000))
    source = FILLING.replace(
        "    pyscope.stop()", '    import os; os.unlink("disk/ballast")\n    pyscope.stop()'
    )
    source = source.replace("ring_mb=16", "ring_mb=4")
    done = programs.run(source, NATIVE[0])
    trace = pyscope.load(disk / "run.pyscope")
    made = int(done.stdout)
    if trace.processes[0].state == "stopped":
        assert programs.left_behind() == []
    assert (
        sum(loss.count for loss in trace.losses if loss.reason == "ring_full") + 2 * leaves(trace)
        >= 2 * made - 2000
    )


def test_a_ring_that_does_not_fit_is_refused_with_the_setting_to_change(
    programs: Programs, disk: Path
) -> None:
    done = programs.run(
        """
        import pyscope
        try: pyscope.start("run.pyscope")
        except pyscope.errors.RecorderError as error: print(error)
        assert pyscope.recorder.active() is None
        pyscope.start("run.pyscope", ring_mb=1, ring_dir=".")
        pyscope.stop()
        """,
        PYSCOPE_RING_DIR=disk, PYSCOPE_RING_MB=64,
    )  # fmt: skip
    assert "no room for the ring of 64 MiB" in done.stdout
    assert "ring_mb" in done.stdout
    assert list(disk.iterdir()) == []


def test_a_read_only_disk_is_refused_before_anything_is_installed(programs: Programs, disk: Path) -> None:
    _mount("-o", "remount,ro", str(disk))
    done = programs.run("""
        import sys, pyscope
        for arguments in ({"path": "disk/run.pyscope"}, {"path": "run.pyscope", "ring_dir": "disk"}):
            try: pyscope.start(**arguments)
            except pyscope.errors.RecorderError as error: print(error)
        assert sys.getprofile() is None and pyscope.recorder.active() is None
    """)
    first, second = done.stdout.splitlines()
    assert "cannot be written. Choose another path." in first
    assert "Read-only file system" in second
    assert programs.left_behind() == []


def test_a_flight_recorder_runs_where_nothing_can_be_written(programs: Programs, disk: Path) -> None:
    _mount("-o", "remount,ro", str(disk))
    program = programs.write("print('it ran')")
    done = subprocess.run(
        [sys.executable, "-m", "pyscope", "run", "--mode", "flight", str(program)],
        cwd=disk, env=programs.environment(), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "it ran\n", "")


STALL = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <stdio.h>
    #include <string.h>
    #include <unistd.h>
    // A disk that does not answer while the file "stalled" exists.
    static void stall(int fd) {
      char link[64], path[4096];
      snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
      ssize_t n = readlink(link, path, sizeof path - 1);
      if (n < 0) return;
      path[n] = 0;
      if (!strstr(path, ".pyscope")) return;
      while (access("stalled", F_OK) == 0) usleep(2000);
    }
    typedef ssize_t (*function)(int, const void*, size_t, off_t);
    ssize_t pwrite(int fd, const void* data, size_t bytes, off_t at) {
      stall(fd);
      return ((function)dlsym(RTLD_NEXT, "pwrite"))(fd, data, bytes, at);
    }
    ssize_t pwrite64(int fd, const void* data, size_t bytes, off_t at) {
      stall(fd);
      return ((function)dlsym(RTLD_NEXT, "pwrite64"))(fd, data, bytes, at);
    }
"""


QUOTA = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <errno.h>
    #include <unistd.h>
    // While the file "quota" exists nobody has more than 300,000 bytes. As with btrfs, a part of the first write that
    // goes beyond is written; cutting it off overwrites the rest of a page, and then is not allowed either.
    enum { LIMIT = 300000 };
    static int reached;
    typedef ssize_t (*function)(int, const void*, size_t, off_t);
    static ssize_t limited(const char* name, int fd, const void* data, size_t bytes, off_t at) {
      if (access("quota", F_OK) == 0 && at + (off_t)bytes > LIMIT) {
        if (at >= LIMIT || reached) { errno = EDQUOT; return -1; }
        bytes = LIMIT - at;
        reached = 1;
      }
      return ((function)dlsym(RTLD_NEXT, name))(fd, data, bytes, at);
    }
    ssize_t pwrite(int fd, const void* data, size_t bytes, off_t at) {
      return limited("pwrite", fd, data, bytes, at);
    }
    ssize_t pwrite64(int fd, const void* data, size_t bytes, off_t at) {
      return limited("pwrite64", fd, data, bytes, at);
    }
    static int cut(const char* name, int fd, off_t at) {
      if (access("quota", F_OK) == 0) {
        static const char zeros[4096];
        ((function)dlsym(RTLD_NEXT, "pwrite"))(fd, zeros, 4096 - at % 4096, at);
        errno = EDQUOT;
        return -1;
      }
      return ((int (*)(int, off_t))dlsym(RTLD_NEXT, name))(fd, at);
    }
    int ftruncate(int fd, off_t at) { return cut("ftruncate", fd, at); }
    int ftruncate64(int fd, off_t at) { return cut("ftruncate64", fd, at); }
"""


def preloaded(programs: Programs, text: str, name: str) -> Path:
    """A library that stands before the C library's own functions."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("there is no C compiler: apt-get install gcc")
    library = programs.folder / f"{name}.so"
    source = programs.write(text, f"{name}.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("backend", NATIVE)
def test_what_a_quota_has_torn_off_is_taken_back_before_anything_else_is_written(
    programs: Programs, backend: str
) -> None:
    (programs.folder / "quota").touch()
    source = FILLING.replace("disk/run", "run").replace(
        "        many()\n", "        many()\n        exec(f'def name_{done}(): pass\\nname_{done}()')\n", 1
    )
    done = programs.run(source, backend, LD_PRELOAD=preloaded(programs, QUOTA, "quota"))
    made = int(done.stdout)
    path = programs.folder / "run.pyscope"
    assert "Disk quota exceeded" in done.stderr
    before = pyscope.load(path)
    assert before.processes[0].state == "write_failed"
    assert {loss.reason for loss in before.losses} == {
        "write_error",
        "damaged_block",
    }  # the torn end is told of
    assert made - 1000 <= leaves(before) <= made
    (row,) = pyscope.recover(path)
    assert row.problem is None
    after = pyscope.load(path)
    assert after.losses == []
    assert leaves(after) == leaves(before)
    assert programs.left_behind() == []


@pytest.fixture
def stalling(programs: Programs) -> Callable[..., str]:
    """Runs a program whose recording lies on a disk that can stall."""
    library = preloaded(programs, STALL, "stall")
    return lambda text, *arguments: programs.run(text, *arguments, LD_PRELOAD=library).stdout


@pytest.mark.parametrize("backend", NATIVE)
def test_a_stalled_disk_drops_events_that_are_counted_and_placed_in_time(
    programs: Programs, stalling: Callable[..., str], backend: str
) -> None:
    out = stalling(
        """
        import os, sys, time
        import pyscope
        def leaf(): pass
        def marker(): pass
        pyscope.start("run.pyscope", modules=["__main__"], backend=sys.argv[1], ring_mb=1)
        for _ in range(1000): leaf()
        stalled = time.time_ns()
        open("stalled", "w").close()
        for _ in range(200_000): leaf()  # goes on although the disk does not
        os.unlink("stalled")
        time.sleep(0.3)
        answers = time.time_ns()
        for _ in range(1000): leaf()
        marker()
        pyscope.stop()
        print(stalled, answers)
        """,
        backend,
    )
    stalled, answers = map(int, out.split())
    trace = pyscope.load(programs.folder / "run.pyscope")
    lost = [loss for loss in trace.losses if loss.reason == "ring_full"]
    assert lost
    heads = sum(1 for kind in trace.events["kind"])
    assert sum(loss.count for loss in lost) + 2 * leaves(trace) >= 2 * 202_000
    assert heads < 2 * 202_000
    slack = 50_000_000  # two clocks are compared
    for loss in lost:
        assert stalled - slack <= loss.start_ns <= loss.end_ns <= answers + slack * 10
    assert len(trace.find(function="marker")) == 1
    assert trace.processes[0].state == "stopped"
    assert programs.left_behind() == []


def test_a_stop_on_a_stalled_disk_gives_up_in_time_and_leaves_the_ring_to_recover(
    programs: Programs, stalling: Callable[..., str]
) -> None:
    out = stalling("""
        import warnings
        import pyscope
        from pyscope import ending
        ending.STOP_TIMEOUT = 0.3
        def leaf(): pass
        pyscope.start("run.pyscope", modules=["__main__"])
        open("stalled", "w").close()
        for _ in range(20_000): leaf()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pyscope.stop()
        print(*(warning.message for warning in caught))
        with pyscope.record("run2.txt", modules=["__main__"]):  # a new one works
            leaf()
    """)
    path = programs.folder / "run.pyscope"
    assert "the disk did not answer" in out
    assert f"pyscope recover {path}" in out
    (programs.folder / "stalled").unlink()
    (row,) = pyscope.recover(path)
    assert row.problem is None
    trace = pyscope.load(path)
    assert leaves(trace) == 20_000
    assert trace.losses == []
    assert leaves(pyscope.load(programs.folder / "run2.txt")) == 1
    assert programs.left_behind() == []


def test_a_working_directory_that_may_not_be_looked_into_has_no_settings(programs: Programs) -> None:
    """As that of root below `sudo -u shop`."""
    done = programs.run("""
        import os, pyscope
        from pyscope import config
        os.mkdir("shut")
        os.chdir("shut")
        os.chmod(".", 0)
        if os.getuid() == 0: os.setuid(65534)
        print(config.resolve().mode)
    """)
    assert done.stdout == "stream\n"


@pytest.mark.skipif(os.getuid() != 0, reason="root alone can give rights up")
def test_a_program_that_gives_its_rights_up_has_its_recording(programs: Programs) -> None:
    done = programs.run("""
        import os, pyscope
        def leaf(): pass
        pyscope.start("run.pyscope", modules=["__main__"])
        for _ in range(10): leaf()
        os.setuid(65534)
        for _ in range(10): leaf()
        pyscope.stop()
    """)
    assert done.stderr == ""
    assert len(pyscope.load(programs.folder / "run.pyscope").find(function="leaf")) == 20


@pytest.mark.parametrize("backend", NATIVE)
def test_a_recording_deleted_underneath_is_told_of_at_the_stop(programs: Programs, backend: str) -> None:
    done = programs.run(
        """
        import os, sys
        import pyscope
        def leaf(): pass
        pyscope.start("run.pyscope", modules=["__main__"], backend=sys.argv[1])
        os.unlink("run.pyscope")
        for _ in range(50_000): leaf()
        pyscope.stop()
        print("goes on")
        """,
        backend,
    )
    assert done.stdout == "goes on\n"
    assert "was deleted or replaced while it was being written" in done.stderr
    assert programs.left_behind() == []
