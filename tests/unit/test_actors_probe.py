"""The actors probe: messages from sender to receiver, the lives of actors, and Pykka as it was afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pykka
import pytest
from pykka import _ref

from pyscope import emitter, probes
from pyscope.analysis import states
from pyscope.events import EventType
from pyscope.events.actors import ACTOR, MESSAGE_ANSWERED, MESSAGE_HANDLED, MESSAGE_RECEIVED, MESSAGE_SENT
from pyscope.probes import actors
from taskflow.supervision import SupervisedActor
from tests.unit.watching import Watching, until, watching

pytestmark = pytest.mark.filterwarnings("ignore:modules=")


class Counter(pykka.ThreadingActor):
    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.gate = threading.Event()

    def count(self, word: str) -> int:
        self.counts[word] = self.counts.get(word, 0) + 1
        return self.counts[word]

    def fail(self) -> None:
        raise LookupError("nothing here")

    def wait(self) -> None:
        assert self.gate.wait(30)

    def on_receive(self, message: Any) -> Any:
        if message == "crash":
            raise ValueError("crashed")
        return ["got", message]


class Relay(pykka.ThreadingActor):
    def __init__(self, target: Any) -> None:
        super().__init__()
        self.target = target

    def on_receive(self, message: Any) -> Any:
        return self.target.ask(message)


@pytest.fixture(autouse=True)
def no_actor_is_left() -> Any:
    yield
    pykka.ActorRegistry.stop_all()


def rows(watch: Watching, event: EventType) -> list[Any]:
    return list(watch.trace.probe_events(event).records())


def test_a_message_is_one_edge_from_sender_to_receiver_and_back(tmp_path: Path) -> None:
    with watching(tmp_path, "actors") as watch:
        counter = Counter.start()
        assert counter.proxy().count("a").get() == 1
        assert counter.ask({"b": 1}) == ["got", {"b": 1}]
    sent, received, handled = (
        rows(watch, MESSAGE_SENT),
        rows(watch, MESSAGE_RECEIVED),
        rows(watch, MESSAGE_HANDLED),
    )
    assert [row.name for row in sent] == [row.name for row in received] == ["count", "dict"]
    assert (
        [row.message for row in sent] == [row.message for row in received] == [row.message for row in handled]
    )
    assert len({row.message for row in sent}) == 2
    assert {row.actor for row in sent} == {row.actor for row in received}
    assert {row.actor_name for row in sent + received} == {"Counter"}
    assert {row.outcome for row in handled} == {"returned"}
    for before, after, end in zip(sent, received, handled, strict=True):
        assert before.time_ns <= after.time_ns <= end.time_ns
        assert before.thread != after.thread == end.thread
        assert after.waited_ns >= 0
    assert sent[0].stack[0].file == __file__
    [answered] = rows(watch, MESSAGE_ANSWERED)
    assert answered.message == sent[1].message
    assert answered.time_ns >= handled[1].time_ns


def test_each_message_is_a_scope_whose_parent_is_the_sender_s(tmp_path: Path) -> None:
    with watching(tmp_path, "actors") as watch:
        counter = Counter.start()
        relay = Relay.start(counter)
        request = emitter.next_id()
        token = emitter.scope.set(request)
        relay.ask("hello")
        emitter.scope.reset(token)
        assert emitter.scope.get() == 0
    outer, inner = watch.trace.scopes
    assert (outer.kind, outer.name, outer.parent) == ("message", "Relay.str", request)
    assert (inner.kind, inner.name, inner.parent) == ("message", "Counter.str", outer.id)
    assert outer.start_ns <= inner.start_ns <= inner.end_ns <= outer.end_ns
    assert (outer.outcome, inner.outcome) == ("returned", "returned")
    assert inner.cpu_ns >= 0
    [first, second] = rows(watch, MESSAGE_RECEIVED)
    assert (first.scope, second.scope) == (outer.id, inner.id)


def test_the_cpu_time_of_a_short_message_is_no_more_than_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intern = emitter.intern

    def slowly(text: str) -> int:
        begin = time.thread_time()
        while text == "Counter.count" and time.thread_time() - begin < 0.002:
            pass
        return intern(text)

    with watching(tmp_path, "actors") as watch:
        monkeypatch.setattr(emitter, "intern", slowly)
        counter = Counter.start().proxy()
        for _ in range(3):
            counter.count("a").get()
    assert len(watch.trace.scopes) == 3
    for row in watch.trace.scopes:
        assert 0 <= row.cpu_ns <= row.end_ns - row.start_ns


def test_a_failure_is_told_and_answered_as_ever(tmp_path: Path) -> None:
    with watching(tmp_path, "actors") as watch:
        counter = Counter.start()
        with pytest.raises(LookupError, match="nothing here"):
            counter.proxy().fail().get()
        counter.tell("crash")
        until(lambda: not counter.is_alive(), "the crash")
        with pytest.raises(pykka.ActorDeadError):
            counter.tell("late")
    handled = rows(watch, MESSAGE_HANDLED)
    assert [(row.outcome, row.error) for row in handled] == [
        ("raised", "LookupError: nothing here"),
        ("raised", "ValueError: crashed"),
    ]
    assert [scope.error for scope in watch.trace.scopes] == ["LookupError", "ValueError"]
    lives = [(row.what, row.name, row.reason) for row in rows(watch, ACTOR)]
    assert lives == [
        ("started", "Counter", ""),
        ("failed", "Counter", "ValueError: crashed"),
        ("stopped", "Counter", ""),
    ]
    assert len(rows(watch, MESSAGE_SENT)) == 2


def test_messages_that_wait_are_counted(tmp_path: Path) -> None:
    with watching(tmp_path, "actors") as watch:
        counter = Counter.start()
        assert actors.mailbox_length(counter) == 0
        waiting = counter.proxy().wait()
        until(lambda: actors.mailbox_length(counter) == 0, "the message's being taken")
        for _ in range(3):
            counter.tell("same")
        assert actors.mailbox_length(counter.proxy()) == 3
        actor: Any = actors.actor_of(counter)
        actor.gate.set()
        waiting.get()
        counter.ask("last")
    lengths = [row.length for row in rows(watch, MESSAGE_SENT) if row.name == "str"][:3]
    assert lengths == [0, 1, 2]
    sent = [row.message for row in rows(watch, MESSAGE_SENT)]
    received = [row.message for row in rows(watch, MESSAGE_RECEIVED)]
    assert received == sent  # also the same object, sent three times
    assert 0 not in received


def test_a_mailbox_of_another_kind_and_a_life_of_another_kind_are_followed(tmp_path: Path) -> None:
    class Supervised(SupervisedActor):
        def on_receive(self, message: Any) -> Any:
            if message == "crash":
                raise ValueError("crashed")
            return message

    with watching(tmp_path, "actors") as watch:
        actor = Supervised()
        actor.launch()
        assert actor.actor_ref.ask("hello") == "hello"
        actor.actor_ref.tell("crash")
        assert actor.join(30)
        assert actors.actor_of(actor.actor_ref) is actor
    assert [row.outcome for row in rows(watch, MESSAGE_HANDLED)] == ["returned", "raised"]
    sent = [row.message for row in rows(watch, MESSAGE_SENT)]
    assert [row.message for row in rows(watch, MESSAGE_RECEIVED)] == sent
    assert [row.what for row in rows(watch, ACTOR)] == ["started", "stopped"]


def test_an_actor_s_state_changed_by_a_message_is_seen_at_its_end(tmp_path: Path) -> None:
    class Lazy(pykka.ThreadingActor):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []

    def on_receive(self: Any, message: Any) -> None:
        self.seen.append(message)

    # Not in the class's namespace when the watching begins, so no boundary of its own.
    Lazy.on_receive = on_receive  # type: ignore[method-assign]
    with watching(tmp_path, "actors", "state") as watch:
        lazy = Lazy.start()
        watch.probe("state").watch(lazy)
        Lazy.on_receive = on_receive  # type: ignore[method-assign]
        lazy.ask("a")
    [change] = states.find(watch.trace)
    assert (change.process, change.attribute, change.new, change.trigger) == ("Lazy", "seen", "['a']", "str")
    assert change.scope == next(iter(watch.trace.scopes)).id


def test_timeouts_of_asking_are_the_program_s_own_and_no_answer(tmp_path: Path) -> None:
    with watching(tmp_path, "actors") as watch:
        counter = Counter.start()
        waiting = counter.proxy().wait()
        with pytest.raises(pykka.Timeout):
            counter.ask("too late", timeout=0.01)
        actor: Any = actors.actor_of(counter)
        actor.gate.set()
        waiting.get()
        counter.stop()
    assert rows(watch, MESSAGE_ANSWERED) == []
    assert "ActorStop" in [row.name for row in rows(watch, MESSAGE_SENT)]


class Hostile:
    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # Pykka itself asks for it
            return Hostile
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")


class HostileError(Exception):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)

    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__


class Carrier(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        if type(message) is tuple:
            raise HostileError(Hostile())
        return message


def test_hostile_messages_and_exceptions_go_through_untouched(tmp_path: Path) -> None:
    with watching(tmp_path, "actors") as watch:
        carrier = Carrier.start()
        message = Hostile()
        assert carrier.ask(message) is message
        with pytest.raises(HostileError):
            carrier.ask(())
        assert watch.probe("actors").faults == 0
    assert [row.name for row in rows(watch, MESSAGE_SENT)] == ["Hostile", "tuple"]
    assert [row.error for row in rows(watch, MESSAGE_HANDLED)] == ["", "HostileError"]


PLACES: list[tuple[Any, str]] = [
    (_ref, "Envelope"),
    (pykka.ActorRef, "tell"),
    (pykka.ActorRef, "ask"),
    (pykka.Actor, "_handle_receive"),
    (pykka.Actor, "_handle_failure"),
    (pykka.ActorRegistry, "register"),
    (pykka.ActorRegistry, "unregister"),
]


def test_pykka_is_as_found_after_removal_and_actors_live_on(tmp_path: Path) -> None:
    found = [vars(owner)[name] for owner, name in PLACES]
    early = Counter.start()
    with watching(tmp_path, "actors"):
        assert all(
            vars(owner)[name] is not before for (owner, name), before in zip(PLACES, found, strict=True)
        )
        counter = Counter.start()
        waiting = counter.proxy().wait()
        counter.tell("under way")
        assert early.ask("x") == ["got", "x"]
    assert all(vars(owner)[name] is before for (owner, name), before in zip(PLACES, found, strict=True))
    actor: Any = actors.actor_of(counter)
    actor.gate.set()
    waiting.get()
    assert counter.ask("after") == ["got", "after"]


def test_without_a_recording_the_probe_does_nothing() -> None:
    held = probes.acquire(["actors"])
    try:
        assert Counter.start().ask("x") == ["got", "x"]
        assert actors.sent("a", "A", "x") is None
    finally:
        probes.release(held)


def test_another_library_takes_one_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the package's docstring promises, done: a toy library, an adapter, and nothing else."""
    import sys
    from types import ModuleType

    class Mailman:
        def __init__(self) -> None:
            self.box: list[tuple[Callable[[], Any], Any]] = []

        def post(self, work: Callable[[], Any]) -> None:
            self.box.append((work, None))

        def run(self) -> None:
            for work, _ in self.box:
                work()

    toy = ModuleType("toy_actors")
    toy.Mailman = Mailman  # type: ignore[attr-defined]

    adapter = ModuleType("toy_adapter")

    def patch(patches: Any, library: ModuleType) -> None:
        def post(original: Any) -> Any:
            def replacement(self: Mailman, work: Callable[[], Any]) -> None:
                letter = actors.sent("mailman", "Mailman", "work", len(self.box))

                def opened() -> None:
                    handling = actors.received(self, "mailman", "Mailman", "work", letter, len(self.box))
                    work()
                    handling.ended(None)

                original(self, opened)

            return replacement

        patches.replace(library.Mailman, "post", post)  # type: ignore[attr-defined]

    adapter.patch = patch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_actors", toy)
    monkeypatch.setitem(sys.modules, "toy_adapter", adapter)
    monkeypatch.setitem(actors.ActorsProbe.adapters, "toy_actors", "toy_adapter")  # type: ignore[arg-type]
    adapter.actor_of = lambda target: target if isinstance(target, Mailman) else None  # type: ignore[attr-defined]
    adapter.mailbox_length = lambda actor: len(actor.box)  # type: ignore[attr-defined]
    with watching(tmp_path, "actors") as watch:
        mailman = Mailman()
        mailman.post(lambda: None)
        assert actors.mailbox_length(mailman) == 1
        mailman.run()
    [scope] = watch.trace.scopes
    assert (scope.kind, scope.name) == ("message", "Mailman.work")
    assert rows(watch, MESSAGE_SENT)[0].message == rows(watch, MESSAGE_RECEIVED)[0].message
