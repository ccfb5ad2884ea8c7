"""Every call is captured, exactly: counts that are known beforehand, for every backend."""

from __future__ import annotations

import _thread
import asyncio
import collections
import itertools
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import greenlet
import pytest

import pyscope
from pyscope.trace import Trace

NATIVE = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == "monitoring" and sys.version_info < (3, 12), reason="sys.monitoring came with 3.12"
        ),
    )
    for name in ("monitoring", "frame", "setprofile")
]
ALL = [*NATIVE, "python"]
ROOT = str(Path(__file__).parents[2])


def leaf(n: int) -> int:
    return n


def calls_leaf(times: int) -> None:
    for n in range(times):
        leaf(n)


def generates(times: int) -> Iterator[int]:
    for n in range(times):
        yield leaf(n)


async def naps(times: int) -> None:
    for n in range(times):
        await asyncio.sleep(0)
        leaf(n)


def down(n: int) -> int:
    return 0 if n == 0 else 1 + down(n - 1)


Record = Callable[..., Trace]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Runs a function recorded; the trace of this module's calls."""

    def run(body: Callable[[], object], **arguments: object) -> Trace:
        path = tmp_path / "run.pyscope"
        arguments = {"modules": [__name__], "ring_mb": 8, "children": False} | arguments
        with pyscope.record(path, **arguments) as recording:
            body()
        assert recording.figures["faults"] == 0
        return pyscope.load(path)

    return run


def counts(trace: Trace) -> dict[str, int]:
    return {f.qualname: f.calls for f in trace.functions if f.calls and f.kind != "c_function"}


def c_calls(trace: Trace, name: str) -> int:
    return sum(f.calls for f in trace.functions if f.kind == "c_function" and f.name == name)


# --- threads and tasks ---------------------------------------------------------------------------


@pytest.mark.parametrize("detail", ["calls", "c_calls"])
@pytest.mark.parametrize("backend", ALL)
def test_fifty_threads_lose_no_call(backend: str, detail: str, record: Record) -> None:
    def body() -> None:
        threads = [threading.Thread(target=calls_leaf, args=(n * 10,), name=f"w{n}") for n in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    trace = record(body, backend=backend, detail=detail)
    found = counts(trace)

    assert (found["calls_leaf"], found["leaf"]) == (50, sum(n * 10 for n in range(50)))
    by_thread = collections.Counter(call.thread for call in trace.find(function="leaf"))
    assert by_thread == {f"w{n}": n * 10 for n in range(1, 50)}
    assert set(trace.calls["outcome"].tolist()) == {0}
    assert not [loss for loss in trace.losses if loss.reason != "duty_cycle"]


@pytest.mark.parametrize("backend", ALL)
def test_two_hundred_tasks_lose_no_call_and_keep_their_names(backend: str, record: Record) -> None:
    async def main() -> None:
        await asyncio.gather(*[asyncio.create_task(naps(n % 10), name=f"job {n}") for n in range(200)])

    trace = record(lambda: asyncio.run(main()), backend=backend)
    found = counts(trace)

    assert (found["naps"], found["leaf"]) == (200, sum(n % 10 for n in range(200)))
    assert {c.context for c in trace.find(function="naps")} == {f"job {n}" for n in range(200)}
    by_task = collections.Counter(c.context for c in trace.find(function="leaf"))
    assert by_task == {f"job {n}": n % 10 for n in range(200) if n % 10}
    assert all(c.parent is not None and c.parent.function == "naps" for c in trace.find(function="leaf"))


def elsewhere(source: str) -> dict[str, object]:
    """The names that `source` defines, in a module that is not recorded."""
    names: dict[str, object] = {"__name__": "elsewhere", "asyncio": asyncio}
    exec(textwrap.dedent(source), names)
    return names


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shared", [False, True], ids=["own contexts", "one context"])
def test_tasks_that_code_which_is_not_recorded_makes_are_told_apart(
    backend: str, shared: bool, record: Record
) -> None:
    # One after another their addresses are the same; in one context they run by turns.
    makes = elsewhere(
        """
        import contextvars
        async def tasks(work, shared):
            context = contextvars.copy_context() if shared else None
            for turn in range(10):
                made = [asyncio.create_task(work(3), name=f"job {turn} {n}", context=context) for n in range(2)]
                for task in made:
                    await task
                del made, task
        """
    )["tasks"]
    assert callable(makes)
    trace = record(lambda: asyncio.run(makes(naps, shared)), backend=backend)

    names = [f"job {turn} {n}" for turn in range(10) for n in range(2)]
    assert collections.Counter(c.context for c in trace.find(function="naps")) == dict.fromkeys(names, 1)
    assert collections.Counter(c.context for c in trace.find(function="leaf")) == dict.fromkeys(names, 3)


@pytest.mark.parametrize("backend", ALL)
def test_a_greenlet_belongs_to_the_task_that_began_it_also_where_that_is_not_recorded(
    backend: str, record: Record
) -> None:
    makes = elsewhere(
        """
        import greenlet
        async def inside(work):
            for _ in range(2):
                greenlet.greenlet(work).switch(1)
                await asyncio.sleep(0)
        async def tasks(work, first):
            await asyncio.gather(*[asyncio.create_task(first(1), name="first")],
                                 *[asyncio.create_task(inside(work), name=f"job {n}") for n in range(3)])
        """
    )["tasks"]
    assert callable(makes)
    trace = record(lambda: asyncio.run(makes(calls_leaf, naps)), backend=backend)

    calls = list(trace.find(function="calls_leaf"))
    assert len(calls) == len({c.context for c in calls}) == 6
    by_name = {context.name: context for context in trace.contexts}
    outer = [trace.contexts[by_name[c.context].parent].name for c in calls]
    assert collections.Counter(outer) == {"job 0": 2, "job 1": 2, "job 2": 2}


@pytest.mark.parametrize("backend", ALL)
def test_greenlets_that_a_hub_begins_one_after_the_other_lie_in_none_of_each_other(
    backend: str, record: Record
) -> None:
    begins = elsewhere(
        """
        import greenlet
        def begin(works):
            def turn():
                left = [greenlet.greenlet(work) for work in works]
                while left:
                    for each in left:
                        each.switch(1)
                    left = [each for each in left if not each.dead]
            greenlet.greenlet(turn).switch()
        def wait(_):
            greenlet.getcurrent().parent.switch()
        """
    )

    def handler(n: int) -> None:
        calls_leaf(n)
        begins["wait"](n)
        calls_leaf(n)

    trace = record(lambda: begins["begin"]([handler] * 3), backend=backend)
    calls = [trace.call(row) for row in range(len(trace.calls))]
    handlers = [call for call in calls if call.qualname.endswith("handler")]
    assert len(handlers) == len({call.context for call in handlers}) == 3
    assert not any(call.parent and call.parent.qualname.endswith("handler") for call in handlers)
    parents = {context.parent for context in trace.contexts if context.kind == "greenlet"}
    assert parents == {0}


@pytest.mark.parametrize("backend", NATIVE)
def test_threads_that_threading_does_not_know_are_captured(backend: str, record: Record) -> None:
    def body() -> None:
        left = [20]
        ended = threading.Event()

        def run() -> None:
            calls_leaf(25)
            left[0] -= 1
            if not left[0]:
                ended.set()

        for _ in range(20):
            _thread.start_new_thread(run, ())
        ended.wait(30)
        while _thread._count() > before:
            time.sleep(0.001)

    before = _thread._count()
    assert counts(record(body, backend=backend))["leaf"] == 500


@pytest.mark.parametrize("backend", ALL)
def test_a_generator_handed_from_thread_to_thread_stays_one_call(backend: str, record: Record) -> None:
    taken: list[int] = []

    def body() -> None:
        generator = generates(10)
        for _ in range(10):
            thread = threading.Thread(target=lambda: taken.append(next(generator)))
            thread.start()
            thread.join()
        assert list(generator) == []

    trace = record(body, backend=backend)

    assert taken == list(range(10))
    assert (counts(trace)["generates"], counts(trace)["leaf"]) == (1, 10)
    call = trace.find(function="generates")[0]
    assert (call.outcome, len(list(call.children()))) == ("returned", 10)


# --- selection, arity ----------------------------------------------------------------------------


def module_of(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec("def one(): return two()\ndef two(): return 2\ndef items():\n    yield one()", module.__dict__)
    return module


@pytest.mark.parametrize("backend", NATIVE)
def test_300_recordings_in_a_row_each_with_its_own_selection_count_exactly(
    backend: str, tmp_path: Path
) -> None:
    modules = [module_of(f"picked{n}") for n in range(3)]
    for turn in range(300):
        chosen = {turn % 3, turn // 3 % 3} if turn % 10 else set()
        globs = [f"picked{n}" for n in sorted(chosen)] or ["picked*"]
        with pyscope.record(
            tmp_path / "r.pyscope", modules=globs, backend=backend, ring_mb=1, children=False
        ):
            for module in modules:
                list(module.items())
                module.two()
        trace = pyscope.load(tmp_path / "r.pyscope")
        found = {(f.module, f.qualname): f.calls for f in trace.functions if f.calls}
        expected = {
            (f"picked{n}", name): calls
            for n in chosen or range(3)
            for name, calls in (("items", 1), ("one", 1), ("two", 2))
        }
        assert found == expected, (turn, globs)


@pytest.mark.parametrize("backend", NATIVE)
def test_what_one_recording_excluded_the_next_one_counts(backend: str, record: Record) -> None:
    module = module_of("picked")
    for _ in range(3):
        trace = record(module.one, backend=backend, modules=["*"], exclude=["picked"])
        assert not [f for f in trace.functions if f.module == "picked" and f.calls]
        trace = record(module.one, backend=backend, modules=["*"])
        assert {f.qualname: f.calls for f in trace.functions if f.module == "picked"} == {"one": 1, "two": 1}


@pytest.mark.parametrize("backend", ALL)
def test_code_that_ran_hot_before_the_recording_loses_no_call(backend: str, record: Record) -> None:
    class Thing:
        def __init__(self, n: int) -> None:
            self.n = n

        def __getitem__(self, n: int) -> int:
            return n

        @property
        def value(self) -> int:
            return self.n

        def items(self) -> Iterator[int]:
            yield self.n

        def relayed(self) -> Iterator[int]:
            yield from self.items()

    class Refused(Thing):
        def __init__(self, n: int) -> None:
            raise ValueError(n)

    def hot() -> None:
        for n in range(100):
            thing = Thing(n)
            thing[n]
            thing.value
            for _ in thing.relayed():
                leaf(n)
            try:
                Refused(n)
            except ValueError:
                pass

    hot()  # the interpreter has specialised it, and inlines what it may
    trace = record(hot, backend=backend)
    found = {name.rpartition("<locals>.")[2]: calls for name, calls in counts(trace).items()}

    assert found == {
        "hot": 1, "leaf": 100, "Thing.__init__": 100, "Refused.__init__": 100, "Thing.__getitem__": 100,
        "Thing.value": 100, "Thing.items": 100, "Thing.relayed": 100,
    }  # fmt: skip
    assert {c.outcome for c in trace.find(function="*Refused.__init__")} == {"raised"}


@pytest.mark.parametrize("backend", ALL)
def test_arity_counts_parameters_without_self_and_cls(backend: str, record: Record) -> None:
    class Shape:
        def area(self, a: int, b: int = 0, *, c: int = 0) -> None: ...

        @classmethod
        def made(cls, a: int) -> None: ...

        @staticmethod
        def still(a: int, /, *rest: int, **names: int) -> None: ...

    def body() -> None:
        Shape().area(1)
        Shape.made(1)
        Shape.still(1, 2, x=3)
        (lambda: None)()

    found = {f.name: f.arity for f in record(body, backend=backend).functions}

    assert {name: found[name] for name in ("area", "made", "still", "<lambda>")} == {
        "area": 3, "made": 1, "still": 1, "<lambda>": 0,
    }  # fmt: skip


# --- C calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", NATIVE)
def test_a_c_calls_block_arms_only_the_thread_that_enters_it(backend: str, tmp_path: Path) -> None:
    def work(times: int) -> None:
        for _ in range(times):
            abs(-1)

    with pyscope.record(tmp_path / "r.pyscope", modules=[__name__], backend=backend) as recording:
        inside, go_on = threading.Event(), threading.Event()

        def other() -> None:
            inside.wait(30)
            work(7)
            go_on.set()

        thread = threading.Thread(target=other, name="other")
        thread.start()
        work(3)
        with recording.c_calls(), recording.c_calls():
            work(20)
            inside.set()
            go_on.wait(30)
        thread.join()
        work(5)
        profiler = sys.getprofile()

    trace = pyscope.load(tmp_path / "r.pyscope")
    assert counts(trace)["test_a_c_calls_block_arms_only_the_thread_that_enters_it.<locals>.work"] == 4
    assert c_calls(trace, "abs") == (20 if backend != "setprofile" else 0)
    assert profiler is None or backend == "setprofile"


@pytest.mark.parametrize("backend", NATIVE[:2])
def test_a_budget_records_c_calls_in_windows_and_places_the_gaps(backend: str, record: Record) -> None:
    done = 0

    def body() -> None:
        nonlocal done
        end = time.monotonic() + 1.3
        while time.monotonic() < end:
            for _ in range(20):
                done += 1
                leaf(abs(-1))

    trace = record(
        lambda: [body() for _ in range(1)],
        backend=backend,
        detail="c_calls",
        budget="5%",
        keep=[__name__],
        ring_mb=64,
    )
    gaps = [loss for loss in trace.losses if loss.reason == "duty_cycle"]

    assert counts(trace)["leaf"] == done
    assert 0 < c_calls(trace, "abs") < done
    assert gaps
    assert all(trace.start_ns <= gap.start_ns < gap.end_ns <= trace.end_ns for gap in gaps)
    starts = [c.start_ns for c in trace.find(function="abs")]
    assert not any(
        gap.start_ns < start < gap.end_ns for gap in gaps for start in starts[:: len(starts) // 50 + 1]
    )


# --- flight mode ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", NATIVE)
def test_flight_mode_keeps_the_latest_calls(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "flight.pyscope"
    with pyscope.record(modules=[__name__], backend=backend, mode="flight", ring_mb=1) as recording:
        calls_leaf(200_000)
        down(50)
        recording.dump(path)
    trace = pyscope.load(path)

    assert counts(trace)["down"] == 51
    assert 10_000 < counts(trace)["leaf"] < 200_000
    assert "overwritten" in {loss.reason for loss in trace.losses}


@pytest.mark.parametrize("backend", NATIVE)
@pytest.mark.parametrize("turns", [5, 40_000], ids=["few", "more than the ring holds"])
def test_a_task_and_its_greenlet_by_turns_keep_their_names(backend: str, turns: int, tmp_path: Path) -> None:
    path = tmp_path / "flight.pyscope"
    seen: list[str] = []

    def work() -> None:
        for _ in range(turns):
            leaf(1)
            greenlet.getcurrent().parent.switch()

    async def main() -> None:
        inner = greenlet.greenlet(work)
        inner.switch()
        for _ in range(turns - 1):
            leaf(1)
            inner.switch()
        recording.dump(path)
        seen.append("end")

    async def named() -> None:
        await asyncio.create_task(main(), name="by turns")

    with pyscope.record(modules=[__name__], backend=backend, mode="flight", ring_mb=1) as recording:
        asyncio.run(named())
    trace = pyscope.load(path)
    leaves = [c.context for c in trace.find(function="leaf")]
    by_context = collections.Counter(leaves)

    assert seen == ["end"]
    assert set(by_context) == {"by turns", "greenlet-3"}
    assert abs(by_context["by turns"] - by_context["greenlet-3"]) <= 1
    assert all(one != other for one, other in itertools.pairwise(leaves))
    assert (len(leaves) == 2 * turns - 1) == (turns == 5)


# --- recursion: the program meets its limits where it would without us ------------------------------

RECURSION = """
    import os, sys, threading
    depth = 0
    def plain():
        global depth; depth += 1
        plain()
    def generator():
        global depth; depth += 1
        yield from generator()
    async def coroutine():
        global depth; depth += 1
        await coroutine()
    class Item:
        def __getitem__(self, n):
            global depth; depth += 1
            return self[n]
        @property
        def value(self):
            global depth; depth += 1
            return self.value
    def nested():
        value = []
        for _ in range(100000): value = [value]
        repr(value)
    shape, backend, limit, stack = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    def run():
        if limit: sys.setrecursionlimit(limit)
        try:
            {"plain": plain, "generator": lambda: list(generator()), "getitem": lambda: Item()[0],
             "property": lambda: Item().value, "nested": nested,
             "coroutine": lambda: coroutine().send(None)}[shape]()
        except RecursionError as error:
            print("left at", depth, error)
    def here_or_there():
        if not stack: return run()
        threading.stack_size(stack)
        thread = threading.Thread(target=run)
        thread.start(); thread.join()
    if backend == "untraced":
        here_or_there()
    else:
        import pyscope
        path = sys.argv[5]
        with pyscope.record(path, modules=["__main__"], backend=backend) as recording:
            here_or_there()
        trace = pyscope.load(path)
        calls = sum(f.calls for f in trace.functions)
        stepped_aside = any(loss.reason == "stack_guard" for loss in trace.losses)
        assert calls >= depth or stepped_aside or backend == "python", (calls, trace.losses)
        # the hook of backend python needs some of the depth itself: calls just before the limit are faults there
        assert recording.figures["clean"], recording.figures
        assert not recording.figures["faults"] or backend == "python", recording.figures
"""


def recursion(shape: str, backend: str, limit: int, stack: int, folder: Path) -> tuple[int, str, str]:
    """Exit code and output of a program that recurses without end."""
    program = folder / "recursion.py"
    program.write_text(textwrap.dedent(RECURSION))
    arguments = [shape, backend, str(limit), str(stack), str(folder / "r.pyscope")]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    # 3.14 says how much of the C stack was used: its place in memory is another each time
    return done.returncode, re.sub(r"used \d+ kB", "used so much", done.stdout), done.stderr


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("shape", ["plain", "generator", "coroutine", "getitem", "property", "nested"])
def test_recursion_ends_at_the_default_limit_as_it_does_untraced(
    shape: str, backend: str, tmp_path: Path
) -> None:
    expected = recursion(shape, "untraced", 0, 0, tmp_path)
    assert expected[0] == 0
    if backend == "python":  # its own frames need room: the program meets the limit some frames earlier
        code, output, errors = recursion(shape, backend, 0, 0, tmp_path)
        assert (code, output[:8]) == (0, "left at "), errors
        return
    if backend == "frame" and sys.version_info >= (3, 14) and shape in ("getitem", "property"):
        # Once specialised, these calls go past the limit there until something else looks at it: with a frame hook they
        # are not, and end where it stands.
        code, output, errors = recursion(shape, backend, 0, 0, tmp_path)
        left_at, expected_at = (int(text.split()[2]) for text in (output, expected[1]))
        assert code == 0, errors
        assert 990 < left_at <= expected_at
        return

    assert recursion(shape, backend, 0, 0, tmp_path) == expected


@pytest.mark.parametrize("backend", NATIVE)
@pytest.mark.parametrize(("limit", "stack"), [(50_000, 0), (5_000, 256 << 10)])
@pytest.mark.parametrize("shape", ["plain", "generator", "coroutine", "getitem", "property"])
def test_deep_recursion_that_the_program_allows_itself_goes_as_deep_as_untraced(
    shape: str, limit: int, stack: int, backend: str, tmp_path: Path
) -> None:
    expected = recursion(shape, "untraced", limit, stack, tmp_path)
    if expected[0] != 0:
        pytest.skip("this program overflows the C stack without being traced, too")
    if backend == "setprofile" and sys.version_info < (3, 12) and shape == "getitem":
        pytest.skip("3.11 does not inline __getitem__ under any profile function: the C stack overflows")

    assert recursion(shape, backend, limit, stack, tmp_path) == expected
