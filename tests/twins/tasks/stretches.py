"""What is read before an await and relied upon after it; and asyncio's locks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests.twins.races import RaceCase, Stage


class Account:
    def __init__(self) -> None:
        self.balance = 100
        self.lock = asyncio.Lock()
        self.other_lock = asyncio.Lock()

    def has(self, amount: int) -> bool:
        return self.balance >= amount


class Service:
    def __init__(self) -> None:
        self.connection: object | None = None
        self.cache: dict[str, Any] = {}
        self.waiting: list[int] = [1]
        self.active = 0
        self.low = 0
        self.high = 10
        self.status = "open"
        self.lock = asyncio.Lock()


async def _somewhere() -> int:
    await asyncio.sleep(0)
    return 1


async def read_then_write_faulty(stage: Stage) -> None:
    account = stage.watch(Account())

    async def deposit() -> None:
        balance = account.balance
        await _somewhere()
        account.balance = balance + 10

    await asyncio.gather(deposit(), deposit())
    assert account.balance == 110


async def read_then_write_fixed(stage: Stage) -> None:
    account = stage.watch(Account())

    async def deposit() -> None:
        await _somewhere()
        balance = account.balance
        account.balance = balance + 10
        await _somewhere()

    await asyncio.gather(deposit(), deposit())
    assert account.balance == 120


async def check_then_act_faulty(stage: Stage) -> None:
    account = stage.watch(Account())

    async def withdraw() -> None:
        if account.balance >= 80:
            await _somewhere()
            account.balance -= 80

    await asyncio.gather(withdraw(), withdraw())
    assert account.balance == -60


async def check_then_act_fixed(stage: Stage) -> None:
    account = stage.watch(Account())

    async def withdraw() -> None:
        async with account.lock:
            if account.balance >= 80:
                await _somewhere()
                account.balance -= 80

    await asyncio.gather(withdraw(), withdraw())
    assert account.balance == 20


async def check_in_a_method_faulty(stage: Stage) -> None:
    account = stage.watch(Account())

    async def withdraw() -> None:
        if not account.has(80):
            return
        await _somewhere()
        account.balance -= 80

    await asyncio.gather(withdraw(), withdraw())


async def checked_again_fixed(stage: Stage) -> None:
    account = stage.watch(Account())

    async def withdraw() -> None:
        if not account.has(80):
            return
        await _somewhere()
        if account.has(80):
            account.balance -= 80

    await asyncio.gather(withdraw(), withdraw())
    assert account.balance == 20


async def check_in_a_coroutine_faulty(stage: Stage) -> None:
    account = stage.watch(Account())

    async def has(amount: int) -> bool:
        await _somewhere()
        return account.balance >= amount

    async def withdraw() -> None:
        if await has(80):
            await _somewhere()
            account.balance -= 80

    await asyncio.gather(withdraw(), withdraw())


async def check_in_a_coroutine_fixed(stage: Stage) -> None:
    account = stage.watch(Account())

    async def has(amount: int) -> bool:
        await _somewhere()
        return account.balance >= amount

    async def withdraw() -> None:
        if await has(80):
            account.balance -= 80

    await asyncio.gather(withdraw(), withdraw())
    assert account.balance == 20


async def augmented_faulty(stage: Stage) -> None:
    account = stage.watch(Account())

    async def deposit() -> None:
        account.balance += await _somewhere()

    await asyncio.gather(deposit(), deposit())
    assert account.balance == 101


async def augmented_fixed(stage: Stage) -> None:
    account = stage.watch(Account())

    async def deposit() -> None:
        amount = await _somewhere()
        account.balance += amount

    await asyncio.gather(deposit(), deposit())
    assert account.balance == 102


async def lazy_connection_faulty(stage: Stage) -> None:
    service = stage.watch(Service())

    async def connect() -> None:
        if service.connection is None:
            service.connection = await _somewhere()

    await asyncio.gather(connect(), connect())


async def lazy_connection_fixed(stage: Stage) -> None:
    service = stage.watch(Service())

    async def connect() -> None:
        if service.connection is None:
            async with service.lock:
                if service.connection is None:
                    service.connection = await _somewhere()

    await asyncio.gather(connect(), connect())


async def cache_faulty(stage: Stage) -> None:
    service = stage.watch(Service())

    async def get(key: str) -> Any:
        if key not in service.cache:
            service.cache[key] = await _somewhere()
        return service.cache[key]

    await asyncio.gather(get("a"), get("a"))


async def cache_fixed(stage: Stage) -> None:
    """What is cached is the task, put there before the first await."""
    service = stage.watch(Service())

    async def get(key: str) -> Any:
        if key not in service.cache:
            service.cache[key] = asyncio.ensure_future(_somewhere())
        return await service.cache[key]

    assert await asyncio.gather(get("a"), get("a")) == [1, 1]


async def cache_by_key_fixed(stage: Stage) -> None:
    service = stage.watch(Service())

    async def get(key: str) -> Any:
        if key not in service.cache:
            value = await _somewhere()
            service.cache[key] = value
        return service.cache[key]

    await asyncio.gather(get("a"), get("b"))


async def pop_faulty(stage: Stage) -> None:
    service = stage.watch(Service())

    async def take() -> None:
        if service.waiting:
            await _somewhere()
            service.waiting.pop()

    results = await asyncio.gather(take(), take(), return_exceptions=True)
    assert any(isinstance(result, IndexError) for result in results)


async def pop_fixed(stage: Stage) -> None:
    service = stage.watch(Service())

    async def take() -> None:
        if service.waiting:
            service.waiting.pop()
            await _somewhere()

    await asyncio.gather(take(), take())


async def two_sections_faulty(stage: Stage) -> None:
    account = stage.watch(Account())

    async def deposit() -> None:
        async with account.lock:
            balance = account.balance
        await _somewhere()
        async with account.lock:
            account.balance = balance + 10

    await asyncio.gather(deposit(), deposit())


async def two_sections_fixed(stage: Stage) -> None:
    account = stage.watch(Account())

    async def deposit() -> None:
        async with account.lock:
            await _somewhere()
            balance = account.balance
            await _somewhere()
            account.balance = balance + 10

    await asyncio.gather(deposit(), deposit())
    assert account.balance == 120


def _deposits(choose: Callable[[Account], tuple[Any, Any]]) -> Callable[[Stage], Coroutine[Any, Any, None]]:
    async def program(stage: Stage) -> None:
        account = stage.watch(Account())
        first, second = choose(account)

        async def deposit(lock: Any) -> None:
            async with lock:
                balance = account.balance
                await _somewhere()
                account.balance = balance + 10

        await asyncio.gather(deposit(first), deposit(second))

    return program


def _semaphore(count: int) -> Callable[[Account], tuple[Any, Any]]:
    def choose(account: Account) -> tuple[Any, Any]:
        semaphore = asyncio.Semaphore(count)
        return semaphore, semaphore

    return choose


def _condition(account: Account) -> tuple[Any, Any]:
    condition = asyncio.Condition()
    return condition, condition


def _takes(stage: Stage, between: Callable[[], Coroutine[Any, Any, object]]) -> Coroutine[Any, Any, None]:
    """Two that take from what is filled up again, at the begin of a loop in which they look whether it is enough."""
    account = stage.watch(Account())
    account.balance = 0
    refills = iter([0, 0, 10, 10])

    async def take() -> None:
        while True:
            account.balance = min(10, account.balance + next(refills, 10))
            if account.balance >= 10:
                await between()
                account.balance -= 10
                return
            await _somewhere()

    async def both() -> None:
        await asyncio.gather(take(), take())

    return both()


async def token_bucket_faulty(stage: Stage) -> None:
    await _takes(stage, _somewhere)


async def token_bucket_fixed(stage: Stage) -> None:
    async def at_once() -> None:
        pass

    await _takes(stage, at_once)


async def claim_faulty(stage: Stage) -> None:
    service = stage.watch(Service())

    async def claim() -> None:
        if service.status != "open":
            return
        await _somewhere()
        service.status = "taken"

    await asyncio.gather(claim(), claim())


async def claim_fixed(stage: Stage) -> None:
    service = stage.watch(Service())

    async def claim() -> None:
        if service.status != "open":
            return
        service.status = "taken"
        await _somewhere()

    await asyncio.gather(claim(), claim())


async def restored_faulty(stage: Stage) -> None:
    """The old value is put back, whatever others did meanwhile."""
    service = stage.watch(Service())

    async def handle() -> None:
        before = service.active
        try:
            await _somewhere()
        finally:
            service.active = before

    async def later() -> None:
        service.active += 1

    await asyncio.gather(handle(), later())
    assert service.active == 0


async def restored_fixed(stage: Stage) -> None:
    service = stage.watch(Service())

    async def handle() -> None:
        service.active += 1
        try:
            await _somewhere()
        finally:
            service.active -= 1

    await asyncio.gather(handle(), handle())
    assert service.active == 0


async def iterate_faulty(stage: Stage) -> None:
    service = stage.watch(Service())
    service.waiting = [1, 2, 3]

    async def notify() -> None:
        for _ in service.waiting:
            await _somewhere()
            service.active += 1

    async def leave() -> None:
        service.waiting.remove(1)

    await asyncio.gather(notify(), leave())
    assert service.active == 2


async def iterate_fixed(stage: Stage) -> None:
    service = stage.watch(Service())
    service.waiting = [1, 2, 3]

    async def notify() -> None:
        for _ in list(service.waiting):
            await _somewhere()
            service.active += 1

    async def leave() -> None:
        service.waiting.remove(1)

    await asyncio.gather(notify(), leave())
    assert service.active == 3


async def torn_faulty(stage: Stage) -> None:
    service = stage.watch(Service())
    seen = []

    async def shift() -> None:
        async with service.lock:
            service.low = service.low + 100
            await _somewhere()
            service.high = service.high + 100

    async def width() -> None:
        seen.append(service.high - service.low)

    await asyncio.gather(shift(), width())
    assert seen == [-90]


async def torn_fixed(stage: Stage) -> None:
    service = stage.watch(Service())
    seen = []

    async def shift() -> None:
        async with service.lock:
            service.low = service.low + 100
            await _somewhere()
            service.high = service.high + 100

    async def width() -> None:
        async with service.lock:
            seen.append(service.high - service.low)

    await asyncio.gather(shift(), width())
    assert seen == [10]


_LOST = ("lost_update", "Account.balance", "observed")
_CHECK = ("check_then_act", "Account.balance", "observed")
CASES = [
    RaceCase("read then write", read_then_write_faulty, read_then_write_fixed, _LOST),
    RaceCase("check then act", check_then_act_faulty, check_then_act_fixed, _CHECK),
    RaceCase("check in a method, checked again", check_in_a_method_faulty, checked_again_fixed, _CHECK),
    RaceCase("check in a coroutine", check_in_a_coroutine_faulty, check_in_a_coroutine_fixed, _CHECK),
    RaceCase("augmented by what is awaited", augmented_faulty, augmented_fixed, _LOST),
    RaceCase(
        "lazy connection",
        lazy_connection_faulty,
        lazy_connection_fixed,
        ("check_then_act", "Service.connection", "observed"),
    ),
    RaceCase("cached task", cache_faulty, cache_fixed, ("check_then_act", "Service.cache", "observed")),
    RaceCase(
        "keys of their own", cache_faulty, cache_by_key_fixed, ("check_then_act", "Service.cache", "observed")
    ),
    RaceCase("pop", pop_faulty, pop_fixed, ("check_then_act", "Service.waiting", "observed")),
    RaceCase("two sections", two_sections_faulty, two_sections_fixed, _LOST),
    RaceCase(
        "different locks",
        _deposits(lambda account: (account.lock, account.other_lock)),
        _deposits(lambda account: (account.lock, account.lock)),
        _LOST,
    ),
    RaceCase("a semaphore that admits two", _deposits(_semaphore(2)), _deposits(_semaphore(1)), _LOST),
    RaceCase(
        "a condition's lock",
        _deposits(lambda account: (asyncio.Condition(), asyncio.Condition())),
        _deposits(_condition),
        _LOST,
    ),
    RaceCase("token bucket", token_bucket_faulty, token_bucket_fixed, _CHECK),
    RaceCase("claim", claim_faulty, claim_fixed, ("check_then_act", "Service.status", "observed")),
    RaceCase("restored", restored_faulty, restored_fixed, ("lost_update", "Service.active", "observed")),
    RaceCase("iterate", iterate_faulty, iterate_fixed, ("data_race", "Service.waiting", "observed")),
    RaceCase("torn read", torn_faulty, torn_fixed, ("data_race", "Service.high", "observed")),
]
