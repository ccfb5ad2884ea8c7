"""Odd moments: interpreter shutdown, signals, threads that fork, subinterpreters, hostile objects, many restarts."""

from __future__ import annotations

import signal
import sys

import pytest
from programs import BACKENDS, NATIVE, Programs

import pyscope


def same(programs: Programs, backend: str, body: str, *, code: int = 0) -> pyscope.Trace:
    """Output and exit code must be those of the program alone. Returns the trace of the recorded run."""
    start = (
        'import pyscope\npyscope.start("run.pyscope", modules=["__main__"], backend="BACKEND", ring_mb=64)\n'
    )
    programs.write(body, "body.py")
    runner = """
    import sys
    {start}
    code = compile(open("body.py").read(), "body.py", "exec")
    exec(code)
    """
    alone = programs.run(runner.replace("{start}", ""), code=code)
    indented = start.replace("BACKEND", backend).replace("\n", "\n    ")
    recorded = programs.run(runner.replace("{start}", indented), code=code)
    assert recorded.stdout == alone.stdout
    assert recorded.stderr.replace("<frozen", "") == alone.stderr.replace("<frozen", "")
    assert programs.left_behind() == []
    return pyscope.load(programs.folder / "run.pyscope")


@pytest.mark.parametrize("backend", BACKENDS)
def test_daemon_threads_that_run_while_the_interpreter_ends_change_nothing(
    programs: Programs, backend: str
) -> None:
    for _ in range(4):
        trace = same(
            programs,
            backend,
            """
            import atexit, threading
            def leaf(): pass
            running = threading.Semaphore(0)
            def forever():
                running.release()
                while True:
                    leaf()
            def late(): print("at exit")
            atexit.register(late)
            for _ in range(4): threading.Thread(target=forever, daemon=True).start()
            for _ in range(4): running.acquire()
            print("end")
            """,
        )
        assert len(trace.find(function="leaf")) > 0
        # a thread that begins while the drain is behind may lose its first call, which is told
        assert len(trace.find(function="forever")) == 4 or any(
            loss.reason == "ring_full" for loss in trace.losses
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_exits_of_threads_and_of_the_program_are_as_without(programs: Programs, backend: str) -> None:
    trace = same(
        programs,
        backend,
        """
        import atexit, sys, threading
        def worker(): sys.exit(5)
        def last(): print("last")
        def deep(n): return deep(n - 1) if n else sys.exit(3)
        atexit.register(last)
        thread = threading.Thread(target=worker)
        thread.start(); thread.join()
        deep(5)
        """,
        code=3,
    )
    assert [call.exception for call in trace.find(function="worker")] == ["builtins.SystemExit"]
    assert {call.exception for call in trace.find(function="deep")} == {"builtins.SystemExit"}
    assert len(trace.find(function="deep")) == 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_uncaught_exception_prints_the_same_traceback(programs: Programs, backend: str) -> None:
    trace = same(
        programs,
        backend,
        """
        import sys
        def outer():
            try: inner()
            except KeyError as error: raise ValueError("outer") from error
        def inner(): raise KeyError("inner")
        def hook(kind, value, traceback):
            names = []
            while traceback:
                names.append((traceback.tb_frame.f_code.co_name, traceback.tb_lineno)); traceback = traceback.tb_next
            print(kind, value, repr(value.__cause__), names[-1])
        sys.excepthook = hook
        outer()
        """,
        code=1,
    )
    assert [call.exception for call in trace.find(function="outer")] == ["builtins.ValueError"]


ALARMS = """
import signal, time
class Alarm(Exception): pass
def handler(*_): raise Alarm
def leaf(): pass
def busy():
    end = time.monotonic() + 10  # an alarm that is lost must not make this last for ever
    while time.monotonic() < end: leaf()
signal.signal(signal.SIGALRM, handler)
caught = 0
for _ in range(30):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        busy()
    except Alarm: caught += 1
def marker(): pass
marker()
print(caught)
"""


@pytest.mark.parametrize("backend", NATIVE)
def test_signal_handlers_that_raise_in_the_middle_of_traced_code_are_followed(
    programs: Programs, backend: str
) -> None:
    trace = same(programs, backend, ALARMS)
    assert trace.losses == []
    assert [call.exception for call in trace.find(function="busy")] == ["__main__.Alarm"] * 30
    assert [call.exception for call in trace.find(function="handler")] == ["__main__.Alarm"] * 30
    (marker,) = trace.find(function="marker")
    assert {call.depth for call in trace.find(function="busy")} == {marker.depth}


def test_the_pure_python_hook_hands_on_what_a_signal_handler_raises_inside_it(programs: Programs) -> None:
    programs.write(ALARMS.replace("range(30)", "range(300)"), "body.py")  # each hits the hook by chance
    done = programs.run("""
        import pyscope
        pyscope.start("run.pyscope", modules=["__main__"], backend="python")
        exec(compile(open("body.py").read(), "body.py", "exec"))
    """)
    assert done.stdout == "300\n"
    assert "inside the pure-Python hook" in done.stderr
    pyscope.load(programs.folder / "run.pyscope")


@pytest.mark.parametrize("backend", BACKENDS)
def test_objects_whose_special_methods_raise_are_never_asked(programs: Programs, backend: str) -> None:
    trace = same(
        programs,
        backend,
        """
        import asyncio, threading
        asked = []
        class Hostile(str):
            def __hash__(self): asked.append("hash"); raise RuntimeError
            def __eq__(self, other): asked.append("eq"); raise RuntimeError
            def __repr__(self): asked.append("repr"); raise RuntimeError
            def __str__(self): asked.append("str"); raise RuntimeError
        class Meta(type):
            def __getattribute__(cls, name):
                if name in ("__name__", "__qualname__", "__module__"): asked.append(name)
                return super().__getattribute__(name)
            def __hash__(cls): asked.append("meta hash"); raise RuntimeError
            def __eq__(cls, other): asked.append("meta eq"); raise RuntimeError
        class Odd(Exception, metaclass=Meta):
            def __repr__(self): asked.append("exception repr"); raise RuntimeError
            def __bool__(self): asked.append("bool"); raise RuntimeError
        class Receiver:
            def __getattribute__(self, name): asked.append(name); raise RuntimeError
            def method(self): raise Odd
        def worker(): pass
        thread = threading.Thread(target=worker)
        thread._name = Hostile("hostile")
        threading.Thread.start(thread)
        threading.Thread.join(thread)
        async def step(): await asyncio.sleep(0)
        async def main():
            task = asyncio.get_running_loop().create_task(step())
            task.set_name("x")
            await task
        asyncio.run(main())
        def fail(): raise Odd
        for function in (fail, lambda: Receiver.method(Receiver.__new__(Receiver))):
            try: function()
            except Odd: pass
        del thread
        print([what for what in asked if what not in ("str",)])
        """,
    )
    assert len(trace.find(function="worker")) == 1
    assert [call.outcome for call in trace.find(function="fail")] == ["raised"]


@pytest.mark.parametrize("backend", NATIVE)
def test_garbage_collection_and_finalizers_at_any_point_change_nothing(
    programs: Programs, backend: str
) -> None:
    trace = same(
        programs,
        backend,
        """
        import gc, weakref
        gc.set_threshold(1, 1, 1)
        finals = 0
        class Cycle:
            def __init__(self): self.me = self
            def __del__(self):
                global finals
                finals += 1
                nothing()
        def nothing(): gc.collect()
        def make(): Cycle()
        def stream():
            try:
                yield make()
            finally:
                nothing()
        for _ in range(20):
            next(stream())
            exec("def fresh(): return Cycle()\\nfresh()", {"Cycle": Cycle, "__name__": "__main__"})
        gc.collect()
        print(finals)
        """,
    )
    assert len(trace.find(function="make")) == 20
    assert len(trace.find(function="fresh")) == 20


@pytest.mark.parametrize("backend", NATIVE)
def test_a_subinterpreter_runs_unharmed(programs: Programs, backend: str) -> None:
    module = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    done = programs.run(
        f"""
        import {module} as interpreters
        import pyscope
        def leaf(): pass
        text = "def inside(n): return n + 1\\nassert sum(map(inside, range(50))) == 1275"
        with pyscope.record("run.pyscope", modules=["*"], backend={backend!r}):
            for _ in range(3):
                other = interpreters.create()
                interpreters.run_string(other, text)
                interpreters.destroy(other)
                leaf()
        print("goes on")
        """,
        code=None,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "goes on\n"
    assert len(pyscope.load(programs.folder / "run.pyscope").find(module="__main__", function="leaf")) == 3


@pytest.mark.parametrize("isolated", [False, True])
def test_a_recording_begun_in_a_subinterpreter_is_refused_with_the_reason(
    programs: Programs, isolated: bool
) -> None:
    new = sys.version_info >= (3, 13)
    module = "_interpreters" if new else "_xxsubinterpreters"
    arguments = repr("isolated" if isolated else "legacy") if new else f"isolated={isolated}"
    done = programs.run(
        f"""
        import {module} as interpreters
        other = interpreters.create({arguments})
        text = '''if True:
            import pyscope
            for backend in ("auto", "python"):
                try:
                    with pyscope.record("sub.pyscope", modules=["__main__"], backend=backend):
                        exec("def leaf(): pass")
                        leaf()
                except pyscope.errors.BackendUnavailable as error:
                    print(error, flush=True)
        '''
        failed = interpreters.run_string(other, text)
        print("goes on")
        """,
        code=None,
    )
    assert done.returncode == 0, done.stderr
    assert "this is a subinterpreter: start it there, or choose" in done.stdout
    assert done.stdout.count("\n") == 2
    assert done.stdout.endswith("goes on\n")
    assert len(pyscope.load(programs.folder / "sub.pyscope").find(function="leaf")) == 1
    assert programs.left_behind() == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with 3.12")
def test_subinterpreters_of_a_recorded_child_record_nothing_of_their_own(programs: Programs) -> None:
    new = sys.version_info >= (3, 13)
    module = "_interpreters" if new else "_xxsubinterpreters"
    create = "create('isolated')" if new else "create(isolated=True)"
    (programs.folder / "child.py").write_text(
        f"import {module} as interpreters\n"
        f"other = interpreters.{create}\n"
        "interpreters.run_string(other, 'def inside(): pass\\ninside()')\n"
        "interpreters.destroy(other)\n"  # 3.14 warns of those that remain
        "def leaf(): pass\n"
        "leaf()\n"
    )
    done = programs.run("""
        import subprocess, sys
        import pyscope
        with pyscope.record("run.pyscope", modules=["__main__"]):
            print(subprocess.run([sys.executable, "child.py"], capture_output=True, text=True).stderr)
    """)
    assert done.stdout.strip() == ""
    trace = pyscope.load(programs.folder / "run.pyscope")
    assert len(trace.processes) == 2
    assert len(trace.find(function="leaf")) == 1
    assert programs.left_behind() == []


@pytest.mark.parametrize("backend", NATIVE)
def test_hundreds_of_recordings_leave_handles_threads_and_memory_flat(
    programs: Programs, backend: str
) -> None:
    out = programs.run(
        f"""
        import os, threading
        import psutil
        import pyscope
        def leaf(): pass
        def cycle():
            with pyscope.record("run.pyscope", modules=["__main__"], backend={backend!r}, ring_mb=1):
                for _ in range(50): leaf()
                thread = threading.Thread(target=leaf)
                thread.start(); thread.join()
        me = psutil.Process()
        def look(): return me.num_fds(), me.num_threads(), len(me.memory_maps(grouped=False))
        for _ in range(60): cycle()
        before, memory = look(), me.memory_info().rss
        for _ in range(240): cycle()
        after = look()
        # the allocator may add a map or two
        flat = before[:2] == after[:2] and after[2] - before[2] < 30
        print(flat or (before, after), (me.memory_info().rss - memory) >> 10)
        """
    ).stdout
    flat, grown_kib = out.rsplit(" ", 1)
    assert flat == "True"
    assert int(grown_kib) < 4096  # a leak of one ring would be a quarter of that, each time
    assert len(pyscope.load(programs.folder / "run.pyscope").find(function="leaf")) == 51
    assert programs.left_behind() == []


def test_a_program_stopped_by_an_interrupt_saves_its_recording(programs: Programs) -> None:
    trace = same(
        programs,
        "auto",
        """
        import os, signal, sys
        def leaf(): pass
        sys.excepthook = lambda kind, *_: print(kind.__name__)
        leaf()
        os.kill(os.getpid(), signal.SIGINT)
        """,
        code=-signal.SIGINT,
    )
    assert trace.processes[0].state == "stopped"
    assert len(trace.find(function="leaf")) == 1
