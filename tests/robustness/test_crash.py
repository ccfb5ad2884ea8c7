"""A process that dies, however it dies, leaves a recording with every call that had completed."""

from __future__ import annotations

import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from programs import NATIVE, Programs

import pyscope
from pyscope import parts

KILLS = 100

COUNTING = """
    import mmap, struct, sys, threading, time
    import pyscope

    path, counters, backend, threads, seconds = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])
    with open(counters, "r+b") as file:
        shared = mmap.mmap(file.fileno(), 0)

    def work(value):
        return value + 1

    def count(slot, work, until, clock, pack=struct.pack_into, rest=time.sleep):
        done = 0
        while clock() < until:
            for _ in range(50):
                done = work(done)
                pack("<Q", shared, slot * 8, done)
            rest(0.0002)  # more than the drain can take would be lost, and counted, which is another test's

    with pyscope.record(path, modules=["__main__"], backend=backend, ring_mb=8):
        print("ready", flush=True)
        until = time.monotonic() + seconds
        others = [threading.Thread(target=count, args=(i, work, until, time.monotonic)) for i in range(1, threads)]
        for other in others: other.start()
        count(0, work, until, time.monotonic)
        for other in others: other.join()
"""


def completed(counters: Path) -> int:
    """Calls that are known to have returned, of all threads."""
    return sum(struct.unpack("<8Q", counters.read_bytes()))


def returned(trace: pyscope.Trace, function: str) -> int:
    rows = trace.find(function=function).rows
    return int((trace.calls["outcome"][rows] == pyscope.trace.OUTCOMES.index("returned")).sum())


def kill_one(programs: Programs, program: Path, kill: int) -> bool:
    """Kills one process and looks at what is left; whether it had begun to record."""
    chance = random.Random(kill)
    path, counters = programs.folder / f"{kill}.pyscope", programs.folder / f"{kill}.count"
    counters.write_bytes(bytes(64))
    backend, threads = NATIVE[kill % len(NATIVE)], 1 + kill % 3
    # two in three while it works, one in three at any moment, its start and its stop among them
    anywhere = kill % 3 == 0
    child = programs.begin(program, path, counters, backend, threads, 0.04 if anywhere else 60)
    try:
        if not anywhere:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n", child.stderr and child.stderr.read()
        time.sleep(chance.random() * (0.6 if anywhere else 0.1))
    finally:
        child.kill()
        child.communicate()
    known = completed(counters)
    if not path.exists() or path.stat().st_size == 0:
        assert known == 0
        for ring in programs.rings.glob(f"*-{child.pid}-*"):
            ring.unlink(missing_ok=True)  # it had no file yet; the next start of a recorder would do this
        return False
    trace = pyscope.load(path)
    assert returned(trace, "work") >= known, f"kill {kill}: {backend}, {threads} threads"
    assert trace.losses == []
    assert trace.processes[0].state in ("killed", "stopped", "recovered")  # by one that began beside it
    pyscope.recover(path)
    assert len(pyscope.load(path).calls) == len(trace.calls)
    deadline = time.monotonic() + 10  # a recorder that began beside it may be saving it
    while rings := list(programs.rings.glob(f"*-{child.pid}-*")):
        assert time.monotonic() < deadline, f"kill {kill}: {trace.processes[0].state}, {rings}"
        time.sleep(0.01)
    path.unlink()
    return True


def test_a_process_killed_at_a_random_moment_a_hundred_times_loses_no_completed_call(
    programs: Programs,
) -> None:
    program = programs.write(COUNTING)
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda kill: kill_one(programs, program, kill), range(KILLS)))
    assert sum(opened) >= KILLS * 2 // 3


@pytest.mark.parametrize("backend", NATIVE)
@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("os._exit(7)", 7),
        ("os.abort()", -signal.SIGABRT),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ],
    ids=["_exit", "abort", "segfault", "kill"],
)  # fmt: skip
def test_a_process_that_ends_without_a_stop_is_recovered_whole(
    programs: Programs, backend: str, end: str, status: int
) -> None:
    programs.run(
        f"""
        import os, pyscope
        def leaf(): pass
        def fails(): raise LookupError
        def last():
            {end}
        pyscope.start("crash.pyscope", modules=["__main__"], backend={backend!r})
        for _ in range(3000): leaf()
        try: fails()
        except LookupError: pass
        last()
        """,
        code=status,
    )
    path = programs.folder / "crash.pyscope"
    dead = pyscope.load(path)
    assert dead.processes[0].state == "killed"
    assert returned(dead, "leaf") == 3000
    assert [call.exception for call in dead.find(function="fails")] == ["builtins.LookupError"]
    assert [call.outcome for call in dead.find(function="last")] == ["open"]
    assert dead.losses == []
    assert len(programs.left_behind()) == 1  # its ring

    (row,) = pyscope.recover(path)
    assert row.problem is None
    assert row.events > 0
    assert programs.left_behind() == []
    elsewhere = programs.folder / "elsewhere" / "moved.pyscope"
    elsewhere.parent.mkdir()
    shutil.move(path, elsewhere)
    sealed = pyscope.load(elsewhere)
    assert sealed.processes[0].state == "recovered"
    assert sealed.losses == []
    assert list(sealed.find()) == list(dead.find())
    assert pyscope.recover(elsewhere) == []


@pytest.fixture
def living(programs: Programs) -> Iterator[tuple[Programs, subprocess.Popen[str]]]:
    """A flight recorder without a file that has called `leaf` 2000 times and waits."""
    program = programs.write("""
        import sys, pyscope
        def leaf(): pass
        pyscope.start(sys.argv[1] if len(sys.argv) > 2 else None, modules=["__main__"], mode=sys.argv[-1])
        for _ in range(2000): leaf()
        print("ready", flush=True)
        for line in sys.stdin:
            leaf()
            if line.strip(): pyscope.dump(line.strip())
            print("done", flush=True)
    """)
    child = subprocess.Popen(
        [sys.executable, str(program), "flight"],
        cwd=programs.folder, env=programs.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    try:
        yield programs, child
    finally:
        child.kill()
        child.communicate()


def ask(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()
    assert child.stdout.readline() == "done\n"


def test_a_flight_recorder_dumps_and_its_ring_is_read_after_a_kill(
    living: tuple[Programs, subprocess.Popen[str]],
) -> None:
    programs, child = living
    ask(child, "first.pyscope")
    ask(child, "second.pyscope")
    assert returned(pyscope.load(programs.folder / "first.pyscope"), "leaf") == 2001
    assert returned(pyscope.load(programs.folder / "second.pyscope"), "leaf") == 2002
    (ring,) = programs.rings.iterdir()
    alive = pyscope.load(ring)
    assert alive.processes[0].state == "recording"
    assert returned(alive, "leaf") == 2002
    child.kill()
    child.wait()
    dead = pyscope.load(ring)
    assert dead.processes[0].state == "killed"
    assert returned(dead, "leaf") == 2002
    assert dead.losses == []


def test_a_recording_is_loaded_while_its_process_is_alive(programs: Programs) -> None:
    path, counters = programs.folder / "live.pyscope", programs.folder / "live.count"
    counters.write_bytes(bytes(64))
    child = programs.begin(programs.write(COUNTING), path, counters, "auto", 2, 60)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        seen = 0
        for _ in range(5):
            time.sleep(0.03)
            known = completed(counters)
            trace = pyscope.load(path)
            assert trace.processes[0].state == "recording"
            assert returned(trace, "work") >= known
            assert returned(trace, "work") >= seen
            seen = returned(trace, "work")
            assert trace.losses == []
        assert pyscope.recover(path) == []  # it lives: left alone
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate()


def test_a_recording_of_a_killed_process_is_not_overwritten(programs: Programs) -> None:
    source = """
        import os, pyscope
        def leaf(): pass
        try:
            pyscope.start("again.pyscope", modules=["__main__"])
        except pyscope.errors.RecorderError as error:
            print(error)
        else:
            leaf()
            os.kill(os.getpid(), 9)
    """
    programs.run(source, code=-9)
    assert "pyscope recover" in programs.run(source).stdout
    pyscope.recover(programs.folder)
    programs.run(source, code=-9)  # sealed: replaced
    assert programs.left_behind() != []


@pytest.mark.parametrize("probes", ["[]", '["auto"]'])
def test_the_report_of_a_crash_begins_with_the_call_that_it_happened_in(
    programs: Programs, probes: str
) -> None:
    programs.run(
        f"""
        import ctypes, pyscope, threading
        def innocent(): pass
        def waits(): threading.Event().wait()
        def deadly():
            innocent()
            ctypes.string_at(0)
        def main(): deadly()
        pyscope.start("run.pyscope", modules=["__main__"], probes={probes})
        threading.Thread(target=waits, daemon=True).start()
        main()
        """,
        code=-signal.SIGSEGV,
    )
    for _ in range(2):  # from the ring, and recovered
        first = pyscope.diagnose(pyscope.load(programs.folder / "run.pyscope"))[0]
        assert first.where is not None
        assert (first.where.function, first.severity) == ("deadly", 4)
        assert "native code" in first.change
        pyscope.recover(programs.folder)


def test_a_service_that_is_killed_again_and_again_does_not_fill_the_folder_of_its_rings(
    programs: Programs,
) -> None:
    for number in range(3):
        programs.run(
            f"""
            import os, pyscope
            def leaf(): pass
            pyscope.start("run-{number}.pyscope", modules=["__main__"])
            for _ in range(100): leaf()
            os.kill(os.getpid(), 9)
            """,
            code=-9,
        )
        assert len(programs.left_behind()) == 1
    for number in range(3):
        assert returned(pyscope.load(programs.folder / f"run-{number}.pyscope"), "leaf") == 100


def test_of_several_that_recover_a_recording_one_does(programs: Programs) -> None:
    """Two that write into it at a time would write over each other."""
    programs.run(
        """
        import os, pyscope
        def leaf(): pass
        pyscope.start("run.pyscope", modules=["__main__"], ring_mb=16)
        for _ in range(200_000): leaf()
        os.kill(os.getpid(), 9)
        """,
        code=-9,
    )
    path = programs.folder / "run.pyscope"
    recover = f"from pyscope import parts; input(); print(len(parts.recover({str(path)!r})))"
    several = [
        subprocess.Popen(
            [sys.executable, "-c", recover],
            env=programs.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for one in several:
        assert one.stdin is not None
        one.stdin.write("now\n")
        one.stdin.flush()
    said = [one.communicate(timeout=60)[0] for one in several]
    trace = pyscope.load(path)
    assert returned(trace, "leaf") == 200_000
    assert trace.losses == []
    assert "1\n" in said
    assert programs.left_behind() == []


def test_the_ring_of_a_recording_that_has_been_moved_waits_for_it(programs: Programs) -> None:
    programs.run(
        """
        import os, pyscope
        def leaf(): pass
        pyscope.start("moved.pyscope", modules=["__main__"])
        for _ in range(100): leaf()
        os.kill(os.getpid(), 9)
        """,
        code=-9,
    )
    elsewhere = programs.folder / "elsewhere"
    elsewhere.mkdir()
    (programs.folder / "moved.pyscope").rename(elsewhere / "moved.pyscope")
    parts.seal_left_behind(str(programs.rings))  # as the next recording does
    pyscope.recover(elsewhere)
    assert returned(pyscope.load(elsewhere / "moved.pyscope"), "leaf") == 100
    assert programs.left_behind() == []


def test_a_ring_is_mapped_and_locked_only_while_its_process_lives(programs: Programs) -> None:
    programs.run("""
        import glob, os, pyscope
        with pyscope.record("run.pyscope", modules=["__main__"]):
            assert glob.glob(os.environ["PYSCOPE_RING_DIR"] + "/*.ring")
            assert ".ring" in open("/proc/self/maps").read()
        assert not glob.glob(os.environ["PYSCOPE_RING_DIR"] + "/*.ring")
        assert ".ring" not in open("/proc/self/maps").read()
        assert not any(".ring" in os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                       if os.path.exists(f"/proc/self/fd/{fd}"))
    """)
