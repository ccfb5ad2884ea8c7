"""Dicts, lists and sets that an attribute holds, changed in place by two threads."""

from __future__ import annotations

import threading
from collections import deque

from tests.twins.races import RaceCase, Stage


class Cache:
    def __init__(self) -> None:
        self.entries: dict[str, object] = {}
        self.counts: dict[str, int] = {}
        self.names: set[str] = set()
        self.lock = threading.Lock()


class Pool:
    def __init__(self) -> None:
        self.capacity = 3
        self.items: list[int] = [1, 2]
        self.waiting: deque[int] = deque([1])
        self.lock = threading.Lock()


def get_or_create_faulty(stage: Stage) -> None:
    cache = stage.watch(Cache())

    def get(key: str) -> object:
        if key not in cache.entries:
            stage.pause()
            cache.entries[key] = object()
        return cache.entries[key]

    stage.together(lambda: get("a"), lambda: get("a"))


def get_or_create_fixed(stage: Stage) -> None:
    cache = stage.watch(Cache())

    def get(key: str) -> object:
        with cache.lock:
            if key not in cache.entries:
                stage.pause()
                cache.entries[key] = object()
            return cache.entries[key]

    stage.together(lambda: get("a"), lambda: get("a"))


def get_is_none_faulty(stage: Stage) -> None:
    cache = stage.watch(Cache())

    def get(key: str) -> None:
        if cache.entries.get(key) is None:
            stage.pause()
            cache.entries[key] = object()

    stage.together(lambda: get("a"), lambda: get("a"))


def other_keys_fixed(stage: Stage) -> None:
    """Each thread has a key of its own."""
    cache = stage.watch(Cache())

    def get(key: str) -> None:
        if cache.entries.get(key) is None:
            stage.pause()
            cache.entries[key] = object()

    stage.together(lambda: get("a"), lambda: get("b"))


def count_by_key_faulty(stage: Stage) -> None:
    cache = stage.watch(Cache())

    def count(key: str) -> None:
        before = cache.counts.get(key, 0)
        stage.pause()
        cache.counts[key] = before + 1

    stage.together(lambda: count("a"), lambda: count("a"))
    assert cache.counts == {"a": 1}


def count_by_key_fixed(stage: Stage) -> None:
    cache = stage.watch(Cache())

    def count(key: str) -> None:
        with cache.lock:
            before = cache.counts.get(key, 0)
            stage.pause()
            cache.counts[key] = before + 1

    stage.together(lambda: count("a"), lambda: count("a"))
    assert cache.counts == {"a": 2}


def bounded_append_faulty(stage: Stage) -> None:
    pool = stage.watch(Pool())

    def put(item: int) -> None:
        if len(pool.items) < pool.capacity:
            stage.pause()
            pool.items.append(item)

    stage.together(lambda: put(3), lambda: put(4))
    assert len(pool.items) == 4


def bounded_append_fixed(stage: Stage) -> None:
    pool = stage.watch(Pool())

    def put(item: int) -> None:
        with pool.lock:
            if len(pool.items) < pool.capacity:
                stage.pause()
                pool.items.append(item)

    stage.together(lambda: put(3), lambda: put(4))
    assert len(pool.items) == 3


def pop_if_any_faulty(stage: Stage) -> None:
    pool = stage.watch(Pool())

    def take() -> None:
        if pool.waiting:
            stage.pause()
            try:
                pool.waiting.popleft()
            except IndexError:
                return

    stage.together(take, take)


def pop_if_any_fixed(stage: Stage) -> None:
    pool = stage.watch(Pool())

    def take() -> None:
        try:
            pool.waiting.popleft()
        except IndexError:
            return
        stage.pause()

    stage.together(take, take)


def unique_name_faulty(stage: Stage) -> None:
    cache = stage.watch(Cache())

    def register(name: str) -> None:
        if name in cache.names:
            raise ValueError(name)
        stage.pause()
        cache.names.add(name)

    stage.together(lambda: register("x"), lambda: register("x"))


def unique_name_fixed(stage: Stage) -> None:
    cache = stage.watch(Cache())

    def register(name: str) -> None:
        with cache.lock:
            if name in cache.names:
                return
            stage.pause()
            cache.names.add(name)

    stage.together(lambda: register("x"), lambda: register("x"))


def iterate_faulty(stage: Stage) -> None:
    pool = stage.watch(Pool())
    seen = []

    def each() -> None:
        for item in pool.items:
            stage.pause()
            seen.append(item * pool.capacity)

    stage.together(each, lambda: pool.items.remove(1))
    assert seen == [3]


def iterate_fixed(stage: Stage) -> None:
    pool = stage.watch(Pool())
    seen = []

    def each() -> None:
        for item in list(pool.items):
            stage.pause()
            seen.append(item * pool.capacity)

    stage.together(each, lambda: pool.items.remove(1))
    assert seen == [3, 6]


def append_only_fixed(stage: Stage) -> None:
    """Appending is one step, and nobody relies on how long the list was."""
    pool = stage.watch(Pool())

    def put(item: int) -> None:
        pool.items.append(item)
        stage.pause()

    stage.together(lambda: put(3), lambda: put(4))


def append_after_length_faulty(stage: Stage) -> None:
    pool = stage.watch(Pool())

    def put(item: int) -> None:
        full = len(pool.items) >= pool.capacity
        stage.pause()
        if not full:
            pool.items.append(item)

    stage.together(lambda: put(3), lambda: put(4))


def setdefault_fixed(stage: Stage) -> None:
    cache = stage.watch(Cache())

    def get(key: str) -> object:
        if key not in cache.entries:
            stage.pause()
            return cache.entries.setdefault(key, object())
        return cache.entries[key]

    stage.together(lambda: get("a"), lambda: get("a"))


def key_of_an_object_faulty(stage: Stage) -> None:
    """The key is an attribute of something else."""
    cache = stage.watch(Cache())

    class Task:
        def __init__(self) -> None:
            self.id = 7

    def get(task: Task) -> None:
        if task.id not in cache.entries:
            stage.pause()
            cache.entries[task.id] = task

    stage.together(lambda: get(Task()), lambda: get(Task()))


CASES = [
    RaceCase(
        "get or create",
        get_or_create_faulty,
        get_or_create_fixed,
        ("check_then_act", "Cache.entries", "observed"),
    ),
    RaceCase(
        "keys of their own",
        get_is_none_faulty,
        other_keys_fixed,
        ("check_then_act", "Cache.entries", "observed"),
    ),
    RaceCase(
        "count by key", count_by_key_faulty, count_by_key_fixed, ("lost_update", "Cache.counts", "observed")
    ),
    RaceCase(
        "bounded append",
        bounded_append_faulty,
        bounded_append_fixed,
        ("check_then_act", "Pool.items", "observed"),
    ),
    RaceCase(
        "pop if any", pop_if_any_faulty, pop_if_any_fixed, ("check_then_act", "Pool.waiting", "observed")
    ),
    RaceCase(
        "unique name", unique_name_faulty, unique_name_fixed, ("check_then_act", "Cache.names", "observed")
    ),
    RaceCase("iterate", iterate_faulty, iterate_fixed, ("data_race", "Pool.items", "observed")),
    RaceCase(
        "append by length",
        append_after_length_faulty,
        append_only_fixed,
        ("check_then_act", "Pool.items", "observed"),
    ),
    RaceCase(
        "setdefault",
        key_of_an_object_faulty,
        setdefault_fixed,
        ("check_then_act", "Cache.entries", "observed"),
    ),
]
