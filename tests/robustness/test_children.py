"""Child processes, however they are made and however they end, are in their parent's recording."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from programs import BACKENDS, NATIVE, Programs

import pyscope

POOLS = """
    import multiprocessing, os, sys
    import pyscope

    def leaf(value): return value + 1

    def work(count):
        for value in range(count): leaf(value)

    if __name__ == "__main__":
        before = dict(os.environ)
        with pyscope.record("run.pyscope", modules=["__main__", "__mp_main__"], backend=sys.argv[1]):
            context = multiprocessing.get_context(sys.argv[2])
            children = [context.Process(target=work, args=(100 + i,)) for i in range(3)]
            for child in children: child.start()
            for child in children: child.join()
            assert [child.exitcode for child in children] == [0, 0, 0]
            if sys.argv[2] == "forkserver":
                from multiprocessing.forkserver import _forkserver
                _forkserver._stop()
            leaf(0)
        assert dict(os.environ) == before
"""


def calls(programs: Programs, function: str) -> list[int]:
    """How often each process called a function, the parent first, the others in order of count."""
    trace = pyscope.load(programs.folder / "run.pyscope")
    assert trace.losses == []
    counts = [0] * len(trace.processes)
    for row in trace.find(function=function).rows:
        counts[trace.threads[trace.calls["thread"][row]].process] += 1
    return [counts[0], *sorted(count for count in counts[1:] if count)]


@pytest.mark.parametrize(
    ("method", "backend"),
    [
        *(("fork", backend) for backend in BACKENDS),
        ("spawn", "auto"),
        ("spawn", "python"),
        ("forkserver", "auto"),
    ],
)
def test_children_of_multiprocessing_are_counted_to_the_call(
    programs: Programs, method: str, backend: str
) -> None:
    programs.run(POOLS, backend, method)
    assert calls(programs, "leaf") == [1, 100, 101, 102]
    assert programs.left_behind() == []


@pytest.mark.parametrize("backend", NATIVE)
def test_a_forked_child_is_recorded_however_it_ends(programs: Programs, backend: str) -> None:
    programs.run(
        """
        import os, sys
        import pyscope
        def leaf(): pass
        def child(end):
            for _ in range(500): leaf()
            exec(end)
        recording = pyscope.start("run.pyscope", modules=["__main__"], backend=sys.argv[1])
        for _ in range(10): leaf()
        for end in ("pass", "os._exit(0)", "os.kill(os.getpid(), 9)", "os.abort()", "sys.exit(0)", "1 / 0"):
            pid = os.fork()
            if not pid:
                child(end)
                sys.exit(0)
            os.waitpid(pid, 0)
        for _ in range(10): leaf()
        pyscope.stop()
        """,
        backend,
    )
    assert calls(programs, "leaf") == [20, *[500] * 6]
    assert programs.left_behind() == []


def test_interpreters_started_by_subprocess_are_recorded_and_run_their_own_sitecustomize(
    programs: Programs,
) -> None:
    site = programs.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import builtins\nbuiltins.customized = 'yes'\n")
    programs.write(
        """
        import os, sys
        def leaf(): pass
        for _ in range(250): leaf()
        print(customized, "_child" in "".join(sys.path), sys.argv[1:])
        """,
        "child.py",
    )
    done = programs.run(
        """
        import os, subprocess, sys
        os.environ["PYTHONPATH"] = os.pathsep.join([sys.argv[1], os.environ["PYTHONPATH"]])
        before = dict(os.environ)
        import pyscope
        def leaf(): pass
        with pyscope.record("run.pyscope", modules=["__main__"]):
            leaf()
            for _ in range(2):
                print(subprocess.run([sys.executable, "child.py", "a b"], capture_output=True, text=True, check=True))
        assert dict(os.environ) == before
        print(subprocess.run([sys.executable, "child.py"], capture_output=True, text=True, check=True))
        """,
        site,
    )
    assert done.stdout.count("yes False ['a b']") == 2
    assert done.stdout.count("yes False []") == 1
    assert "pyscope" not in done.stderr
    assert calls(programs, "leaf") == [1, 250, 250]  # the third ran after the stop
    assert programs.left_behind() == []


@pytest.mark.parametrize("backend", NATIVE)
def test_forks_while_other_threads_record_never_hang_and_are_counted(
    programs: Programs, backend: str
) -> None:
    programs.run(
        f"""
        import os, sys, threading, warnings
        import pyscope
        warnings.simplefilter("ignore", DeprecationWarning)
        def leaf(): pass
        def busy():
            while not over:
                leaf()
        def child():
            for _ in range(300): leaf()
        over = False
        pyscope.start("run.pyscope", modules=["__main__"], exclude=[], backend={backend!r}, ring_mb=32)
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads: thread.start()
        for attempt in range(24):
            pid = os.fork()
            if not pid:
                child()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        def fork_here():
            pid = os.fork()
            if not pid:
                child()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        thread = threading.Thread(target=fork_here)
        thread.start(); thread.join()
        over = True
        for thread in threads: thread.join()
        pyscope.stop()
        """
    )
    trace = pyscope.load(programs.folder / "run.pyscope")
    assert len(trace.processes) == 26
    process_of = np.array([thread.process for thread in trace.threads])
    made = np.bincount(process_of[trace.calls["thread"][trace.find(function="leaf").rows]])
    assert list(made[1:]) == [300] * 25
    assert programs.left_behind() == []


@pytest.mark.parametrize("backend", NATIVE)
def test_python_code_that_runs_in_a_forked_child_before_ours_is_not_the_parents(
    programs: Programs, backend: str
) -> None:
    programs.run(
        """
        import os, sys
        import pyscope
        def leaf(): pass
        def early():
            for _ in range(100): leaf()
        os.register_at_fork(after_in_child=early)  # before PyScope's own
        with pyscope.record("run.pyscope", modules=["__main__"], backend=sys.argv[1]):
            for _ in range(8):
                leaf()
                pid = os.fork()
                if not pid:
                    leaf(); leaf()
                    os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0
        """,
        backend,
    )
    assert calls(programs, "leaf") == [8, *[2] * 8]


@pytest.mark.parametrize("backend", NATIVE)
def test_no_thread_of_the_recorder_makes_a_fork_deprecated(programs: Programs, backend: str) -> None:
    done = programs.run(
        f"""
        import os
        import pyscope
        def leaf(): pass
        with pyscope.record("run.pyscope", modules=["__main__"], backend={backend!r}):
            for _ in range(12):
                for _ in range(2000): leaf()
                pid = os.fork()
                if not pid:
                    leaf()
                    os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0
        """,
        flags=("-W", "always::DeprecationWarning"),
    )
    assert done.stderr == ""
    assert calls(programs, "leaf") == [24000, *[1] * 12]


def test_a_child_that_outlives_its_killed_parent_goes_on_and_is_joined_by_recover(programs: Programs) -> None:
    program = programs.write("""
        import os, sys
        import pyscope
        def leaf(): pass
        pyscope.start("run.pyscope", modules=["__main__"])
        go, gone = os.pipe()
        if os.fork():
            for _ in range(7): leaf()
            os.kill(os.getpid(), 9)
        for _ in range(100): leaf()
        print(os.getpid(), flush=True)
        sys.stdin.readline()
        for _ in range(100): leaf()
    """)
    parent = subprocess.Popen(
        [sys.executable, str(program)],
        cwd=programs.folder, env=programs.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdin is not None
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.wait()
    path = programs.folder / "run.pyscope"
    assert [row.pid for row in pyscope.recover(path)] == [parent.pid]  # the child lives: left alone
    trace = pyscope.load(path)
    assert [process.state for process in trace.processes] == ["recovered", "recording"]
    assert calls(programs, "leaf") == [7, 100]
    parent.stdin.write("\n")
    parent.stdin.close()
    assert parent.stdout.read() == ""  # the child has closed it: ended
    for _ in range(500):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.01)
    pyscope.recover(path)
    assert calls(programs, "leaf") == [7, 200]
    assert programs.left_behind() == []


def test_a_grandchild_is_in_the_same_recording(programs: Programs) -> None:
    programs.run("""
        import os, subprocess, sys
        import pyscope
        def leaf(): pass
        if len(sys.argv) == 1:
            pyscope.start("run.pyscope", modules=["__main__"])
            leaf()
            subprocess.run([sys.executable, __file__, "child"], check=True)
            pyscope.stop()
        else:
            leaf(); leaf()
            pid = os.fork()
            if not pid:
                leaf(); leaf(); leaf()
                os._exit(0)
            os.waitpid(pid, 0)
    """)
    assert calls(programs, "leaf") == [1, 2, 3]
    assert programs.left_behind() == []


def test_children_are_left_alone_when_they_are_not_wanted(programs: Programs) -> None:
    programs.run("""
        import os, subprocess, sys
        import pyscope
        def leaf(): pass
        if len(sys.argv) > 1:
            leaf()
            sys.exit()
        with pyscope.record("run.pyscope", modules=["__main__"], children=False):
            leaf()
            subprocess.run([sys.executable, __file__, "child"], check=True)
            pid = os.fork()
            if not pid:
                leaf()
                os._exit(0)
            os.waitpid(pid, 0)
    """)
    assert calls(programs, "leaf") == [1]
    assert programs.left_behind() == []


FORKS_NOW_AND_THEN = """
    import os, time
    import pyscope

    def work(): pass

    def main(probes, children):
        with pyscope.record("run.pyscope", modules=["__main__"], probes=probes, children=children, ring_mb=4):
            for _ in range(4):
                pid = os.fork()
                if pid == 0: os._exit(0)
                os.waitpid(pid, 0)
                for _ in range(100):
                    work()
                    time.sleep(0.001)
"""


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="from 3.12 on Python warns of a fork beside other threads"
)
@pytest.mark.parametrize("probes", ["[]", '["resources"]', '["auto"]'])
@pytest.mark.parametrize("children", [True, False])
def test_no_thread_of_the_recorder_s_is_there_when_the_program_forks(
    programs: Programs, probes: str, children: bool
) -> None:
    done = programs.run(f"{FORKS_NOW_AND_THEN}\n    main({probes}, {children})\n", flags=("-W", "always"))
    assert "multi-threaded" not in done.stderr


def test_a_killed_child_is_a_finding_at_the_call_that_it_was_in(programs: Programs) -> None:
    programs.run("""
        import os, signal
        import pyscope

        def innocent(): pass

        def deadly():
            innocent()
            os.kill(os.getpid(), signal.SIGKILL)

        def main():
            pid = os.fork()
            if pid == 0: deadly()
            os.waitpid(pid, 0)

        with pyscope.record("run.pyscope", modules=["__main__"], probes=["supervision"]):
            main()
    """)
    [finding] = pyscope.diagnose(pyscope.load(programs.folder / "run.pyscope"))
    assert finding.why == "killed by SIGKILL"
    assert finding.where is not None
    assert finding.where.function == "deadly"
    assert "memory" in finding.change


def test_the_part_of_a_child_that_left_after_the_stop_goes_with_the_recording_that_is_replaced(
    programs: Programs,
) -> None:
    again = """
        import os, pyscope
        def work(): pass
        r, w = os.pipe()
        began, begun = os.pipe()
        with pyscope.record("run.pyscope", modules=["__main__"]):
            pid = os.fork()
            if pid == 0:
                work()
                os.write(begun, b"x")
                os.read(r, 1)
                os._exit(0)
            os.read(began, 1)
        os.write(w, b"x")
        os.waitpid(pid, 0)
    """
    for _ in range(3):
        programs.run(again)
        assert len(list(programs.folder.glob("run.pyscope.*.part"))) == 1
    assert len(programs.left_behind()) == 2  # the last child's part and ring
    assert len(pyscope.load(programs.folder / "run.pyscope").processes) == 2
