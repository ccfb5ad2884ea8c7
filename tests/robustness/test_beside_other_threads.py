"""Starting, stopping, dumping and forking at once, on threads that know nothing of each other; and without a thread to
be had."""

from __future__ import annotations

import pytest
from programs import Programs

import pyscope

DUMPS_BESIDE_STOPS = """
    import threading, time
    import pyscope
    from pyscope.errors import NotRecording

    def work(): pass

    def dumps():
        try:
            while True:
                pyscope.dump("dump.pyscope")
        except NotRecording:
            ended.append(True)

    ended = []
    for round in range(12):
        pyscope.start(None, mode="flight", modules=["__main__"], ring_mb=16, children=False)
        for _ in range(100_000): work()
        dumping = threading.Thread(target=dumps)
        dumping.start()
        time.sleep(0.002 * round)
        pyscope.stop()
        dumping.join()
    print(len(ended))
"""

FORKS_BESIDE_STOPS = """
    import os, sys, threading, time, warnings
    import pyscope
    warnings.simplefilter("ignore")

    def work(): pass

    def forks():
        while not over:
            pid = os.fork()
            if pid == 0: os._exit(0)
            os.waitpid(pid, 0)

    over = []
    threads = [threading.Thread(target=forks, daemon=True) for _ in range(2)]
    for thread in threads: thread.start()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        pyscope.start("run.pyscope", modules=["__main__"], ring_mb=16)
        for _ in range(5000): work()
        pyscope.stop()
    over.append(True)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a forked child hangs"
    print("end")
"""

STARTS_BESIDE_STOPS = """
    import threading, time
    import pyscope
    from pyscope.errors import AlreadyRecording, NotRecording

    def records(path):
        for _ in range(40):
            try:
                pyscope.start(path, modules=["__main__"], ring_mb=4, children=False)
                pyscope.stop()
            except (AlreadyRecording, NotRecording) as error:
                refused.append(type(error).__name__)
            except BaseException as error:
                wrong.append(repr(error))

    refused, wrong = [], []
    threads = [threading.Thread(target=records, args=(f"{name}.pyscope",)) for name in "abc"]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert pyscope.recorder.active() is None
    print(wrong)
"""

NO_MORE_THREADS = """
    import resource, threading

    def no_more_threads():
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, ((pages << 12) + (1 << 20), resource.RLIM_INFINITY))
        for _ in range(100):
            try:
                threading.Thread(target=threading.Event().wait, daemon=True).start()
            except RuntimeError:
                return
        raise SystemExit("there is always room for one more")
"""

DRAIN_WITHOUT_A_THREAD = (
    NO_MORE_THREADS
    + """
    import os, sys
    import pyscope

    def work(): pass

    pyscope.start("run.pyscope", modules=["__main__"], ring_mb=16, children=True)
    pid = os.fork()  # ends the drain thread for its time
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
    no_more_threads()
    for _ in range(200_000): work()
    if sys.argv[1] == "later":
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for _ in range(200_000): work()
    pyscope.stop()
    print("end")
"""
)

START_WITHOUT_A_THREAD = """
    import os, resource, threading
    import pyscope
    from pyscope.errors import RecorderError

    def work(): pass

    before = len(os.listdir("/proc/self/fd"))
    hard = resource.RLIM_INFINITY
    said = set()
    for spare in range(1, 40):
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, ((pages << 12) + (spare << 19), hard))
        try:
            pyscope.start("run.pyscope", modules=["__main__"], ring_mb=8, children=False)
        except RecorderError as error:
            said.add("thread" if "thread" in str(error) else "memory")
            assert not os.path.exists("run.pyscope"), "what was begun is left"
        except MemoryError:
            pass  # the interpreter's own
        else:
            pyscope.stop()
            os.unlink("run.pyscope")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    assert len(os.listdir("/proc/self/fd")) == before, "descriptors are left"
    assert not [name for name in os.listdir("/dev/shm") if f"-{os.getpid()}-" in name], "rings are left"
    pyscope.start("run.pyscope", modules=["__main__"], ring_mb=8)
    work()
    pyscope.stop()
    print(sorted(said))
"""


def test_a_dump_beside_a_stop_is_whole_or_refused(programs: Programs) -> None:
    assert programs.run(DUMPS_BESIDE_STOPS).stdout == "12\n"


def test_forks_beside_starts_and_stops_end_and_so_do_their_children(programs: Programs) -> None:
    assert programs.run(FORKS_BESIDE_STOPS).stdout == "end\n"


def test_a_start_beside_a_stop_waits_for_it_or_is_refused(programs: Programs) -> None:
    assert programs.run(STARTS_BESIDE_STOPS).stdout == "[]\n"


@pytest.mark.parametrize("threads", ["never", "later"])
def test_where_no_thread_can_be_made_after_a_fork_the_program_goes_on_and_the_ring_is_written(
    programs: Programs, threads: str
) -> None:
    assert programs.run(DRAIN_WITHOUT_A_THREAD, threads).stdout == "end\n"
    trace = pyscope.load(programs.folder / "run.pyscope")
    called = len(trace.find(function="work"))
    dropped = sum(loss.count for loss in trace.losses)
    assert called == (200_000 if threads == "never" else 400_000) or (called and dropped)


def test_a_start_that_memory_or_threads_do_not_allow_leaves_nothing_behind(programs: Programs) -> None:
    said = programs.run(START_WITHOUT_A_THREAD).stdout
    assert "memory" in said
    assert len(pyscope.load(programs.folder / "run.pyscope").find(function="work")) == 1
