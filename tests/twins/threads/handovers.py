"""One thread at a time, by start and join, queues, events, conditions, barriers, futures, and locks used as signals."""

from __future__ import annotations

import _thread
import queue
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from multiprocessing.pool import ThreadPool

from tests.twins.races import RaceCase, Stage


class Work:
    def __init__(self) -> None:
        self.total = 0
        self.state = "new"
        self.result: int | None = None
        self.lock = threading.Lock()


def _add(work: Work, value: int) -> None:
    total = work.total
    work.total = total + value


def fork_join_faulty(stage: Stage) -> None:
    work = stage.watch(Work())

    def main() -> None:
        total = work.total
        stage.pause()
        work.total = total + 1

    stage.together(main, lambda: _add(work, 2))


def fork_join_fixed(stage: Stage) -> None:
    work = stage.watch(Work())
    _add(work, 1)
    for value in (2, 3):
        thread = threading.Thread(target=_add, args=(work, value))
        thread.start()
        thread.join()
        _add(work, 1)
    assert work.total == 8


def queue_faulty(stage: Stage) -> None:
    """The producer goes on with what it has handed over."""
    work, tasks = stage.watch(Work()), queue.Queue[Work]()

    def produce() -> None:
        total = work.total
        tasks.put(work)
        stage.pause()
        work.total = total + 1

    stage.together(produce, lambda: _add(tasks.get(), 2))


def queue_fixed(stage: Stage) -> None:
    work, tasks, done = stage.watch(Work()), queue.Queue[Work](), queue.Queue[Work]()

    def produce() -> None:
        _add(work, 1)
        tasks.put(work)
        stage.pause()
        _add(done.get(), 1)

    def consume() -> None:
        work = tasks.get()
        _add(work, 2)
        done.put(work)

    stage.together(produce, consume)
    assert work.total == 4


def simple_queue_faulty(stage: Stage) -> None:
    work, tasks = stage.watch(Work()), queue.SimpleQueue()

    def produce() -> None:
        if work.state == "new":
            tasks.put(work)
            stage.pause()
            work.state = "queued"

    def consume() -> None:
        tasks.get().state = "running"

    stage.together(produce, consume)


def simple_queue_fixed(stage: Stage) -> None:
    work, tasks = stage.watch(Work()), queue.SimpleQueue()

    def produce() -> None:
        if work.state == "new":
            work.state = "queued"
            tasks.put(work)
            stage.pause()

    def consume() -> None:
        work = tasks.get()
        if work.state == "queued":
            work.state = "running"

    stage.together(produce, consume)


def queue_join_faulty(stage: Stage) -> None:
    work, tasks = stage.watch(Work()), queue.Queue()

    def produce() -> None:
        tasks.put(2)
        total = work.total
        stage.pause()
        work.total = total + 1

    def consume() -> None:
        _add(work, tasks.get())
        tasks.task_done()

    stage.together(produce, consume)


def queue_join_fixed(stage: Stage) -> None:
    work, tasks = stage.watch(Work()), queue.Queue()

    def produce() -> None:
        tasks.put(2)
        stage.pause()
        tasks.join()
        _add(work, 1)

    def consume() -> None:
        _add(work, tasks.get())
        tasks.task_done()

    stage.together(produce, consume)


def event_faulty(stage: Stage) -> None:
    """Ready is said too early."""
    work, ready = stage.watch(Work()), threading.Event()

    def prepare() -> None:
        total = work.total
        ready.set()
        stage.pause()
        work.total = total + 1

    def use() -> None:
        ready.wait()
        _add(work, 2)

    stage.together(prepare, use)


def event_fixed(stage: Stage) -> None:
    work, ready = stage.watch(Work()), threading.Event()

    def prepare() -> None:
        total = work.total
        stage.pause()
        work.total = total + 1
        ready.set()

    def use() -> None:
        ready.wait()
        _add(work, 2)

    stage.together(prepare, use)
    assert work.total == 3


def condition_faulty(stage: Stage) -> None:
    """Whoever is woken does not look again."""
    work, changed = stage.watch(Work()), threading.Condition()
    work.total = 1

    def take() -> None:
        with changed:
            enough = work.total >= 1
        stage.pause()
        if enough:
            with changed:
                work.total -= 1

    stage.together(take, take)
    assert work.total == -1


def condition_fixed(stage: Stage) -> None:
    work, changed = stage.watch(Work()), threading.Condition()

    def take() -> None:
        with changed:
            while work.total < 1:
                stage.pause()
                changed.wait()
            work.total -= 1

    def put() -> None:
        with changed:
            work.total += 1
            changed.notify()

    stage.together(take, put)
    assert work.total == 0


def mutex_as_semaphore_faulty(stage: Stage) -> None:
    work = stage.watch(Work())
    finished = threading.Lock()

    def wait_for_it() -> None:
        total = work.total
        stage.pause()
        finished.acquire(blocking=False)
        work.total = total + 1

    stage.together(wait_for_it, lambda: _add(work, 2))


def mutex_as_semaphore_fixed(stage: Stage) -> None:
    """The lock is released by another thread than the one that acquired it: a signal."""
    work = stage.watch(Work())
    finished = threading.Lock()
    finished.acquire()

    def wait_for_it() -> None:
        stage.pause()
        finished.acquire()
        _add(work, 1)

    def do_it() -> None:
        _add(work, 2)
        finished.release()

    stage.together(wait_for_it, do_it)


def semaphore_signal_faulty(stage: Stage) -> None:
    work, ready = stage.watch(Work()), threading.Semaphore(0)

    def produce() -> None:
        total = work.total
        ready.release()
        stage.pause()
        work.total = total + 1

    def consume() -> None:
        ready.acquire()
        _add(work, 2)

    stage.together(produce, consume)


def semaphore_signal_fixed(stage: Stage) -> None:
    work, ready, back = stage.watch(Work()), threading.Semaphore(0), threading.Semaphore(0)

    def produce() -> None:
        _add(work, 1)
        ready.release()
        stage.pause()
        back.acquire()
        _add(work, 1)

    def consume() -> None:
        ready.acquire()
        _add(work, 2)
        back.release()

    stage.together(produce, consume)


def future_faulty(stage: Stage) -> None:
    work = stage.watch(Work())
    with ThreadPoolExecutor(2) as pool:
        total = work.total
        ended = _thread.allocate_lock()
        ended.acquire()

        def add() -> None:
            _add(work, 2)
            ended.release()

        pool.submit(add)
        ended.acquire()  # the future itself is never asked
        work.total = total + 1


def future_fixed(stage: Stage) -> None:
    work = stage.watch(Work())
    with ThreadPoolExecutor(2) as pool:
        for value in (1, 2, 3):
            pool.submit(_add, work, value).result()
            _add(work, 1)
    assert work.total == 9


def executor_faulty(stage: Stage) -> None:
    work = stage.watch(Work())
    with ThreadPoolExecutor(2) as pool:
        gate = threading.Barrier(2)

        def add(value: int) -> None:
            gate.wait()
            _add(work, value)

        wait([pool.submit(add, value) for value in (1, 2)])


def executor_fixed(stage: Stage) -> None:
    """Workers compute, one thread adds up."""
    work = stage.watch(Work())
    with ThreadPoolExecutor(2) as pool:
        for future in as_completed([pool.submit(abs, -value) for value in (1, 2)]):
            _add(work, future.result())
    assert work.total == 3


def _doubled(work: Work) -> Work:
    _add(work, work.total)
    return work


def thread_pool_faulty(stage: Stage) -> None:
    work = stage.watch(Work())
    touched = _thread.allocate_lock()
    touched.acquire()

    def double() -> None:
        with touched:
            _doubled(work)

    with ThreadPool(2) as pool:
        result = pool.apply_async(double)
        _add(work, 1)  # it may be at work by now
        touched.release()
        result.get()


def thread_pool_fixed(stage: Stage) -> None:
    """What was handed to a pool's threads is touched again once they have handed it back."""
    with ThreadPool(2) as pool:
        works = [stage.watch(Work()) for _ in range(4)]
        for hand_out in (pool.map, pool.imap, pool.imap_unordered):
            for work in hand_out(_doubled, works):
                _add(work, 1)
        _add(pool.apply_async(_doubled, (works[0],)).get(), 1)


def barrier_faulty(stage: Stage) -> None:
    work = stage.watch(Work())
    barrier = threading.Barrier(2)

    def both(value: int) -> None:
        barrier.wait()
        _add(work, value)

    threads = [threading.Thread(target=both, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def barrier_fixed(stage: Stage) -> None:
    work = stage.watch(Work())
    barrier = threading.Barrier(2)

    def first() -> None:
        _add(work, 1)
        stage.pause()
        barrier.wait()
        barrier.wait()
        _add(work, 1)

    def second() -> None:
        barrier.wait()
        _add(work, 2)
        barrier.wait()

    stage.together(first, second)


def timer_faulty(stage: Stage) -> None:
    work = stage.watch(Work())
    timer = threading.Timer(0, _add, (work, 2))
    timer.start()
    _add(work, 1)
    timer.join()


def timer_fixed(stage: Stage) -> None:
    work = stage.watch(Work())
    _add(work, 1)
    timer = threading.Timer(0, _add, (work, 2))
    timer.start()
    timer.join()
    _add(work, 1)


_LOST = ("lost_update", "Work.total", "observed")
_MAYBE = ("lost_update", "Work.total", "possible")
CASES = [
    RaceCase("fork and join", fork_join_faulty, fork_join_fixed, _LOST),
    RaceCase("queue", queue_faulty, queue_fixed, _LOST),
    RaceCase(
        "simple queue", simple_queue_faulty, simple_queue_fixed, ("check_then_act", "Work.state", "observed")
    ),
    RaceCase("queue join", queue_join_faulty, queue_join_fixed, _LOST),
    RaceCase("event", event_faulty, event_fixed, _LOST),
    RaceCase("condition", condition_faulty, condition_fixed, ("check_then_act", "Work.total", "observed")),
    RaceCase("mutex as semaphore", mutex_as_semaphore_faulty, mutex_as_semaphore_fixed, _LOST),
    RaceCase("semaphore as signal", semaphore_signal_faulty, semaphore_signal_fixed, _LOST),
    RaceCase("future", future_faulty, future_fixed, _LOST),
    RaceCase("executor", executor_faulty, executor_fixed, _MAYBE),
    RaceCase("a pool of threads", thread_pool_faulty, thread_pool_fixed, _MAYBE),
    RaceCase("barrier", barrier_faulty, barrier_fixed, _MAYBE),
    RaceCase("timer", timer_faulty, timer_fixed, _MAYBE),
]
