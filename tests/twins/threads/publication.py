"""Objects that are complete before others see them, that nobody changes any more, or that only one thread has."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tests.twins.races import RaceCase, Stage


class Settings:
    def __init__(self) -> None:
        self.table: Any = MappingProxyType({})
        self.version = 0
        self.hits = 0
        self.lock = threading.Lock()


@dataclass
class Session:
    user: str = ""
    requests: int = 0
    lock: Any = field(default_factory=threading.Lock)


def copy_on_write_faulty(stage: Stage) -> None:
    settings = stage.watch(Settings())

    def put(key: str) -> None:
        table = dict(settings.table)
        stage.pause()
        table[key] = 1
        settings.table = MappingProxyType(table)

    stage.together(lambda: put("a"), lambda: put("b"))
    assert set(settings.table) == {"a"}


def copy_on_write_fixed(stage: Stage) -> None:
    settings = stage.watch(Settings())

    def put(key: str) -> None:
        with settings.lock:
            table = dict(settings.table)
            table[key] = 1
            settings.table = MappingProxyType(table)

    def read() -> None:
        first = settings.table.get("a")
        stage.pause()
        assert settings.table.get("b", 1) == 1, first

    put("a")
    stage.together(read, lambda: put("b"))


def start_before_init_faulty(stage: Stage) -> None:
    settings = stage.watch(Settings())

    def init() -> None:
        version = settings.version
        stage.pause()
        settings.version = version + 1

    def bump() -> None:
        settings.version += 1

    stage.together(init, bump)


def init_before_start_fixed(stage: Stage) -> None:
    settings = stage.watch(Settings())
    settings.version = settings.version + 1
    settings.table = MappingProxyType({"a": 1})

    def use() -> None:
        stage.pause()
        assert settings.version == 1
        assert settings.table["a"] == 1

    stage.together(use, use)


def counts_hits_faulty(stage: Stage) -> None:
    """Readers that write."""
    settings = stage.watch(Settings())

    def get() -> Any:
        hits = settings.hits
        stage.pause()
        settings.hits = hits + 1
        return settings.table

    stage.together(get, get)


def read_only_fixed(stage: Stage) -> None:
    settings = stage.watch(Settings())
    settings.table = MappingProxyType({"a": 1})

    def get() -> int:
        stage.pause()
        if settings.version == 0:
            return settings.table["a"] + settings.hits
        return 0

    stage.together(get, get)


def shared_session_faulty(stage: Stage) -> None:
    session = stage.watch(Session())

    def handle() -> None:
        requests = session.requests
        stage.pause()
        session.requests = requests + 1

    stage.together(handle, handle)


def thread_local_fixed(stage: Stage) -> None:
    local = threading.local()

    def handle() -> None:
        local.session = stage.watch(Session())
        requests = local.session.requests
        stage.pause()
        local.session.requests = requests + 1
        assert local.session.requests == 1

    stage.together(handle, handle)


def dataclass_lock_faulty(stage: Stage) -> None:
    session = stage.watch(Session())

    def name(user: str) -> None:
        if not session.user:
            stage.pause()
            with session.lock:
                session.user = user

    stage.together(lambda: name("a"), lambda: name("b"))


def dataclass_lock_fixed(stage: Stage) -> None:
    """The lock comes from a factory that was taken before anybody watched."""
    session = stage.watch(Session())

    def name(user: str) -> None:
        with session.lock:
            if not session.user:
                stage.pause()
                session.user = user

    stage.together(lambda: name("a"), lambda: name("b"))
    assert session.user == "a"


def stop_flag_faulty(stage: Stage) -> None:
    """A flag that is taken back as well."""
    settings = stage.watch(Settings())

    def restart() -> None:
        if settings.version == 0:
            stage.pause()
            settings.version = 1

    stage.together(restart, restart)


def stop_flag_fixed(stage: Stage) -> None:
    """A flag that one thread sets and another only looks at."""
    settings = stage.watch(Settings())

    def work() -> None:
        while settings.version == 0:
            stage.pause()

    def stop() -> None:
        settings.version = 1

    stage.together(work, stop)


def unrelated_check_faulty(stage: Stage) -> None:
    settings = stage.watch(Settings())

    def count() -> None:
        if settings.hits < 1:
            stage.pause()
            settings.hits += 1

    stage.together(count, count)


def unrelated_check_fixed(stage: Stage) -> None:
    """The check decides only about a message; the increment is guarded."""
    settings = stage.watch(Settings())
    messages = []

    def count() -> None:
        if settings.hits % 100 == 0:
            messages.append("another hundred")
        stage.pause()
        with settings.lock:
            settings.hits += 1

    stage.together(count, count)
    assert settings.hits == 2


def dropped_answer_faulty(stage: Stage) -> None:
    settings = stage.watch(Settings())

    def is_new() -> bool:
        return settings.version == 0

    def work() -> None:
        if is_new():
            stage.pause()
            settings.version = 2

    def other() -> None:
        settings.version = 1

    stage.together(work, other)


def dropped_answer_fixed(stage: Stage) -> None:
    """A check whose answer nobody takes, and one that is only shown."""
    settings = stage.watch(Settings())

    def is_new() -> bool:
        return settings.version == 0

    def work() -> None:
        is_new()
        stage.pause()
        settings.version = 2

    def show() -> None:
        str(settings.version == 0)
        stage.pause()
        settings.version = 2

    def other() -> None:
        settings.version = 1

    stage.together(work, other)
    stage.together(show, other)


class Refreshed:
    """A value that is loaded anew by whoever asks, all under one lock."""

    def __init__(self) -> None:
        self.value = 1
        self.stale = True
        self.lock = threading.Lock()

    def get(self) -> int:
        with self.lock:
            if self.stale:
                self.value = len(str(self.lock))
            return self.value

    def set(self, value: int) -> None:
        with self.lock:
            self.value = value


def refreshed_faulty(stage: Stage) -> None:
    refreshed = stage.watch(Refreshed())

    def work() -> None:
        value = refreshed.get()
        stage.pause()
        refreshed.set(value + 1)

    stage.together(work, refreshed.get)


def refreshed_if_small_faulty(stage: Stage) -> None:
    refreshed = stage.watch(Refreshed())

    def work() -> None:
        value = refreshed.get()
        stage.pause()
        if value > 0:
            refreshed.set(len(str(stage)))

    stage.together(work, refreshed.get)


def refreshed_fixed(stage: Stage) -> None:
    """What was returned before has no part in what is loaded the next time."""
    refreshed = stage.watch(Refreshed())
    seen = []

    def work() -> None:
        for _ in range(2):
            value = refreshed.get()
            stage.pause()
            seen.append(str(value))

    stage.together(work, refreshed.get)


_VERSION = ("lost_update", "Settings.version", "observed")
CASES = [
    RaceCase(
        "copy on write",
        copy_on_write_faulty,
        copy_on_write_fixed,
        ("lost_update", "Settings.table", "observed"),
    ),
    RaceCase("init before start", start_before_init_faulty, init_before_start_fixed, _VERSION),
    RaceCase("read only", counts_hits_faulty, read_only_fixed, ("lost_update", "Settings.hits", "observed")),
    RaceCase(
        "confined to a thread",
        shared_session_faulty,
        thread_local_fixed,
        ("lost_update", "Session.requests", "observed"),
    ),
    RaceCase(
        "a dataclass's lock",
        dataclass_lock_faulty,
        dataclass_lock_fixed,
        ("check_then_act", "Session.user", "observed"),
    ),
    RaceCase(
        "stop flag", stop_flag_faulty, stop_flag_fixed, ("check_then_act", "Settings.version", "observed")
    ),
    RaceCase(
        "a check of no consequence",
        unrelated_check_faulty,
        unrelated_check_fixed,
        ("check_then_act", "Settings.hits", "observed"),
    ),
    RaceCase(
        "a check whose answer is dropped",
        dropped_answer_faulty,
        dropped_answer_fixed,
        ("check_then_act", "Settings.version", "observed"),
    ),
    RaceCase(
        "a getter that refreshes",
        refreshed_faulty,
        refreshed_fixed,
        ("lost_update", "Refreshed.value", "observed"),
    ),
    RaceCase(
        "a getter that refreshes, and a decision",
        refreshed_if_small_faulty,
        refreshed_fixed,
        ("lost_update", "Refreshed.value", "observed"),
    ),
]
