"""The same lock on both sides, or not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from tests.twins.races import RaceCase, Stage


class Stock:
    def __init__(self) -> None:
        self.count = 10
        self.price = 100
        self.lock = threading.Lock()
        self.other_lock = threading.Lock()
        self.connection: object | None = None


GLOBAL_LOCK = threading.Lock()  # made long before anybody watches


def _sell_with(
    make: Callable[[Stock], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]],
) -> Callable[[Stage], None]:
    def program(stage: Stage) -> None:
        stock = stage.watch(Stock())
        first, second = make(stock)

        def sell() -> None:
            with first:
                count = stock.count
                stage.pause()
                stock.count = count - 1

        def also_sell() -> None:
            with second:
                stock.count -= 1

        stage.together(sell, also_sell)

    return program


class _Nothing(AbstractContextManager[None]):
    def __exit__(self, *_: object) -> None:
        pass


def _semaphores(count: int) -> Callable[[Stock], Any]:
    def make(stock: Stock) -> Any:
        semaphore = threading.Semaphore(count)
        return semaphore, semaphore

    return make


def _condition(stock: Stock) -> Any:
    condition = threading.Condition()
    return condition, condition


def double_checked_faulty(stage: Stage) -> None:
    stock = stage.watch(Stock())

    def connect() -> None:
        if stock.connection is None:
            stage.pause()
            with stock.lock:
                stock.connection = object()

    stage.together(connect, connect)


def double_checked_fixed(stage: Stage) -> None:
    stock = stage.watch(Stock())

    def connect() -> None:
        if stock.connection is None:
            stage.pause()
            with stock.lock:
                if stock.connection is None:
                    stock.connection = object()

    stage.together(connect, connect)


def close_twice_faulty(stage: Stage) -> None:
    stock = stage.watch(Stock())
    stock.connection = object()

    def close() -> None:
        if stock.connection is not None:
            stage.pause()
            stock.connection = None

    stage.together(close, close)


def close_twice_fixed(stage: Stage) -> None:
    stock = stage.watch(Stock())
    stock.connection = object()

    def close() -> None:
        with stock.lock:
            connection, stock.connection = stock.connection, None
        if connection is not None:
            stage.pause()

    stage.together(close, close)


def torn_read_faulty(stage: Stage) -> None:
    stock = stage.watch(Stock())
    seen = []

    def change() -> None:
        with stock.lock:
            stock.count = stock.count * 2
            stage.pause()
            stock.price = stock.price // 2

    def value() -> None:
        seen.append(stock.count * stock.price)

    stage.together(change, value)
    assert seen == [2000]


def torn_read_fixed(stage: Stage) -> None:
    stock = stage.watch(Stock())
    seen = []

    def change() -> None:
        with stock.lock:
            stock.count = stock.count * 2
            stage.pause()
            stock.price = stock.price // 2

    def value() -> None:
        with stock.lock:
            seen.append(stock.count * stock.price)

    stage.together(change, value)
    assert seen == [1000]


def asked_twice_fixed(stage: Stage) -> None:
    """Whether it is worth anything, and its price: each call by itself is right."""
    stock = stage.watch(Stock())

    def price() -> int:
        if stock.count > 0:
            return stock.price
        return 0

    def ask() -> None:
        for _ in range(2):
            price()
            stage.pause()

    def change() -> None:
        with stock.lock:
            stock.price = stock.price // 2
            stock.count = stock.count * 2

    stage.together(ask, change)


def timed_acquire_faulty(stage: Stage) -> None:
    """The answer of acquire(timeout=…) is ignored."""
    stock = stage.watch(Stock())

    def sell() -> None:
        with stock.lock:
            count = stock.count
            stage.pause()
            stock.count = count - 1

    def hurried() -> None:
        held = stock.lock.acquire(timeout=0.001)
        stock.count -= 1
        if held:
            stock.lock.release()

    stage.together(sell, hurried)


def timed_acquire_fixed(stage: Stage) -> None:
    stock = stage.watch(Stock())

    def sell() -> None:
        with stock.lock:
            count = stock.count
            stage.pause()
            stock.count = count - 1

    def hurried() -> None:
        if stock.lock.acquire(timeout=0.001):
            stock.count -= 1
            stock.lock.release()

    stage.together(sell, hurried)


_LOST = ("lost_update", "Stock.count", "observed")
CASES = [
    RaceCase(
        "different locks",
        _sell_with(lambda stock: (stock.lock, stock.other_lock)),
        _sell_with(lambda stock: (stock.lock, stock.lock)),
        _LOST,
    ),
    RaceCase(
        "a lock on one side",
        _sell_with(lambda stock: (stock.lock, _Nothing())),
        _sell_with(lambda stock: (stock.other_lock, stock.other_lock)),
        _LOST,
    ),
    RaceCase("a semaphore that admits two", _sell_with(_semaphores(2)), _sell_with(_semaphores(1)), _LOST),
    RaceCase(
        "a condition's lock, and none",
        _sell_with(lambda stock: (threading.Condition(), _Nothing())),
        _sell_with(_condition),
        _LOST,
    ),
    RaceCase(
        "a lock of the module's",
        _sell_with(lambda stock: (GLOBAL_LOCK, stock.lock)),
        _sell_with(lambda stock: (GLOBAL_LOCK, GLOBAL_LOCK)),
        _LOST,
    ),
    RaceCase(
        "double-checked locking",
        double_checked_faulty,
        double_checked_fixed,
        ("check_then_act", "Stock.connection", "observed"),
    ),
    RaceCase(
        "closing twice",
        close_twice_faulty,
        close_twice_fixed,
        ("check_then_act", "Stock.connection", "observed"),
    ),
    RaceCase("a torn read", torn_read_faulty, torn_read_fixed, ("data_race", "Stock.price", "observed")),
    RaceCase(
        "read by two calls", torn_read_faulty, asked_twice_fixed, ("data_race", "Stock.price", "observed")
    ),
    RaceCase("acquire with a timeout", timed_acquire_faulty, timed_acquire_fixed, _LOST),
]
