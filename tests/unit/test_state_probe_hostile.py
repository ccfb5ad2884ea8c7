"""Objects that raise, recurse, block, mutate or lie when looked at: the program does what it does untraced."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyscope.analysis import states
from tests.unit.watching import watching

pytestmark = pytest.mark.filterwarnings("ignore:modules=")

touched: list[str] = []


def hostile(behaviour: Callable[..., Any]) -> type:
    """A class of which every special method does that, and notes that it was called."""

    def method(name: str) -> Callable[..., Any]:
        def special(*arguments: Any) -> Any:
            touched.append(name)
            return behaviour(*arguments)

        return special

    names = [
        "__repr__",
        "__str__",
        "__eq__",
        "__ne__",
        "__hash__",
        "__bool__",
        "__len__",
        "__iter__",
        "__format__",
    ]
    names += [
        "__getattr__",
        "__reduce_ex__",
        "__dir__",
        "__contains__",
        "__getitem__",
        "__int__",
        "__index__",
    ]

    class Meta(type):
        def __eq__(cls, other: object) -> bool:
            touched.append("metaclass __eq__")
            raise RuntimeError("metaclass")

        def __hash__(cls) -> int:
            touched.append("metaclass __hash__")
            raise RuntimeError("metaclass")

        def __getattribute__(cls, name: str) -> Any:
            if name in ("__name__", "__mro__", "__dict__", "__module__", "__qualname__"):
                touched.append(f"metaclass {name}")
            return super().__getattribute__(name)

        def __setattr__(cls, name: str, value: object) -> None:
            touched.append(f"metaclass sets {name}")
            super().__setattr__(name, value)

        def __instancecheck__(cls, instance: object) -> bool:
            touched.append("metaclass __instancecheck__")
            raise RuntimeError("metaclass")

        def __subclasscheck__(cls, other: type) -> bool:
            touched.append("metaclass __subclasscheck__")
            raise RuntimeError("metaclass")

    namespace: dict[str, Any] = {name: method(name) for name in names}

    def lying_class(self: object) -> type:
        touched.append("__class__")
        raise RuntimeError("class")

    namespace["__class__"] = property(lying_class)
    return Meta("Hostile", (), namespace)


def raising(*_: Any) -> Any:
    raise RuntimeError("hostile")


def interrupting(*_: Any) -> Any:
    raise KeyboardInterrupt


def recursing(*arguments: Any) -> Any:
    return recursing(*arguments)


def blocking(*_: Any) -> Any:
    time.sleep(60)


def lying(*_: Any) -> Any:
    return -1


class Holder:
    def __init__(self, thing: object) -> None:
        self.thing = thing
        self.things = [thing]
        self.by_name: dict[Any, Any] = {"thing": thing, 1: {2: thing}}
        self.status = "open"

    def replace(self, thing: object) -> int:
        self.thing = thing
        self.things.append(thing)
        self.by_name["new"] = thing
        self.status = "replaced"
        return len(self.things)


def scenario(kind: type, watch: Callable[[object], None]) -> list[object]:
    """What the program does with such objects, and what came of it."""
    holder = Holder(kind())
    watch(holder)
    hostile = kind()
    watch(hostile)
    outcome: list[object] = [holder.replace(hostile), holder.replace(hostile), holder.status]
    hostile.attribute = 1
    outcome += [hostile.attribute, sorted(vars(holder))]
    del hostile.attribute
    holder.by_name.clear()
    holder.replace(kind())
    return [*outcome, len(holder.things), list(holder.by_name)]


@pytest.mark.parametrize("behaviour", [raising, interrupting, recursing, blocking, lying])
def test_hostile_objects_are_held_and_watched_without_being_touched(
    tmp_path: Path, behaviour: Callable[..., Any]
) -> None:
    kind = hostile(behaviour)
    untraced = scenario(kind, lambda _: None)
    touched.clear()
    with watching(tmp_path, "state") as watch:
        probe = watch.probe("state")
        probe.watch(kind)
        traced = scenario(kind, probe.watch)
        assert probe.faults == 0
    assert traced == untraced
    assert touched == []
    found = states.find(watch.trace)
    assert [change.transition for change in found if change.attribute == "status"] == ["holder_replaced"]
    assert {change.attribute for change in found} >= {"thing", "things", "by_name", "attribute"}


class Dynamic:
    """Every attribute is made up, and asked for by the probe's own name would recurse without end."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            return getattr(self, name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "loop":
            self.loop = value  # RecursionError, as ever
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise PermissionError(name)


def test_exceptions_of_attribute_methods_are_the_program_s_own(tmp_path: Path) -> None:
    with watching(tmp_path, "state") as watch:
        watch.probe("state").watch(Dynamic)
        dynamic: Any = Dynamic()
        with pytest.raises(RecursionError):
            dynamic.loop = 1
        with pytest.raises(PermissionError, match="status"):
            del dynamic.status
        dynamic.status = "fine"
        assert dynamic.status == "fine"
        assert watch.probe("state").faults == 0
    assert [change.transition for change in states.find(watch.trace)] == ["dynamic_fine"]


def test_a_write_that_mutates_the_object_it_writes_to_is_told_as_it_ended(tmp_path: Path) -> None:
    class Cascade:
        def __init__(self) -> None:
            self.a = 0
            self.b = 0

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "a":
                self.b = value
                self.__dict__["c"] = value

    with watching(tmp_path, "state") as watch:
        cascade = Cascade()
        watch.probe("state").watch(cascade)
        cascade.a = 5
        assert vars(cascade) == {"a": 5, "b": 5, "c": 5}
    found = {change.attribute: change.new for change in states.find(watch.trace)}
    assert (found["a"], found["b"]) == (5, 5)


def test_a_container_that_other_threads_change_is_no_fault(tmp_path: Path) -> None:
    holder = Holder(None)
    ended = threading.Event()

    def churn() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            holder.by_name[number % 50] = {number: number}
            holder.by_name.pop((number - 25) % 50, None)

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=churn)
    try:
        sys.setswitchinterval(1e-5)
        with watching(tmp_path, "state") as watch:
            probe = watch.probe("state")
            probe.watch(holder)
            thread.start()
            for number in range(500):
                holder.replace(number)
            assert probe.faults == 0
    finally:
        sys.setswitchinterval(interval)
        ended.set()
        thread.join()
    things = [change for change in states.find(watch.trace) if change.attribute == "thing"]
    assert [change.new for change in things] == list(range(500))


def test_a_probe_that_keeps_failing_removes_itself_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyscope.probes.state import values

    def broken(value: object, depth: int = 0) -> Any:
        raise AssertionError("a defect of the probe")

    holder = Holder(None)
    with watching(tmp_path, "state") as watch:
        watch.probe("state").watch(holder)
        monkeypatch.setattr(values, "freeze", broken)
        with pytest.warns(UserWarning, match="'state' failed 10 times and has removed itself"):
            assert [holder.replace(number) for number in range(20)] == list(range(2, 22))
        assert len(holder.things) == 21
        assert "__setattr__" not in vars(Holder)
        monkeypatch.undo()
