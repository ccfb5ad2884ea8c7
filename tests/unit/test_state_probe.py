"""The state probe sees every change of what is watched, says which call did it, and changes nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import gc
import inspect
import pickle
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyscope.analysis import states
from pyscope.findings import StateChange
from pyscope.probes import class_patches
from tests.unit.watching import Watching, watching

pytestmark = pytest.mark.filterwarnings("ignore:modules=")


class Status(enum.StrEnum):
    OPEN = "open"
    ASSIGNED = "assigned"


class Task:
    kind = "plain"

    def __init__(self, status: str = "open") -> None:
        self.status = status
        self.tags: list[Any] = []
        self.notes: dict[Any, Any] = {}

    def assign(self) -> None:
        self.status = "assigned"

    def tag(self, word: Any) -> int:
        self.tags.append(word)
        return len(self.tags)

    def tag_and_fail(self, word: Any) -> None:
        self.tags.append(word)
        raise LookupError(word)

    async def tag_slowly(self, word: Any) -> str:
        await asyncio.sleep(0)
        self.tags.append(word)
        return "done"

    def deeply(self, depth: int) -> int:
        return depth if depth == 0 else self.deeply(depth - 1)


class HTTPTaskRunner(Task):
    pass


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watching]:
    with watching(tmp_path, "state") as found:
        yield found


def changes(tmp_path: Path, target: Any, body: Any) -> list[StateChange]:
    """What is seen while `body` runs and `target` is watched."""
    with watching(tmp_path, "state") as watch:
        watch.probe("state").watch(target)
        body()
    return states.find(watch.trace)


def brief(found: list[StateChange]) -> list[tuple[str, Any, Any]]:
    return [(change.attribute, change.old, change.new) for change in found]


def test_a_status_that_becomes_assigned_is_the_transition_task_assigned(tmp_path: Path) -> None:
    task = Task()
    [change] = changes(tmp_path, task, task.assign)
    assert (change.process, change.attribute, change.old, change.new) == (
        "Task",
        "status",
        "open",
        "assigned",
    )
    assert change.transition == "task_assigned"
    assert change.trigger == "Task.assign"
    assert change.stack[0].file == __file__
    assert change.thread == threading.current_thread().name
    assert change.seen == "write"


def test_a_watched_class_tells_of_all_instances_and_of_their_first_status(tmp_path: Path) -> None:
    def body() -> None:
        for _ in range(2):
            Task().assign()

    found = changes(tmp_path, Task, body)
    assert [change.transition for change in found] == ["task_open", "task_assigned"] * 2
    assert found[0].old is None
    assert found[0].known
    assert len({change.object for change in found}) >= 1


def test_a_watched_object_tells_nothing_of_its_siblings(tmp_path: Path) -> None:
    mine, other = Task(), Task()
    assert changes(tmp_path, mine, other.assign) == []


def test_writing_the_value_that_is_there_is_no_change(tmp_path: Path) -> None:
    task = Task("assigned")
    assert changes(tmp_path, task, task.assign) == []


@pytest.mark.parametrize(
    ("owner", "attribute", "new", "name"),
    [
        ("Task", "status", "assigned", "task_assigned"),
        ("HTTPTaskRunner", "state", "Ready-2", "http_task_runner_ready_2"),
        ("Task", "status", "not a word", "status_changed"),
        ("Task", "status", "", "status_changed"),
        ("Task", "status", None, "status_changed"),
        ("Task", "statuses", "assigned", "statuses_changed"),
        ("dict", "", None, "content_changed"),
    ],
)
def test_transitions_are_named_by_rule(owner: str, attribute: str, new: str | None, name: str) -> None:
    assert states.transition(owner, attribute, new) == name


@pytest.mark.parametrize(
    ("old", "new", "seen_old", "seen_new"),
    [
        (1, 2, 1, 2),
        (1, True, 1, True),
        (None, 0.5, None, 0.5),
        (False, None, False, None),
        ("a", Status.ASSIGNED, "a", "assigned"),
        (float("nan"), "x", "nan", "x"),
        ((1, "a"), [1], "(1, 'a')", "[1]"),
        (("a",), (), "('a',)", "()"),
        ({"a": {1}}, b"x", "{'a': {1}}", "b'x'"),
        (deque([1]), set(), "deque([1])", "set()"),
        (object(), Task(), "<object>", "<Task>"),
        (10**5000, 0, "<int of 16610 bits>", 0),
        ("x" * 10_000, "y", "x" * 199 + "…", "y"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_told_as_they_are_or_described_in_short(
    tmp_path: Path, old: Any, new: Any, seen_old: Any, seen_new: Any
) -> None:
    task = Task()
    task.value = old  # type: ignore[attr-defined]
    [change] = changes(tmp_path, task, lambda: setattr(task, "value", new))
    assert type(change.new) is type(seen_new)
    if seen_old == "nan":
        assert change.old != change.old
    else:
        assert (change.old, change.new) == (seen_old, seen_new)


def test_secrets_are_not_told(tmp_path: Path) -> None:
    task = Task()
    task.api_token = "abc"  # type: ignore[attr-defined]
    [change] = changes(tmp_path, task, lambda: setattr(task, "api_token", "xyz"))
    assert (change.old, change.new) == ("(hidden)", "(hidden)")
    [change] = changes(tmp_path, task, lambda: task.notes.update(password="xyz", name="Ada"))
    assert change.new == "{'password': (hidden), 'name': 'Ada'}"


def test_deleted_and_new_attributes_are_changes(tmp_path: Path) -> None:
    task = Task()

    def body() -> None:
        del task.status
        task.status = "reopened"

    assert brief(changes(tmp_path, task, body)) == [("status", "open", None), ("status", None, "reopened")]


def test_a_class_attribute_is_the_old_value_of_the_first_write(tmp_path: Path) -> None:
    task = Task()
    found = changes(tmp_path, task, lambda: setattr(task, "kind", "special"))
    assert brief(found) == [("kind", "plain", "special")]


# In place


def test_a_list_changed_in_place_is_seen_at_the_end_of_the_call_that_did_it(tmp_path: Path) -> None:
    task = Task()
    [change] = changes(tmp_path, task, lambda: task.tag("urgent"))
    assert (change.attribute, change.old, change.new) == ("tags", "[]", "['urgent']")
    assert (change.trigger, change.seen, change.transition) == ("Task.tag", "boundary", "tags_changed")


def test_a_call_that_raises_and_a_coroutine_are_triggers_too(tmp_path: Path) -> None:
    task = Task()

    def body() -> None:
        with pytest.raises(LookupError, match="a"):
            task.tag_and_fail("a")
        assert asyncio.run(task.tag_slowly("b")) == "done"

    found = changes(tmp_path, task, body)
    assert [change.trigger for change in found] == ["Task.tag_and_fail", "Task.tag_slowly"]
    assert found[-1].new == "['a', 'b']"


def test_a_change_from_outside_is_seen_before_the_next_call(tmp_path: Path) -> None:
    task = Task()

    def body() -> None:
        task.notes["a"] = 1
        task.tag("x")

    first, second = changes(tmp_path, task, body)
    assert (first.attribute, first.seen, first.trigger) == ("notes", "between", "Task.tag")
    assert (second.attribute, second.seen) == ("tags", "boundary")


def test_a_change_that_no_call_followed_is_seen_at_the_end(tmp_path: Path) -> None:
    task = Task()
    [change] = changes(tmp_path, task, lambda: task.notes.update(a=1))
    assert (change.attribute, change.new) == ("notes", "{'a': 1}")


def test_a_write_past_setattr_is_seen_at_the_boundary(tmp_path: Path) -> None:
    task = Task()

    def body() -> None:
        task.__dict__["status"] = "smuggled"
        task.deeply(0)

    [change] = changes(tmp_path, task, body)
    assert (change.new, change.transition, change.seen) == ("smuggled", "task_smuggled", "between")


def test_a_new_list_is_told_once(tmp_path: Path) -> None:
    task = Task()

    def body() -> None:
        task.tags = ["a"]
        task.deeply(0)

    [change] = changes(tmp_path, task, body)
    assert (change.new, change.seen) == ("['a']", "write")


def test_an_element_of_another_kind_counts_by_identity(tmp_path: Path) -> None:
    task = Task()
    task.tags = [Task()]
    assert changes(tmp_path, task, lambda: task.tags[0].assign()) == []
    [change] = changes(tmp_path, task, lambda: task.tags.__setitem__(0, Task()))
    assert (change.old, change.new) == ("[<Task>]", "[<Task>]")


def test_copies_of_large_containers_are_bounded(tmp_path: Path) -> None:
    task = Task()
    task.tags = list(range(100_000))
    found = changes(tmp_path, task, lambda: task.tag("x"))
    assert len(found) == 1
    assert len(str(found[0].new)) <= 200
    assert changes(tmp_path, task, lambda: task.tags.__setitem__(50_000, "unseen")) == []


def test_a_watched_container_is_compared_at_the_end(tmp_path: Path) -> None:
    queue: dict[str, int] = {}
    [change] = changes(tmp_path, queue, lambda: queue.update(a=1))
    assert (change.process, change.transition, change.new) == ("dict", "content_changed", "{'a': 1}")


def test_a_class_s_own_state_is_seen(tmp_path: Path) -> None:
    class Registry:
        entries: dict[str, int] = {}  # noqa: RUF012
        limit = 3

        def add(self, name: str) -> None:
            self.entries[name] = 1

    def body() -> None:
        Registry().add("a")
        Registry.limit = 4

    found = {change.attribute: change for change in changes(tmp_path, Registry, body)}
    assert (found["entries"].process, found["entries"].new) == ("Registry", "{'a': 1}")
    assert (found["limit"].old, found["limit"].new) == (3, 4)


# Kinds of classes


def test_slots_are_seen(tmp_path: Path) -> None:
    class Slotted:
        __slots__ = ("items", "status")

        def __init__(self) -> None:
            self.status = "open"
            self.items: list[int] = []

        def add(self) -> None:
            self.items.append(1)
            self.status = "full"

    slotted = Slotted()
    found = changes(tmp_path, slotted, slotted.add)
    assert sorted(brief(found)) == [("items", "[]", "[1]"), ("status", "open", "full")]


def test_dataclasses_are_seen_and_frozen_ones_stay_frozen(tmp_path: Path) -> None:
    @dataclasses.dataclass(slots=True)
    class Order:
        state: str = "new"

    @dataclasses.dataclass(frozen=True)
    class Fixed:
        state: str = "new"

    order, fixed = Order(), Fixed()
    [change] = changes(tmp_path, order, lambda: setattr(order, "state", "paid"))
    assert change.transition == "order_paid"

    def body() -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            fixed.state = "paid"  # type: ignore[misc]

    assert changes(tmp_path, fixed, body) == []
    assert fixed == Fixed()


def test_a_property_is_told_under_its_own_name_with_what_lies_below(tmp_path: Path) -> None:
    class Machine:
        def __init__(self) -> None:
            self._state = "off"
            self.__mode = "slow"

        @property
        def state(self) -> str:
            raise AssertionError("the probe called a property")

        @state.setter
        def state(self, value: str) -> None:
            self._state = value.lower()

        @property
        def mode(self) -> str:
            raise AssertionError("the probe called a property")

        @mode.setter
        def mode(self, value: str) -> None:
            self.__mode = value

    machine = Machine()

    def body() -> None:
        machine.state = "ON"
        machine.mode = "fast"

    found = changes(tmp_path, machine, body)
    assert brief(found) == [("state", "off", "on"), ("mode", "slow", "fast")]
    assert found[0].transition == "machine_on"


def test_a_property_without_anything_below_is_told_with_an_unknown_old_value(tmp_path: Path) -> None:
    store = {}

    class Remote:
        @property
        def status(self) -> str:
            raise AssertionError("the probe called a property")

        @status.setter
        def status(self, value: str) -> None:
            store["x"] = value

    remote = Remote()
    [change] = changes(tmp_path, remote, lambda: setattr(remote, "status", "up"))
    assert (change.old, change.new, change.known, change.transition) == (None, "up", False, "remote_up")


def test_a_subclass_tells_once_though_its_base_is_watched_too(tmp_path: Path) -> None:
    with watching(tmp_path, "state") as watch:
        probe = watch.probe("state")
        runner = HTTPTaskRunner()
        probe.watch(Task)
        probe.watch(runner)
        probe.watch(runner)
        runner.assign()
        runner.tag("x")
    found = states.find(watch.trace)
    assert [change.transition for change in found] == ["http_task_runner_assigned", "tags_changed"]


def test_a_class_s_own_setattr_still_decides(tmp_path: Path) -> None:
    class Strict:
        def __setattr__(self, name: str, value: object) -> None:
            if name == "forbidden":
                raise PermissionError(name)
            super().__setattr__(name, f"<{value}>")

    strict = Strict()
    original = Strict.__dict__["__setattr__"]

    def body() -> None:
        with pytest.raises(PermissionError):
            strict.forbidden = 1
        strict.state = "x"

    found = changes(tmp_path, strict, body)
    assert brief(found) == [("state", None, "<x>")]
    assert Strict.__dict__["__setattr__"] is original


# As found


def test_everything_is_as_found_after_removal(tmp_path: Path) -> None:
    before = dict(vars(Task))
    unbound, bound = Task.tag, Task().tag
    changes(tmp_path, Task, lambda: Task().tag("x"))
    after = dict(vars(Task))
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert Task.tag is unbound
    assert bound.__func__ is unbound


def test_what_somebody_else_replaced_meanwhile_stays_theirs(tmp_path: Path) -> None:
    class Mine:
        def act(self) -> str:
            return "mine"

    def act(self: Mine) -> str:
        return "theirs"

    def body() -> None:
        Mine.act = act  # type: ignore[method-assign]

    changes(tmp_path, Mine, body)
    assert vars(Mine)["act"] is act


def test_layers_of_several_probes_come_off_in_any_order() -> None:
    class Layered:
        pass

    def adding(word: str) -> Any:
        def make(layer: class_patches.Layer) -> Any:
            def __setattr__(self: Any, name: str, value: str) -> None:
                layer.below(self, name, value + word)

            return __setattr__

        return make

    one = class_patches.put(Layered, "__setattr__", adding("1"))
    two = class_patches.put(Layered, "__setattr__", adding("2"))
    layered: Any = Layered()
    layered.x = ""
    assert layered.x == "21"
    assert one is not None
    assert two is not None
    class_patches.take(one)
    layered.x = ""
    assert layered.x == "2"
    class_patches.take(two)
    class_patches.take(two)
    assert "__setattr__" not in vars(Layered)
    assert class_patches.put(int, "__setattr__", adding("x")) is None


def test_methods_look_the_same_while_they_are_boundaries(watch: Watching) -> None:
    task = Task()
    unbound, bound, signature = Task.tag, task.tag, inspect.signature(task.tag)
    watch.probe("state").watch(Task)
    assert Task.tag is unbound
    assert task.tag == bound
    assert bound == task.tag
    assert hash(task.tag) == hash(bound)
    assert inspect.signature(task.tag) == signature
    assert inspect.ismethod(task.tag)
    assert inspect.iscoroutinefunction(task.tag_slowly)
    assert not inspect.iscoroutinefunction(task.tag)
    assert task.tag.__name__ == "tag"
    assert task.tag.__doc__ is None
    callbacks = [bound]
    callbacks.remove(task.tag)
    assert callbacks == []
    assert pickle.loads(pickle.dumps(task)).status == "open"
    coroutine = task.tag_slowly("x")
    assert coroutine.__qualname__ == "Task.tag_slowly"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coroutine.close()


def test_a_coroutine_method_is_cancelled_as_ever(watch: Watching) -> None:
    class Waiter:
        async def wait(self) -> None:
            await asyncio.Event().wait()

    watch.probe("state").watch(Waiter)

    async def main() -> None:
        task = asyncio.create_task(Waiter().wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(main())
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        Waiter().wait(seconds=1)  # type: ignore[call-arg]


def test_deep_recursion_through_a_watched_object_is_possible_as_ever(watch: Watching) -> None:
    watch.probe("state").watch(Task)
    assert Task().deeply(700) == 0


def test_watched_instances_live_no_longer_than_ever(watch: Watching) -> None:
    watch.probe("state").watch(Task)
    task = Task()
    task.tag("x")
    reference = weakref.ref(task)
    del task
    gc.collect()
    assert reference() is None


def test_an_object_that_cannot_be_watched_is_no_error(watch: Watching) -> None:
    for target in (5, "text", None, len, int, threading.Lock()):
        watch.probe("state").watch(target)


def test_threads_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    task = Task()

    def write(name: str) -> None:
        for number in range(200):
            setattr(task, name, number)

    def body() -> None:
        threads = [threading.Thread(target=write, args=(f"value{i}",), name=f"writer {i}") for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found = changes(tmp_path, task, body)
    assert len(found) == 4 * 200
    assert {change.thread for change in found} == {f"writer {i}" for i in range(4)}


def test_what_a_constructor_gives_is_no_change_also_after_it_has_called_methods(tmp_path: Path) -> None:
    class Careful(Task):
        def __init__(self) -> None:
            super().__init__()
            self.tag("first")
            self.late = 1

    def body() -> None:
        careful = Careful()
        careful.added = 2  # type: ignore[attr-defined]
        careful.tag("second")

    found = changes(tmp_path, Careful, body)
    assert brief(found) == [
        ("status", None, "open"),
        ("tags", "[]", "['first']"),
        ("added", None, 2),
        ("tags", "['first']", "['first', 'second']"),
    ]


def test_the_runtime_tells_of_what_no_call_has_followed_yet() -> None:
    from pyscope import runtime

    task = Task()
    runtime.monitor_process(task)
    try:
        task.notes["a"] = 1
        assert brief(runtime.get_state_changes()) == [("notes", "{}", "{'a': 1}")]
        task.notes["b"] = 2
    finally:
        runtime.stop_all()
    assert [change.new for change in runtime.get_state_changes()] == ["{'a': 1}", "{'a': 1, 'b': 2}"]


def test_fields_of_a_pydantic_model_are_told_and_not_its_own_notes(tmp_path: Path) -> None:
    from pydantic import BaseModel

    class Order(BaseModel):
        status: str = "open"

        def close(self) -> None:
            self.status = "closed"

    order = Order()

    def body() -> None:
        order.close()
        order.close()

    assert brief(changes(tmp_path, order, body)) == [("status", "open", "closed")]
