"""The probe of synchronisation: what stands for locks behaves as they do, and everything is put back."""

from __future__ import annotations

import _queue
import _thread
import asyncio
import concurrent.futures
import copy
import gc
import inspect
import os
import pickle
import queue
import re
import subprocess
import sys
import threading
import time
import types
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pyscope
from pyscope import probes
from pyscope.events.sync import (
    LOCK,
    SIGNAL,
    TASK,
    THREAD,
    Channel,
    LockStep,
    SignalStep,
    TaskStep,
    ThreadStep,
)
from pyscope.probes.steps import Steps
from pyscope.probes.sync.locks import RAW_LOCK as LockType
from pyscope.probes.sync.locks import RAW_RLOCK as RLockType
from pyscope.trace import Trace

PATCHED: list[tuple[Any, str]] = [
    *((threading, name) for name in ("Lock", "RLock")),
    *((threading.Event, name) for name in ("set", "wait", "is_set")),
    *((threading.Condition, name) for name in ("wait", "wait_for", "notify", "notify_all")),
    *((threading.Semaphore, name) for name in ("__init__", "acquire", "__enter__", "release")),
    *((threading.BoundedSemaphore, name) for name in ("__init__", "release")),
    *((threading.Thread, name) for name in ("start", "join", "is_alive", "_bootstrap_inner")),
    (threading.Barrier, "wait"),
    (queue, "SimpleQueue"),
    (_queue, "SimpleQueue"),
    *((queue.Queue, name) for name in ("put", "get", "join", "task_done")),
    *((concurrent.futures.Future, name) for name in ("set_result", "set_exception", "result", "done")),
    *((concurrent.futures, name) for name in ("wait", "as_completed")),
    *((asyncio.Lock, name) for name in ("acquire", "release")),
    *((asyncio.Semaphore, name) for name in ("__init__", "acquire", "release")),
    *((asyncio.Event, name) for name in ("set", "wait", "is_set")),
    *((asyncio.Condition, name) for name in ("wait", "notify")),
    *((asyncio.Queue, name) for name in ("put_nowait", "get_nowait", "join", "task_done")),
    (asyncio.Barrier, "wait"),
    *((asyncio.BaseEventLoop, name) for name in ("create_task", "create_future", "call_soon_threadsafe")),
]


@pytest.fixture
def probe() -> Iterator[None]:
    held = probes.acquire(["sync"])
    yield
    probes.release(held)


class Recorded:
    """A recording in progress; `trace` ends it."""

    def __init__(self, path: Path) -> None:
        self._recording = pyscope.record(path, modules=["test_*"], ring_mb=4)
        self._path = path
        self._recording.__enter__()

    def trace(self) -> Trace:
        self._recording.__exit__()
        return pyscope.load(self._path)


@pytest.fixture
def recorded(probe: None, tmp_path: Path) -> Iterator[Recorded]:
    recording = Recorded(tmp_path / "sync.pyscope")
    yield recording
    if pyscope.recorder.active() is not None:
        recording.trace()


def _steps(trace: Trace) -> list[int]:
    return list(trace.probe_events(LOCK)["step"].tolist())


def test_installing_and_removing_leaves_everything_as_it_was() -> None:
    before = [vars(owner)[name] for owner, name in PATCHED]
    held = probes.acquire(["sync"])
    during = [vars(owner)[name] for owner, name in PATCHED]
    probes.release(held)
    assert [vars(owner)[name] for owner, name in PATCHED] == before
    assert all(mine is not its for mine, its in zip(during, before, strict=True))


def test_two_probes_that_replace_the_same_thing_leave_it_as_it_was_in_whatever_order_they_go() -> None:
    from pyscope.probes.patches import Patches

    before = vars(threading.Thread)["start"]
    first, second, third = Patches(), Patches(), Patches()
    for patches in (first, second, third):
        patches.replace(threading.Thread, "start", lambda original: lambda self: original(self))
    for patches in (second, first, third):
        patches.undo()
    assert vars(threading.Thread)["start"] is before


@pytest.mark.parametrize("factory", ["Lock", "RLock"])
def test_a_lock_behaves_as_the_original(probe: None, factory: str) -> None:
    raw = _thread.allocate_lock() if factory == "Lock" else _thread.RLock()
    lock = getattr(threading, factory)()
    assert type(lock) is not type(raw)
    assert isinstance(lock, type(raw))
    assert lock.__class__ is type(raw)
    assert repr(lock).startswith("<unlocked")
    assert repr(lock).partition(" at ")[0] == repr(raw).partition(" at ")[0]
    assert lock.acquire() is True
    assert repr(lock).startswith("<locked")
    assert lock.release() is None
    with lock as entered:
        assert entered is True
    assert weakref.ref(lock)() is lock
    for tried in (lock, raw):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(tried)
        with pytest.raises(TypeError, match="cannot pickle"):
            copy.deepcopy(tried)
        with pytest.raises(RuntimeError):
            tried.release()
        with pytest.raises(ValueError, match="non-blocking"):
            tried.acquire(False, 1)
        with pytest.raises((ValueError, OverflowError)):
            tried.acquire(True, -2)
        with pytest.raises(TypeError):
            tried.acquire(True, "soon")
        with pytest.raises(AttributeError):
            tried.nothing
    own = {name for name in dir(type(raw)) if not name.startswith("__")}
    assert own <= set(dir(type(lock)))


def test_what_makes_locks_and_queues_is_pickled_and_shown_as_the_original() -> None:
    names = [(threading, "Lock"), (threading, "RLock"), (queue, "SimpleQueue")]
    before = [repr(getattr(module, name)) for module, name in names]
    held = probes.acquire(["sync"])
    try:
        made = [getattr(module, name) for module, name in names]
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert all(pickle.loads(pickle.dumps(each, protocol)) is each for each in made)
        assert all(copy.deepcopy(each) is each for each in made)
        shown = [repr(each) for each in made]
        with pytest.raises(TypeError, match=r"cannot pickle '.*SimpleQueue' object"):
            pickle.dumps(queue.SimpleQueue())
        assert repr(queue.SimpleQueue()).startswith("<_queue.SimpleQueue object at ")
    finally:
        probes.release(held)
    assert [re.sub(" at 0x.*", "", text) for text in shown] == [
        re.sub(" at 0x.*", "", text) for text in before
    ]


def test_a_manager_in_a_spawned_process_starts(tmp_path: Path) -> None:
    program = tmp_path / "shares.py"
    program.write_text(
        "import multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Manager() as manager:\n"
        "        print(dict(manager.dict(a=1)), manager.Lock().acquire(), manager.RLock().acquire())\n"
    )
    arguments = ["-m", "pyscope", "run", "--probes", "sync", "-o", str(tmp_path / "r.pyscope"), str(program)]
    ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)
    assert "{'a': 1} True True" in ran.stdout, ran.stderr


@pytest.mark.parametrize("factory", ["Lock", "RLock"])
def test_a_lock_can_do_whatever_the_original_can(probe: None, factory: str) -> None:
    original = _thread.allocate_lock() if factory == "Lock" else _thread.RLock()
    traced = getattr(threading, factory)()
    assert [name for name in dir(original) if not hasattr(traced, name)] == []
    assert not hasattr(traced, "no_such_thing")
    with traced:
        if hasattr(original, "locked"):  # an RLock's, from 3.14 on
            assert traced.locked()


def test_a_lock_waits_and_gives_up_as_the_original(probe: None) -> None:
    lock = threading.Lock()
    assert lock.acquire(blocking=False)
    assert not lock.acquire(False)
    assert lock.locked()
    began = time.perf_counter()
    assert not lock.acquire(timeout=0.05)
    assert time.perf_counter() - began >= 0.05
    threading.Timer(0.01, lock.release).start()
    assert lock.acquire()
    lock.release()
    assert not lock.locked()


def test_a_reentrant_lock_tells_only_of_its_outermost_acquisition(recorded: Recorded) -> None:
    lock = threading.RLock()
    with lock, lock:
        assert lock._is_owned()
    assert not lock._is_owned()
    assert _steps(recorded.trace()) == [LockStep.ACQUIRED, LockStep.RELEASED]


def test_how_long_a_lock_was_waited_for_is_told(recorded: Recorded) -> None:
    lock = threading.Lock()
    lock.acquire()
    threading.Timer(0.02, lock.release).start()
    lock.acquire()
    locks = recorded.trace().probe_events(LOCK)
    waited = locks["waited_ns"][locks["step"] == LockStep.ACQUIRED].tolist()
    assert waited[0] == 0
    assert waited[1] >= 10_000_000


def test_conditions_work_over_locks_of_both_kinds(probe: None) -> None:
    for lock in (None, threading.Lock(), threading.RLock()):
        condition = threading.Condition(lock)
        ready = []

        def wait(condition: threading.Condition = condition, ready: list[int] = ready) -> None:
            with condition:
                assert condition.wait_for(lambda: ready, timeout=30)

        thread = threading.Thread(target=wait)
        thread.start()
        with condition:
            ready.append(1)
            condition.notify_all()
        thread.join(30)
        assert not thread.is_alive()
        with pytest.raises(RuntimeError):
            condition.notify()
        with condition:
            assert condition.wait(0.001) is False


def test_an_exception_in_a_with_block_releases_the_lock_and_goes_on(probe: None) -> None:
    lock = threading.Lock()
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert not lock.locked()


def test_a_lock_in_a_forked_child_can_be_used(probe: None) -> None:
    lock = threading.Lock()
    lock.acquire()
    child = os.fork()
    if child == 0:
        lock._at_fork_reinit()
        os._exit(0 if lock.acquire(False) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert lock.locked()


def test_locks_that_the_standard_library_makes_for_itself_are_left_alone(probe: None) -> None:
    made = queue.Queue[int]()
    assert type(made.mutex) is LockType
    assert type(threading.Event()._cond._lock) is LockType
    assert type(concurrent.futures.Future[int]()._condition._lock) is RLockType


# --- locks that exist already ----------------------------------------------------------------------


class Holder:
    shared = threading.Lock()

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.condition = threading.Condition()
        self.by_name = {"a": threading.RLock()}
        self.several = [threading.Lock()]


class Slotted:
    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Hostile:
    """Whoever touches it runs its code."""

    touched = 0

    def __getattr__(self, name: str) -> Any:
        Hostile.touched += 1
        raise RuntimeError(name)

    @property
    def lock(self) -> Any:
        Hostile.touched += 1
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        Hostile.touched += 1
        raise RuntimeError

    def __hash__(self) -> int:
        Hostile.touched += 1
        raise RuntimeError

    __repr__ = __bool__ = __iter__ = __len__ = __hash__  # type: ignore[assignment]


def _with_a_lock() -> Any:
    lock = threading.Lock()

    def locked() -> threading.Lock:
        return lock

    return locked


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """A module of the program's that was imported long ago."""
    module = types.ModuleType("shop_of_the_test")
    module.__file__ = __file__
    made = vars(module)
    for kind in (Holder, Slotted, Hostile):
        made[kind.__name__] = type(kind.__name__, (kind,), {"__module__": module.__name__, "__slots__": ()})
    made["Holder"].shared = threading.Lock()
    made |= {
        "LOCK": threading.Lock(),
        "make": threading.Lock,
        "holder": made["Holder"](),
        "slotted": made["Slotted"](),
        "hostile": made["Hostile"](),
        "closure": _with_a_lock(),
        "pair": (threading.Lock(),),
        "Queue": queue.SimpleQueue,
    }
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def _locks(module: Any) -> list[Any]:
    return [
        module.LOCK,
        module.Holder.shared,
        module.holder.lock,
        module.holder.condition._lock,
        module.holder.by_name["a"],
        module.holder.several[0],
        module.slotted.lock,
        module.closure(),
        module.make,
        module.Queue,
    ]


def test_locks_that_exist_are_replaced_where_they_are_referred_to_and_put_back(module: Any) -> None:
    before = _locks(module)
    held = probes.acquire(["sync"])
    during = _locks(module)
    assert module.make is threading.Lock
    probes.release(held)
    assert all(one is other for one, other in zip(_locks(module), before, strict=True))
    assert [
        place for place, (one, other) in enumerate(zip(during, before, strict=True)) if one is other
    ] == []
    assert Hostile.touched == 0


def test_a_lock_that_somebody_holds_while_it_is_replaced_stays_held(module: Any) -> None:
    raw = module.LOCK
    raw.acquire()
    held = probes.acquire(["sync"])
    assert not module.LOCK.acquire(False)
    raw.release()
    with module.LOCK:
        assert raw.locked()
        probes.release(held)
    assert not raw.locked()


def test_what_the_program_has_put_in_its_place_since_stays(module: Any) -> None:
    held = probes.acquire(["sync"])
    mine = module.LOCK = _thread.allocate_lock()
    probes.release(held)
    assert module.LOCK is mine


def test_a_lock_that_cannot_be_replaced_is_known_of(module: Any) -> None:
    held = probes.acquire(["sync"])
    probe: Any = probes.installed("sync")
    unseen = probe.unseen_files
    probes.release(held)
    assert __file__ in unseen
    assert type(module.pair[0]) is LockType


def test_a_condition_that_exists_is_used_on_after_it_was_replaced_and_put_back(module: Any) -> None:
    condition = module.holder.condition
    before = dict(vars(condition))
    held = probes.acquire(["sync"])
    with condition:
        condition.notify_all()
        assert condition.wait(0.001) is False
    probes.release(held)
    after = dict(vars(condition))
    assert after.pop("_lock") is before.pop("_lock")
    assert {name: value for name, value in after.items() if name != "_waiters"} == {
        name: value for name, value in before.items() if name != "_waiters"
    }
    with condition:
        condition.notify()


# --- what is told ----------------------------------------------------------------------------------


def _signals(trace: Trace, kind: Channel) -> list[int]:
    signals = trace.probe_events(SIGNAL)
    return list(signals["step"][signals["kind"] == kind].tolist())


def test_queues_tell_what_was_put_and_taken(recorded: Recorded) -> None:
    items = queue.Queue[int](1), queue.SimpleQueue(), queue.LifoQueue[int]()
    for each in items:
        each.put(1)
        assert each.get() == 1
    with pytest.raises(queue.Empty):
        items[0].get_nowait()
    with pytest.raises(queue.Empty):
        items[1].get(timeout=0.001)
    items[0].put(2)
    with pytest.raises(queue.Full):
        items[0].put(3, timeout=0.001)
    assert items[1].empty()
    assert items[1].qsize() == 0
    assert isinstance(items[1], queue.SimpleQueue)
    assert _signals(recorded.trace(), Channel.QUEUE).count(SignalStep.TAKE) == 3


def test_what_queues_do_inside_is_not_told(recorded: Recorded) -> None:
    items = queue.Queue[int]()
    items.put(1)
    items.get()
    trace = recorded.trace()
    assert _signals(trace, Channel.CONDITION) == []
    assert len(trace.probe_events(LOCK)) == 0


def test_threads_tell_of_their_lives_and_fail_as_ever(recorded: Recorded) -> None:
    thread = threading.Thread(target=lambda: None, name="worker")
    with pytest.raises(RuntimeError, match="before it is started"):
        thread.join()
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match="only be started once"):
        thread.start()
    trace = recorded.trace()
    rows = list(trace.probe_events(THREAD).records())
    assert [row.step for row in rows][:4] == [
        ThreadStep.STARTED,
        ThreadStep.BEGAN,
        ThreadStep.ENDED,
        ThreadStep.JOINED,
    ]
    assert {row.name for row in rows} == {"worker"}
    assert "worker" in [each.name for each in trace.threads]
    assert "run" not in vars(thread)


def test_a_thread_runs_its_own_run_whatever_that_is(recorded: Recorded) -> None:
    ran = []

    class Worker(threading.Thread):
        def run(self) -> None:
            ran.append(self.run.__func__ is Worker.run)  # type: ignore[attr-defined]

    given = threading.Thread(name="given")
    given.run = lambda: ran.append("given")  # type: ignore[method-assign]
    mine = given.run
    for thread in (Worker(), given):
        thread.start()
        thread.join()
    assert ran == [True, "given"]
    assert given.run is mine


def test_executors_work_as_ever(recorded: Recorded) -> None:
    def fail() -> None:
        raise KeyError("k")

    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(fail)
        with pytest.raises(KeyError):
            failing.result()
        assert isinstance(failing.exception(), KeyError)
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
        futures = [pool.submit(abs, -each) for each in range(3)]
        assert {each.result() for each in concurrent.futures.as_completed(futures)} == {0, 1, 2}
        done, pending = concurrent.futures.wait(futures)
        assert len(done) == 3
        assert not pending
        gate = threading.Event()
        waiting = pool.submit(gate.wait)
        with pytest.raises(concurrent.futures.TimeoutError):
            waiting.result(timeout=0.01)
        gate.set()
    with pytest.raises(RuntimeError):
        pool.submit(abs, 1)
    assert _signals(recorded.trace(), Channel.SUBMIT).count(SignalStep.TAKE) == 7


def test_tasks_tell_of_their_lives_and_of_who_waited(recorded: Recorded) -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 1

    async def fail() -> None:
        raise KeyError

    async def main() -> None:
        task = asyncio.create_task(work())
        assert await task == 1
        assert await asyncio.gather(work(), work()) == [1, 1]
        results = await asyncio.gather(fail(), return_exceptions=True)
        assert isinstance(results[0], KeyError)
        sleeping = asyncio.create_task(asyncio.sleep(30))
        await asyncio.sleep(0)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(30), 0.001)

    asyncio.run(main())
    trace = recorded.trace()
    tasks = trace.probe_events(TASK)
    rows = list(tasks.records())
    created = [row.number for row in rows if row.step == TaskStep.CREATED]
    ended = [row.number for row in rows if row.step == TaskStep.ENDED]
    assert set(ended) == set(created)
    outcomes = [row.outcome for row in rows if row.step == TaskStep.ENDED]
    assert outcomes.count("raised") == 1
    assert outcomes.count("cancelled") >= 1
    waited_for = {row.number for row in rows if row.step == TaskStep.JOINED}
    assert set(created[1:5]) <= waited_for


def test_a_request_that_waits_for_a_task_is_seen_to_do_so(recorded: Recorded) -> None:
    async def request() -> None:
        await asyncio.wait({asyncio.create_task(asyncio.sleep(0.001))})

    async def main() -> None:
        await Steps(request())

    asyncio.run(main())
    steps = [row.step for row in recorded.trace().probe_events(TASK).records()]
    assert TaskStep.JOINED in steps


def test_an_exception_that_nobody_asked_for_is_still_complained_of(probe: None, tmp_path: Path) -> None:
    complaints: list[str] = []

    async def fail() -> None:
        raise KeyError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
        task = asyncio.create_task(fail())
        await asyncio.sleep(0.01)
        assert task.done()
        del task
        gc.collect()

    with pyscope.record(tmp_path / "x.pyscope", modules=["test_*"], ring_mb=4):
        asyncio.run(main())
    assert complaints == ["Task exception was never retrieved"]


def test_futures_of_a_loop_behave_as_ever(recorded: Recorded) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        assert isinstance(future, asyncio.Future)
        assert asyncio.isfuture(future)
        with pytest.raises(asyncio.InvalidStateError):
            future.result()
        loop.call_soon(future.set_result, 3)
        assert await future == 3
        assert future.result() == 3
        with pytest.raises(asyncio.InvalidStateError):
            future.set_result(4)
        failing = loop.create_future()
        failing.set_exception(KeyError("k"))
        with pytest.raises(KeyError):
            await failing
        cancelled = loop.create_future()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.001)

    asyncio.run(main())


def test_asyncio_s_locks_are_cancelled_and_time_out_as_ever(recorded: Recorded) -> None:
    async def main() -> None:
        lock, semaphore = asyncio.Lock(), asyncio.BoundedSemaphore(1)
        async with lock:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(lock.acquire(), 0.001)
            waiting = asyncio.create_task(lock.acquire())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert not lock.locked()
        with pytest.raises(RuntimeError):
            lock.release()
        async with semaphore:
            assert semaphore.locked()
        with pytest.raises(ValueError, match="too many times"):
            semaphore.release()
        items = asyncio.Queue[int](1)
        items.put_nowait(1)
        with pytest.raises(asyncio.QueueFull):
            items.put_nowait(2)
        assert await items.get() == 1
        with pytest.raises(asyncio.QueueEmpty):
            items.get_nowait()
        items.task_done()
        await items.join()
        assert inspect.iscoroutinefunction(asyncio.Lock.acquire)

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_eager_tasks_run_at_once_and_are_told(recorded: Recorded) -> None:
    ran = []

    async def work() -> None:
        ran.append(asyncio.current_task())

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        task = asyncio.create_task(work())
        assert ran == [task]
        await task

    asyncio.run(main())
    steps = recorded.trace().probe_events(TASK)["step"].tolist()
    assert steps.count(TaskStep.CREATED) == steps.count(TaskStep.ENDED)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="create_task() took eager_start with 3.14")
def test_a_task_that_is_started_eagerly_is_told_before_what_it_does(recorded: Recorded) -> None:
    async def inner() -> None:
        await asyncio.sleep(0)

    async def outer() -> None:
        await asyncio.create_task(inner())

    async def main() -> None:
        await asyncio.create_task(outer(), eager_start=True)

    asyncio.run(main())
    tasks = recorded.trace().probe_events(TASK)
    created = tasks["step"] == TaskStep.CREATED
    numbers, creators = tasks["number"][created].tolist(), tasks["task"][created].tolist()
    assert creators[1:3] == numbers[:2]  # of main, outer and inner; asyncio.run() makes more at its end


def test_without_a_recording_nothing_is_told_and_everything_works(probe: None) -> None:
    with threading.Lock():
        pass

    async def main() -> None:
        await asyncio.gather(asyncio.sleep(0), asyncio.to_thread(int))

    asyncio.run(main())


def test_what_was_made_while_the_probe_was_there_works_after_it_has_gone() -> None:
    held = probes.acquire(["sync"])
    lock, reentrant, items = threading.Lock(), threading.RLock(), queue.SimpleQueue()
    condition = threading.Condition()
    factory = threading.Lock
    items.put(1)
    probes.release(held)
    with lock, reentrant, condition:
        condition.notify()
    assert items.get() == 1
    assert type(factory()) is LockType
