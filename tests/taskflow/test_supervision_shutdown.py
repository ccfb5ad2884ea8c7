"""Ending: in reverse order, with a timeout each, and nothing left behind."""

import threading
import time
from typing import Any

import pytest

from taskflow.supervision import (
    ChildSpec,
    ChildType,
    Exit,
    ExitKind,
    Interrupted,
    StartFailed,
    SupervisedActor,
    Supervisor,
)
from taskflow.supervision.exits import Killed
from tests.taskflow.children import Child, Diary, Recorder, Stuck, no_threads_left, wait_until


class Deaf(Child):
    """Told anything it computes for ever, and listens to no order; only a kill reaches it."""

    def on_receive(self, message: Any) -> None:
        message.set()
        while True:
            pass


class Wedged(Child):
    """Told to wait it does so inside a call into C, where not even a kill reaches it."""

    def __init__(self, name: str, diary: Diary, stuck: Stuck) -> None:
        super().__init__(name, diary)
        self.stuck = stuck

    def on_receive(self, message: Any) -> None:
        self.stuck()


def test_children_end_one_by_one_in_the_reverse_order_of_their_start() -> None:
    diary, recorder = Diary(), Recorder()
    with (
        no_threads_left(),
        Supervisor("root", [diary.spec(name) for name in "abc"], listeners=[recorder]) as root,
    ):
        root.start_child(diary.spec("late"))
    names = ["a", "b", "c", "late"]
    assert diary.entries == [(n, "start") for n in names] + [(n, "stop") for n in reversed(names)]
    assert recorder.told[4:] == [("child_shutdown", name) for name in reversed(names)]
    assert {event.reason for event in recorder.events[4:]} == {"shutdown"}


def test_a_child_finishes_what_it_does_but_not_what_waits() -> None:
    diary = Diary()
    stuck = Stuck()
    handled: list[int] = []
    with Supervisor("root", [diary.spec("a")]) as root:
        child = root.whereis("a")
        assert child is not None
        running = child.actor_ref.ask(stuck, block=False)
        for number in range(3):
            child.actor_ref.tell(lambda number=number: handled.append(number))
        stuck.entered.wait()
        threading.Thread(
            target=lambda: (wait_until(lambda: len(child.mailbox._waiting) == 4), stuck.released.set())
        ).start()
    assert running.get() is None
    assert handled == []
    assert diary.entries[-1] == ("a", "stop")


def test_a_child_that_computes_past_its_timeout_is_killed() -> None:
    diary, recorder = Diary(), Recorder()
    spec = ChildSpec("deaf", lambda: Deaf("deaf", diary), shutdown=0.01)
    with no_threads_left(), Supervisor("root", [diary.spec("a"), spec], listeners=[recorder]) as root:
        deaf = root.whereis("deaf")
        assert deaf is not None
        hears = threading.Event()
        deaf.actor_ref.tell(hears)
        hears.wait()
    assert deaf.exit is not None
    assert deaf.exit.kind is ExitKind.KILLED
    assert [(e.kind, e.child, e.reason) for e in recorder.events[2:]] == [
        ("child_shutdown", "deaf", "killed"),
        ("child_shutdown", "a", "shutdown"),
    ]
    assert ("deaf", "stop") not in diary.entries


def test_a_child_stuck_where_no_kill_reaches_it_is_abandoned_and_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    diary, recorder, stuck = Diary(), Recorder(), Stuck()
    spec = ChildSpec("wedged", lambda: Wedged("wedged", diary, stuck), shutdown=0.01)
    with no_threads_left():
        with Supervisor("root", [diary.spec("a"), spec], listeners=[recorder]) as root:
            wedged = root.whereis("wedged")
            assert wedged is not None
            wedged.actor_ref.tell("wait")
            stuck.entered.wait()
        assert [(e.kind, e.child, e.reason) for e in recorder.events[2:]] == [
            ("child_shutdown", "wedged", "abandoned"),
            ("child_shutdown", "a", "shutdown"),
        ]
        assert "wedged does not end and is abandoned" in caplog.text
        assert wedged._thread is not None
        assert wedged._thread.daemon  # so that the process can end
        # When the call returns at last, the thread ends: it touches nothing any more.
        stuck.released.set()


def test_a_child_specified_to_be_killed_is_not_asked() -> None:
    diary, recorder = Diary(), Recorder()
    with (
        no_threads_left(),
        Supervisor("root", [diary.spec("a", shutdown="kill")], listeners=[recorder]) as root,
    ):
        assert root.whereis("a") is not None
    assert diary.entries == [("a", "start")]
    assert [(e.kind, e.reason) for e in recorder.events[1:]] == [("child_shutdown", "killed")]


def test_a_killed_supervisor_takes_its_children_along() -> None:
    diary = Diary()
    stuck = Stuck()
    inner = ChildSpec(
        "inner",
        lambda: Supervisor("inner", [diary.spec("a"), diary.spec("b")]),
        type=ChildType.SUPERVISOR,
        shutdown=0.01,
    )
    with no_threads_left():
        with Supervisor("root", [inner]) as root:
            supervisor = root.whereis("inner")
            assert isinstance(supervisor, Supervisor)
            a, b = supervisor.whereis("a"), supervisor.whereis("b")
            assert a is not None
            assert b is not None
            b.actor_ref.tell(stuck)  # keeps `inner` from ending in time
            stuck.entered.wait()
        assert a.exit is not None
        assert b.exit is not None
        stuck.released.set()


def test_a_killed_supervisor_restarts_nobody() -> None:
    for _ in range(20):
        diary = Diary()
        inner = ChildSpec(
            "inner",
            lambda diary=diary: Supervisor("inner", [diary.spec("a"), diary.spec("b")], max_restarts=10**9),
            type=ChildType.SUPERVISOR,
            shutdown="kill",
        )
        with no_threads_left():
            with Supervisor("root", [inner]):
                pass
            assert all(child.exit is not None for child in diary.made)
        assert [name for name, _ in diary.entries] == ["a", "b"]


def test_a_supervisor_killed_while_a_child_starts_takes_that_child_along() -> None:
    stuck = Stuck()

    class Slow(SupervisedActor):
        def on_start(self) -> None:
            stuck()

    root = Supervisor("root", [])
    with no_threads_left():
        root.launch()
        starting = root.actor_ref.proxy().start_child(ChildSpec("slow", Slow))
        stuck.entered.wait()
        root.kill()
        stuck.released.set()
        with pytest.raises(Interrupted):
            starting.get()


def test_a_kill_that_strikes_while_the_actor_ends_spoils_nothing() -> None:
    struck: list[str] = []

    def watcher(_actor: SupervisedActor, exit: Exit) -> None:
        struck.append(str(exit))
        if len(struck) == 1:
            raise Killed

    child = Child("a", Diary())
    with no_threads_left():
        child.launch(watcher)
        assert child.actor_ref.stop()
        assert child.join()
    assert struck == ["normal", "normal"]


def test_a_failing_start_ends_those_that_run_and_leaves_nothing() -> None:
    diary, recorder = Diary(), Recorder()
    diary.failing_starts["c"] = 1
    root = Supervisor("root", [diary.spec(name) for name in "abcd"], listeners=[recorder])
    with no_threads_left(), pytest.raises(StartFailed, match=r"root could not start.*c has nothing"):
        root.launch()
    assert diary.entries == [(n, "start") for n in "abc"] + [(n, "stop") for n in "ba"]
    assert recorder.told == [
        ("child_started", "a"),
        ("child_started", "b"),
        ("child_terminated", "c"),
        ("child_shutdown", "b"),
        ("child_shutdown", "a"),
    ]


@pytest.mark.parametrize("broken", [lambda: 1 // 0, lambda: "no actor", Child])
def test_a_factory_that_makes_no_actor_is_a_failed_start(broken: Any) -> None:
    with (
        no_threads_left(),
        pytest.raises(
            StartFailed, match=r"could not be made: ZeroDivisionError|made no actor but str|TypeError"
        ),
    ):
        Supervisor("root", [ChildSpec("broken", broken)]).launch()


def test_a_defect_in_the_supervisor_itself_ends_its_children_too() -> None:
    class Defective(Supervisor):
        def on_receive(self, message: Any) -> None:
            raise ZeroDivisionError

    diary = Diary()
    root = Defective("root", [diary.spec("a"), diary.spec("b")])
    with no_threads_left():
        root.launch()
        root.actor_ref.tell("anything")
        root.join()
    assert str(root.exit) == "ZeroDivisionError"
    assert diary.entries[-2:] == [("b", "stop"), ("a", "stop")]


def test_ending_twice_or_before_the_start_is_no_error() -> None:
    root = Supervisor("root", [])
    assert root.shutdown().kind is ExitKind.SHUTDOWN
    other = Supervisor("other", [Diary().spec("a")])
    with no_threads_left():
        other.launch()
        assert other.shutdown() == other.shutdown()
        assert other.kill() == other.exit


def test_many_kills_at_random_moments_always_end_the_actor() -> None:
    """The exception of a kill can strike anywhere, also while the thread is ending by itself."""

    class Busy(SupervisedActor):
        def on_receive(self, message: Any) -> None:
            time.sleep(message)

    with no_threads_left():
        for number in range(60):
            told: list[str] = []
            busy = Busy()
            busy.launch(lambda _actor, exit, told=told: told.append(str(exit)))
            for _ in range(5):
                busy.actor_ref.tell(0)
            if number % 2:
                busy.stop()
            time.sleep(number % 7 / 5000)
            busy.kill()
            assert busy.exit is not None
            assert told
            assert set(told) == {str(busy.exit)}
