"""The probe of accesses: what is told of reads and writes; programs run as ever; classes are put back as they were."""

from __future__ import annotations

import _thread
import asyncio
import copy
import enum
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import pyscope
from pyscope import probes
from pyscope.events.sync import ACCESS, AccessFlag, Operation
from pyscope.probes.accesses import AccessProbe

HOOKS = ("__getattribute__", "__setattr__", "__delattr__")


class Account:
    kind = "current"

    def __init__(self) -> None:
        self.balance = 100
        self.entries: dict[str, int] = {}
        self.items: list[int] = []

    def has(self, amount: int) -> bool:
        return self.balance >= amount

    @property
    def rich(self) -> bool:
        return self.balance > 1000


@pytest.fixture
def probe() -> Iterator[AccessProbe]:
    held = probes.acquire(["sync", "accesses"])
    found = probes.installed("accesses")
    assert isinstance(found, AccessProbe)
    yield found
    probes.release(held)


@pytest.fixture
def told(probe: AccessProbe, tmp_path: Path) -> Callable[[Callable[[], object]], list[Any]]:
    """What is told of a function's run."""

    def run(function: Callable[[], object]) -> list[Any]:
        with pyscope.record(tmp_path / "x.pyscope", modules=["test_*"], ring_mb=4):
            function()
        assert probe.faults == 0
        return list(pyscope.load(tmp_path / "x.pyscope").probe_events(ACCESS).records())

    return run


def _short(rows: list[Any]) -> list[tuple[str, str]]:
    return [(Operation(row.operation).name, row.attribute) for row in rows]


def test_reads_and_writes_are_told_with_their_places(probe: AccessProbe, told: Any) -> None:
    account = Account()
    probe.watch(account)

    def run() -> None:
        if account.has(10):
            account.balance -= 10
        del account.items
        account.rich

    rows = told(run)
    assert _short(rows) == [
        ("READ", "Account.balance"),
        ("READ", "Account.balance"),
        ("WRITE", "Account.balance"),
        ("DELETE", "Account.items"),
        ("READ", "Account.balance"),
    ]
    check, read, write, *_ = rows
    assert check.flags & AccessFlag.CHECK
    assert check.level == 1
    assert [place.function.rpartition(".")[2] for place in check.stack[:2]] == ["has", "run"]
    assert str(check.stack[1].line + 1) in check.lines
    assert not read.flags & AccessFlag.CHECK
    assert write.stack[0].function.endswith("run")
    assert len({row.object for row in rows}) == 1


def test_only_what_was_named_is_told(probe: AccessProbe, told: Any) -> None:
    watched, other = Account(), Account()
    probe.watch(watched)
    assert told(lambda: (other.balance, other.has(1), watched.kind))[0].attribute == "Account.kind"
    assert told(lambda: other.balance) == []


def test_every_instance_of_a_named_class_is_told_and_told_apart(probe: AccessProbe, told: Any) -> None:
    class Special(Account):
        pass

    probe.watch(Account)
    rows = told(lambda: [Account().balance, Special().balance])
    reads = [row for row in rows if row.operation == Operation.READ]
    assert [row.attribute for row in reads] == ["Account.balance", "Special.balance"]
    assert reads[0].object != reads[1].object


def test_an_address_that_is_used_again_is_another_object(probe: AccessProbe, told: Any) -> None:
    probe.watch(Account)

    def run() -> None:
        for _ in range(20):
            Account().balance

    assert len({row.object for row in told(run)}) == 20


def test_what_threading_keeps_in_a_thread_is_not_told(probe: AccessProbe, told: Any) -> None:
    class Worker(threading.Thread):
        result = 0

        def run(self) -> None:
            self.result = 1

    worker = Worker()
    assert probe.watch(worker)

    def run() -> None:
        worker.start()
        worker.join()
        assert worker.result == 1

    assert {event.attribute for event in told(run)} == {"Worker.result"}


def test_what_is_done_to_containers_is_told_and_they_stay_the_program_s_own(
    probe: AccessProbe, told: Any
) -> None:
    account = Account()
    entries, items = account.entries, account.items
    probe.watch(account)

    def run(key: str = "k") -> None:
        if key not in account.entries:
            account.entries[key] = 1
        account.entries[key] += 1
        account.items.append(3)
        for _ in account.items:
            pass

    rows = told(run)
    assert [row.operation for row in rows if row.operation >= Operation.CONTENT_READ] == [
        Operation.CONTENT_READ,
        Operation.CONTENT_WRITE,
        Operation.CONTENT_READ,
        Operation.CONTENT_WRITE,
        Operation.CONTENT_WRITE,
        Operation.ITERATE,
    ]
    keys = {row.key for row in rows if row.attribute == "Account.entries" and row.key}
    assert len(keys) == 1
    assert account.entries is entries
    assert account.items is items
    assert type(account.entries) is dict
    assert (entries, items) == ({"k": 2}, [3])


def test_keys_are_told_apart_without_asking_them(probe: AccessProbe, told: Any) -> None:
    class Key:
        asked = 0

        def __hash__(self) -> int:
            Key.asked += 1
            return 1

        def __eq__(self, other: object) -> bool:
            Key.asked += 1
            return True

    class Named:
        def __init__(self, name: object) -> None:
            self.name = name

    account: Any = Account()
    probe.watch(account)
    plain = object()

    def run(key: object) -> None:
        account.entries.get(key)

    rows = told(lambda: [run(key) for key in ("a", "b", "a", 1, True, None, (1, "a"), plain, plain)])
    numbers = [row.key for row in rows]
    assert numbers[0] == numbers[2]
    assert len(set(numbers)) == 6 + 0  # True is the key 1
    asked = Key.asked
    key = Key()
    rows = told(lambda: run(key))
    assert Key.asked == asked + 1  # by the dict
    assert rows[0].key == -1

    def by_attribute(named: Named) -> None:
        account.entries.get(named.name)

    rows = told(lambda: [by_attribute(Named("a")), by_attribute(Named("a")), run("a")])
    assert len({row.key for row in rows}) == 1


def test_a_write_that_is_refused_is_taken_back(probe: AccessProbe, told: Any) -> None:
    class Careful:
        def __init__(self) -> None:
            self.value = 1

        def __setattr__(self, name: str, value: object) -> None:
            if value == 0:
                raise ValueError(name)
            super().__setattr__(name, value)

    careful = Careful()
    probe.watch(careful)

    def run() -> None:
        careful.value = 2
        with pytest.raises(ValueError, match="value"):
            careful.value = 0
        with pytest.raises(AttributeError):
            del careful.nothing

    assert [row.operation for row in told(run)] == [
        Operation.WRITE,
        Operation.WRITE,
        Operation.UNDONE,
        Operation.DELETE,
        Operation.UNDONE,
    ]
    assert careful.value == 2


def test_tasks_and_their_suspensions_are_told_apart(probe: AccessProbe, told: Any) -> None:
    account = Account()
    probe.watch(account)

    async def deposit() -> None:
        balance = account.balance
        await asyncio.sleep(0)
        account.balance = balance + 1

    async def main() -> None:
        await asyncio.gather(deposit(), deposit())

    rows = told(lambda: asyncio.run(main()))
    assert len({row.task for row in rows}) == 2
    assert 0 not in {row.task for row in rows}
    for task in {row.task for row in rows}:
        read, write = (row for row in rows if row.task == task)
        assert read.loop_step != write.loop_step


# --- nothing of it can be noticed --------------------------------------------------------------------


def _namespaces(*kinds: type) -> list[dict[str, Any]]:
    return [dict(vars(kind)) for kind in kinds]


def test_classes_are_as_they_were_afterwards() -> None:
    class Base:
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)

    class Derived(Base):
        def __getattribute__(self, name: str) -> Any:
            return super().__getattribute__(name)

        def __getattr__(self, name: str) -> str:
            return name

    before = _namespaces(Account, Base, Derived)
    held = probes.acquire(["sync", "accesses"])
    probe: Any = probes.installed("accesses")
    account, derived = Account(), Derived()
    assert probe.watch(account)
    assert probe.watch(derived)
    assert probe.watch(Base)
    derived.x = 1
    assert derived.x == 1
    assert derived.y == "y"
    assert type(account) is Account
    probes.release(held)
    assert _namespaces(Account, Base, Derived) == before
    assert derived.x == 1
    assert account.__class__ is Account
    assert weakref.getweakrefcount(account) == 0


@pytest.mark.parametrize("order", [("accesses", "state"), ("state", "accesses")])
def test_classes_are_as_they_were_whichever_probe_goes_first(order: tuple[str, str]) -> None:
    before = _namespaces(Account)
    held = {name: probes.acquire([name]) for name in ("sync", "accesses", "state")}
    account = Account()
    for name in ("state", "accesses"):
        probe: Any = probes.installed(name)
        probe.watch(account)
    for name in order:
        probes.release(held[name])
        account.balance += 1
    probes.release(held["sync"])
    assert account.balance == 102
    assert _namespaces(Account) == before


def test_what_cannot_be_changed_is_said_not_to_be_watched(probe: AccessProbe) -> None:
    for target in ({}, [], 3, object(), dict):
        assert not probe.watch(target)
    assert not set(HOOKS) & set(vars(dict)) - set(HOOKS)


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int = 0
    y: int = 0


@dataclass(frozen=True)
class Frozen:
    x: int = 0


@dataclass(slots=True)
class Slots:
    x: int = 0


class Lazy:
    def __getattr__(self, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"made {name}"


class Descriptor:
    def __get__(self, instance: Any, owner: type) -> Any:
        return 42 if instance is not None else self

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__["stored"] = value


class Described:
    field = Descriptor()

    def method(self) -> str:
        return "method"

    @classmethod
    def make(cls) -> str:
        return cls.__name__

    @staticmethod
    def static() -> str:
        return "static"


def test_objects_behave_as_ever(probe: AccessProbe, tmp_path: Path) -> None:
    def run() -> list[Any]:
        point, frozen, slots = Point(1, 2), Frozen(3), Slots(4)
        lazy, described = Lazy(), Described()
        if watched:
            for each in (point, frozen, slots, lazy, described):
                assert probe.watch(each)
        results: list[Any] = [
            point == Point(1, 2),
            repr(point),
            asdict(point),
            replace(point, x=5),
            copy.copy(point),
            copy.deepcopy(point),
            pickle.loads(pickle.dumps(point)),
            vars(point),
            point.__dict__ is vars(point),
            sorted(name for name in dir(point) if not name.startswith("__")),
            hasattr(point, "z"),
            getattr(point, "z", None),
            hash(frozen) == hash(Frozen(3)),
            {frozen: 1}[Frozen(3)],
            pickle.loads(pickle.dumps(slots)),
            lazy.anything,
            hasattr(lazy, "__nothing__"),
            described.field,
            described.method(),
            described.make(),
            described.static(),
            isinstance(point, Point),
            type(point) is Point,
        ]
        described.field = 7
        results.append(described.__dict__["stored"])
        for action in (
            lambda: setattr(frozen, "x", 1),
            lambda: setattr(slots, "z", 1),
            lambda: point.nothing,
            lambda: delattr(point, "nothing"),
            lambda: object.__getattribute__(point, "nothing"),
        ):
            try:
                action()
            except (FrozenInstanceError, AttributeError) as error:
                # 3.13 says more of classes that have no __setattr__ of their own
                text = str(error).partition(" and no __dict__")[0]
                results.append((type(error), text, getattr(error, "name", None)))
        return results

    watched = False
    expected = run()
    watched = True
    with pyscope.record(tmp_path / "x.pyscope", modules=["test_*"], ring_mb=4):
        assert run() == expected
    assert probe.faults == 0


class Nasty:
    """Its special methods raise, block, recurse or change it; its attributes are such objects too."""

    calls: ClassVar[list[str]] = []

    def __init__(self) -> None:
        object.__setattr__(self, "value", 1)

    def _note(self, name: str) -> Any:
        Nasty.calls.append(name)
        if name == "__len__":
            time.sleep(5)
        if name == "__bool__":
            return self._note(name)
        raise BaseException(name)

    def __getattr__(self, name: str) -> Any:
        Nasty.calls.append(name)
        raise RuntimeError(name)

    def __repr__(self) -> str:
        return self._note("__repr__")

    def __eq__(self, other: object) -> bool:
        return self._note("__eq__")

    def __hash__(self) -> int:
        return self._note("__hash__")

    def __len__(self) -> int:
        return self._note("__len__")

    def __bool__(self) -> bool:
        return self._note("__bool__")

    def __iter__(self) -> Iterator[int]:
        return self._note("__iter__")


def test_no_special_method_of_the_program_s_objects_runs(probe: AccessProbe, told: Any) -> None:
    nasty, account = Nasty(), Account()
    Nasty.calls = []
    assert probe.watch(nasty)
    assert probe.watch(account)

    def run() -> None:
        nasty.value = Nasty()
        other = nasty.value
        account.balance = other
        assert account.balance is other
        key: Any = (1, other)
        with pytest.raises(BaseException, match="__hash__"):
            account.entries.get(key)
        with pytest.raises(RuntimeError, match="missing"):
            nasty.missing

    rows = told(run)
    assert len(rows) >= 5
    assert Nasty.calls == ["__hash__", "missing"]


def test_local_variables_live_no_longer_than_ever(probe: AccessProbe, told: Any) -> None:
    account: Any = Account()
    probe.watch(account)
    ended = []

    class Value:
        def __del__(self) -> None:
            ended.append(1)

    def run(key: str = "k") -> None:
        value = Value()
        account.entries.get(key)
        del value
        assert ended == [1]

    told(run)


def test_watched_objects_end_when_they_did_before(probe: AccessProbe, told: Any) -> None:
    account = Account()
    probe.watch(account)
    reference = weakref.ref(account)
    told(lambda: None)
    del account
    gc.collect()
    assert reference() is None
    assert probe.numbers == {}


def test_a_lock_that_is_put_into_a_watched_object_tells_until_the_end() -> None:
    held = probes.acquire(["sync", "accesses"])
    probe: Any = probes.installed("accesses")
    account: Any = Account()
    first, second = _thread.allocate_lock(), _thread.RLock()
    account.first = first
    probe.watch(account)
    account.second = second
    assert account.first is not first
    assert account.second is not second
    with account.first:
        assert first.locked()
    probes.release(held)
    assert account.first is first
    assert account.second is second


def test_what_a_watched_object_holds_ends_with_it(probe: AccessProbe) -> None:
    class Value:
        pass

    account: Any = Account()
    account.lock, account.value = _thread.allocate_lock(), Value()
    probe.watch(account)
    reference = weakref.ref(account.value)
    del account
    gc.collect()
    assert reference() is None


def test_many_threads_and_a_removal_in_between_do_no_harm() -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        account = Account()
        try:
            while not stop.is_set():
                account.balance += 1
                account.entries["k"] = account.entries.get("k", 0) + 1
                assert account.has(1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        held = probes.acquire(["sync", "accesses"])
        probe: Any = probes.installed("accesses")
        probe.watch(Account)
        probes.release(held)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not set(HOOKS) & set(vars(Account))
