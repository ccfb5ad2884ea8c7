"""At the limits of the interpreter: recursion, many threads and tasks, greenlets, reloads, suspended generators."""

from __future__ import annotations

import sys

import pytest
from programs import BACKENDS, NATIVE, Programs

import pyscope

START = 'pyscope.start("run.pyscope", modules=["__main__", *MORE], backend=sys.argv[1], ring_mb=32)'


def same(programs: Programs, backend: str, body: str, *modules: str, first: str = "") -> pyscope.Trace:
    """What the program prints and how it ends must be as alone. Returns the trace of the recorded run."""
    program = f"""
        {first}
        import sys
        import pyscope
        if len(sys.argv) > 1: {START.replace("MORE", repr(modules))}
    """
    source = programs.write(body, "body.py").read_text()
    text = "\n".join(line[8:] for line in program.splitlines()) + source
    alone = programs.run(text)
    recorded = programs.run(text, backend)
    assert recorded.stdout == alone.stdout
    assert recorded.stdout.endswith("end\n")
    assert recorded.stderr == alone.stderr
    assert programs.left_behind() == []
    return pyscope.load(programs.folder / "run.pyscope")


@pytest.mark.parametrize("backend", NATIVE)
def test_recursion_ends_at_the_same_depth_and_can_be_caught_and_repeated(
    programs: Programs, backend: str
) -> None:
    trace = same(
        programs,
        backend,
        """
        def down(n):
            global deepest
            deepest = n
            down(n + 1)
        def caught(n):
            try: return caught(n + 1)
            except RecursionError: return n
        def mutual(n): return lambda: other(n)
        def other(n): return mutual(n + 1)()
        def stream(n):
            yield n
            yield from stream(n + 1)
        for _ in range(2):
            try: down(0)
            except RecursionError as error: print(deepest, error)
            print(caught(0))
            try: other(0)
            except RecursionError as error: print(error)
            count = 0
            try:
                for count in stream(0): pass
            except RecursionError as error: print(count > 100, type(error))
        print("end")
        """,
    )
    assert trace.find(function="down")[0].exception == "builtins.RecursionError"
    assert not [loss for loss in trace.losses if loss.reason not in ("ring_full", "stack_guard")]


def test_under_the_pure_python_backend_recursion_errors_reach_the_program_as_such(programs: Programs) -> None:
    out = programs.run("""
        import sys
        import pyscope
        def down(n): return down(n + 1)
        def leaf(): pass
        with pyscope.record("run.pyscope", modules=["__main__"], backend="python"):
            for _ in range(3):
                try: down(0)
                except RecursionError: print("caught")
            leaf()
        print(sys.getrecursionlimit())
    """).stdout
    assert out == "caught\ncaught\ncaught\n1000\n"
    assert pyscope.load(programs.folder / "run.pyscope").find(function="down")


@pytest.mark.parametrize("backend", NATIVE)
def test_a_raised_recursion_limit_holds(programs: Programs, backend: str) -> None:
    trace = same(
        programs,
        backend,
        """
        import threading
        def down(n): return down(n - 1) + 1 if n else 0
        sys.setrecursionlimit(60_000)
        threading.stack_size(512 << 20)
        def deep(): print(down(50_000))
        thread = threading.Thread(target=deep)
        thread.start(); thread.join()
        print("end")
        """,
    )
    losses = [loss for loss in trace.losses if loss.reason == "stack_guard"]
    assert len(trace.find(function="down")) == 50_001 or losses


@pytest.mark.parametrize("backend", NATIVE)
def test_a_thousand_threads_at_once_are_recorded_each(programs: Programs, backend: str) -> None:
    trace = same(
        programs,
        backend,
        """
        import threading
        threading.stack_size(256 << 10)
        gate = threading.Event()
        def work(n):
            gate.wait()
            return sum(map(one, range(3)))
        def one(n): return n
        threads = [threading.Thread(target=work, args=(n,)) for n in range(1000)]
        for thread in threads: thread.start()
        gate.set()
        for thread in threads: thread.join()
        print("end")
        """,
    )
    dropped = sum(loss.count for loss in trace.losses if loss.reason == "ring_full")
    if not dropped:
        assert trace.losses == []
        assert len(trace.find(function="work")) == 1000
        assert len(trace.find(function="one")) == 3000
    assert len(trace.threads) >= 1000 - dropped


@pytest.mark.parametrize("backend", NATIVE)
def test_ten_thousand_tasks_at_once_are_recorded_each(programs: Programs, backend: str) -> None:
    trace = same(
        programs,
        backend,
        """
        import asyncio
        async def work(n):
            await gate.wait()
            return n
        async def main():
            global gate
            gate = asyncio.Event()
            tasks = [asyncio.create_task(work(n)) for n in range(10_000)]
            await asyncio.sleep(0)
            gate.set()
            print(sum(await asyncio.gather(*tasks)))
            for task in [asyncio.create_task(work(n)) for n in range(100)]:
                task.cancel()
                try: await task
                except asyncio.CancelledError: pass
        asyncio.run(main())
        print("end")
        """,
    )
    assert trace.losses == []
    calls = trace.find(function="work")
    assert len(calls) == 10_100
    assert len(set(trace.calls["context"][calls.rows])) == 10_100


@pytest.mark.parametrize("backend", NATIVE[:1])
def test_gevent_s_greenlets_run_the_same_and_are_told_apart(programs: Programs, backend: str) -> None:
    trace = same(
        programs,
        backend,
        """
        import gevent, queue, threading
        from gevent.pool import Pool
        gevent.get_hub().NOT_ERROR += (LookupError,)
        order = []
        def leaf(n): return n * 2
        def work(n):
            order.append(n)
            gevent.sleep(0)
            order.append(-n)
            return leaf(n)
        def fails(n):
            gevent.sleep(0)
            raise LookupError(n)
        print(sum(Pool(7).imap(work, range(100))), order)
        jobs = [gevent.spawn(work, n) for n in range(1000)]
        gevent.joinall(jobs)
        print(sum(job.value for job in jobs))
        job = gevent.spawn(fails, 3)
        try: job.get()
        except LookupError as error: print(error.args)
        endless = gevent.spawn(gevent.sleep, 60)
        gevent.sleep(0)
        endless.kill()
        with gevent.Timeout(0.01, False): gevent.sleep(60)
        jobs = queue.Queue()
        thread = threading.Thread(target=lambda: jobs.put(leaf(4)))
        thread.start(); print(jobs.get()); thread.join()
        print("end")
        """,
        first="from gevent import monkey; monkey.patch_all()",
    )
    works = trace.find(function="work")
    assert len(works) == 1100
    assert {call.outcome for call in works} == {"returned"}
    assert len(set(trace.calls["context"][works.rows])) == 1100


@pytest.mark.parametrize("backend", [NATIVE[0], "python"])
def test_a_module_that_is_reloaded_is_recorded_as_it_is_now(programs: Programs, backend: str) -> None:
    trace = same(
        programs,
        backend,
        """
        import importlib, pathlib
        sys.dont_write_bytecode = True
        pathlib.Path("part.py").write_text("def price(n): return n")
        import part
        for version in range(20):
            pathlib.Path("part.py").write_text("#\\n" * version + f"def price(n): return n * {version}\\n")
            importlib.invalidate_caches()
            importlib.reload(part)
            print(part.price(3))
        old = part.price
        del sys.modules["part"], part
        import part
        def both(): return old(1), part.price(1)
        print(both())
        print("end")
        """,
        "part",
    )
    prices = [function for function in trace.functions if function.qualname == "price"]
    assert sum(function.calls for function in prices) == 22
    assert len({function.line for function in prices}) == 20


@pytest.mark.parametrize("backend", BACKENDS)
def test_generators_collected_while_suspended_are_closed_calls(programs: Programs, backend: str) -> None:
    trace = same(
        programs,
        backend,
        """
        import asyncio, gc
        seen = []
        def plain():
            try: yield 1; yield 2
            finally: seen.append("plain")
        async def stream():
            try: yield 1; yield 2
            finally: seen.append("stream")
        async def wait(future): await future
        class Cycle: pass
        for _ in range(50):
            next(plain())
            cycle = Cycle()
            cycle.me, cycle.it = cycle, plain()
            next(cycle.it)
            del cycle
            gc.collect()
        async def main():
            async for _ in stream(): break
            coroutine = wait(asyncio.get_running_loop().create_future())
            coroutine.send(None)
            del coroutine
        asyncio.run(main())
        print(len(seen), sorted(set(seen)))
        print("end")
        """,
    )
    plain = trace.find(function="plain")
    assert len(plain) == 100
    assert {call.outcome for call in plain} <= {"closed", "returned", "raised"}
    assert not [loss for loss in trace.losses if loss.reason == "fault"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_that_outlive_the_main_program_end_as_they_would(programs: Programs, backend: str) -> None:
    trace = same(
        programs,
        backend,
        """
        import atexit, threading, time
        def leaf(): pass
        def late():
            threading.main_thread().join()
            for _ in range(200): leaf()
            sys.stdout.write("late\\n")
        def at_exit():
            leaf()
            print("end", flush=True)
        atexit.register(at_exit)
        for _ in range(3): threading.Thread(target=late).start()
        """,
    )
    assert len(trace.find(function="leaf")) == 601
    assert {call.outcome for call in trace.find(function="late")} == {"returned"}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with 3.12")
def test_subinterpreters_with_a_gil_of_their_own_run_beside_a_recording(programs: Programs) -> None:
    module = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    create = "create('isolated')" if sys.version_info >= (3, 13) else "create(isolated=True)"
    done = programs.run(f"""
        import threading
        import {module} as interpreters
        import pyscope
        def leaf(): pass
        def inside(other): interpreters.run_string(other, "total = sum(n for n in range(2000))")
        with pyscope.record("run.pyscope", modules=["*"]):
            others = [interpreters.{create} for _ in range(3)]
            threads = [threading.Thread(target=inside, args=(other,)) for other in others]
            for thread in threads: thread.start()
            for _ in range(100): leaf()
            for thread in threads: thread.join()
            for other in others: interpreters.destroy(other)
        print("end")
    """)
    assert done.stdout == "end\n"
    assert len(pyscope.load(programs.folder / "run.pyscope").find(module="__main__", function="leaf")) == 100


GENERATING = """
    import gc, sys, weakref
    import pyscope
    def references(): return sum(type(o) is weakref.ref for o in gc.get_objects())
    def generate(name):
        names = {"__name__": "__main__"}
        exec(f"def {name}(): pass\\n{name}()", names)
    before = references()
    pyscope.start("run.pyscope", modules=["__main__"], backend=sys.argv[1], mode="flight", ring_mb=4)
    for i in range(15_000): generate("made" if sys.argv[2] == "same" else f"made_{i}")
    print(references() - before < 5_000)
    pyscope.stop()
"""


@pytest.mark.parametrize("backend", NATIVE)
def test_code_that_is_generated_all_the_time_takes_neither_memory_nor_names(
    programs: Programs, backend: str
) -> None:
    done = programs.run(GENERATING, backend, "same")
    assert (done.stdout, done.stderr) == ("True\n", "")
    trace = pyscope.load(programs.folder / "run.pyscope")
    assert len(trace.find(function="made")) == 15_000
    assert not trace.find(function="<unnamed>")


def test_functions_beyond_the_table_of_names_are_said(programs: Programs) -> None:
    done = programs.run(GENERATING, NATIVE[0], "different")
    assert "functions are recorded without their names" in done.stderr
