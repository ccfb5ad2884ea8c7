"""Numbers and states of one object, changed by two threads."""

from __future__ import annotations

import threading

from tests.twins.races import RaceCase, Stage


class Account:
    def __init__(self, balance: int = 100) -> None:
        self.balance = balance
        self.lock = threading.Lock()

    def has(self, amount: int) -> bool:
        return self.balance >= amount

    @property
    def is_empty(self) -> bool:
        return self.balance == 0


class Statistics:
    def __init__(self) -> None:
        self.highest = 0
        self.total = 0
        self.lock = threading.RLock()


class Job:
    def __init__(self) -> None:
        self.status = "open"
        self.owner: str | None = None
        self.lock = threading.Lock()


def read_then_write_faulty(stage: Stage) -> None:
    account = stage.watch(Account())

    def deposit() -> None:
        balance = account.balance
        stage.pause()
        account.balance = balance + 10

    def other() -> None:
        account.balance += 5

    stage.together(deposit, other)
    assert account.balance == 110


def read_then_write_fixed(stage: Stage) -> None:
    account = stage.watch(Account())

    def deposit() -> None:
        with account.lock:
            balance = account.balance
            stage.pause()
            account.balance = balance + 10

    def other() -> None:
        with account.lock:
            account.balance += 5

    stage.together(deposit, other)
    assert account.balance == 115


def check_then_withdraw_faulty(stage: Stage) -> None:
    account = stage.watch(Account())

    def withdraw() -> None:
        if account.balance >= 80:
            stage.pause()
            account.balance -= 80

    stage.together(withdraw, withdraw)
    assert account.balance == -60


def check_then_withdraw_fixed(stage: Stage) -> None:
    account = stage.watch(Account())

    def withdraw() -> None:
        with account.lock:
            if account.balance >= 80:
                stage.pause()
                account.balance -= 80

    stage.together(withdraw, withdraw)
    assert account.balance == 20


def check_in_a_method_faulty(stage: Stage) -> None:
    account = stage.watch(Account())

    def withdraw() -> None:
        if not account.has(80):
            return
        stage.pause()
        account.balance -= 80

    stage.together(withdraw, withdraw)


def check_in_a_method_fixed(stage: Stage) -> None:
    account = stage.watch(Account())

    def withdraw() -> None:
        with account.lock:
            if not account.has(80):
                return
            stage.pause()
            account.balance -= 80

    stage.together(withdraw, withdraw)
    assert account.balance == 20


def check_in_a_property_faulty(stage: Stage) -> None:
    account = stage.watch(Account(0))

    def fill() -> None:
        if account.is_empty:
            stage.pause()
            account.balance = 100

    stage.together(fill, fill)


def check_in_a_property_fixed(stage: Stage) -> None:
    account = stage.watch(Account(0))

    def fill() -> None:
        with account.lock:
            if account.is_empty:
                stage.pause()
                account.balance = 100

    stage.together(fill, fill)


def unlocked_increment_faulty(stage: Stage) -> None:
    account = stage.watch(Account())

    def deposit() -> None:
        account.balance += 1

    stage.together(deposit, deposit)


def unlocked_increment_fixed(stage: Stage) -> None:
    account = stage.watch(Account())

    def deposit() -> None:
        with account.lock:
            account.balance += 1

    stage.together(deposit, deposit)


def highest_faulty(stage: Stage) -> None:
    statistics = stage.watch(Statistics())

    def note(value: int) -> None:
        if value > statistics.highest:
            stage.pause()
            statistics.highest = value

    stage.together(lambda: note(3), lambda: note(9))
    assert statistics.highest == 3


def highest_fixed(stage: Stage) -> None:
    statistics = stage.watch(Statistics())

    def note(value: int) -> None:
        with statistics.lock:
            if value > statistics.highest:
                stage.pause()
                statistics.highest = value

    stage.together(lambda: note(3), lambda: note(9))
    assert statistics.highest == 9


def claim_faulty(stage: Stage) -> None:
    job = stage.watch(Job())

    def claim(name: str) -> None:
        if job.status == "open":
            stage.pause()
            job.status = "taken"
            job.owner = name

    stage.together(lambda: claim("a"), lambda: claim("b"))


def claim_fixed(stage: Stage) -> None:
    job = stage.watch(Job())

    def claim(name: str) -> None:
        with job.lock:
            mine = job.status == "open"
            if mine:
                job.status = "taken"
        if mine:
            stage.pause()
            job.owner = name

    stage.together(lambda: claim("a"), lambda: claim("b"))
    assert job.owner == "a"


def nested_lock_faulty(stage: Stage) -> None:
    statistics = stage.watch(Statistics())

    def add(value: int) -> None:
        with statistics.lock:
            total = statistics.total
        stage.pause()
        with statistics.lock:
            statistics.total = total + value

    stage.together(lambda: add(1), lambda: add(2))


def nested_lock_fixed(stage: Stage) -> None:
    statistics = stage.watch(Statistics())

    def total() -> int:
        with statistics.lock:
            return statistics.total

    def add(value: int) -> None:
        with statistics.lock:
            before = total()
            stage.pause()
            with statistics.lock:
                statistics.total = before + value

    stage.together(lambda: add(1), lambda: add(2))
    assert statistics.total == 3


OBSERVED = "observed"
CASES = [
    RaceCase(
        "read then write",
        read_then_write_faulty,
        read_then_write_fixed,
        ("lost_update", "Account.balance", OBSERVED),
    ),
    RaceCase(
        "check then withdraw",
        check_then_withdraw_faulty,
        check_then_withdraw_fixed,
        ("check_then_act", "Account.balance", OBSERVED),
    ),
    RaceCase(
        "check in a method",
        check_in_a_method_faulty,
        check_in_a_method_fixed,
        ("check_then_act", "Account.balance", OBSERVED),
    ),
    RaceCase(
        "check in a property",
        check_in_a_property_faulty,
        check_in_a_property_fixed,
        ("check_then_act", "Account.balance", OBSERVED),
    ),
    RaceCase(
        "unlocked increment",
        unlocked_increment_faulty,
        unlocked_increment_fixed,
        ("lost_update", "Account.balance", "possible"),
    ),
    RaceCase(
        "highest value", highest_faulty, highest_fixed, ("check_then_act", "Statistics.highest", OBSERVED)
    ),
    RaceCase("claim", claim_faulty, claim_fixed, ("check_then_act", "Job.status", OBSERVED)),
    RaceCase(
        "two sections", nested_lock_faulty, nested_lock_fixed, ("lost_update", "Statistics.total", OBSERVED)
    ),
]
