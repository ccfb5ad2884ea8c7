"""However an actor ends, its supervisor hears of it, and whoever waits for an answer gets one."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from pykka import ActorDeadError, ActorRegistry, ThreadingActor

from taskflow.supervision import (
    ExitKind,
    Interrupted,
    NotHandled,
    Restart,
    StartFailed,
    SupervisedActor,
    Supervisor,
)
from tests.taskflow.children import Child, Diary, Recorder, Stuck, no_threads_left, wait_until


def system_exit() -> None:
    sys.exit(3)


def interrupt() -> None:
    raise KeyboardInterrupt


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def unprintable() -> None:
    raise Unprintable


CAUSES: dict[str, tuple[Callable[[Child], Any], ExitKind, str]] = {
    "an exception in a handler": (
        lambda child: child.actor_ref.tell("crash"),
        ExitKind.CRASHED,
        "RuntimeError: a crashed",
    ),
    "the same with somebody waiting": (
        lambda child: child.actor_ref.ask("crash", block=False),
        ExitKind.CRASHED,
        "RuntimeError: a crashed",
    ),
    "SystemExit": (lambda child: child.actor_ref.tell(system_exit), ExitKind.CRASHED, "SystemExit: 3"),
    "KeyboardInterrupt": (
        lambda child: child.actor_ref.tell(interrupt),
        ExitKind.CRASHED,
        "KeyboardInterrupt",
    ),
    "an exception without words": (
        lambda child: child.actor_ref.tell(unprintable),
        ExitKind.CRASHED,
        "Unprintable: <exception str() failed>",
    ),
    "a normal stop by itself": (lambda child: child.actor_ref.tell(child.stop), ExitKind.NORMAL, "normal"),
    "a normal stop by another": (lambda child: child.actor_ref.stop(), ExitKind.NORMAL, "normal"),
    "a shutdown by another": (lambda child: child.shutdown(), ExitKind.SHUTDOWN, "shutdown"),
    "a kill": (lambda child: child.kill(), ExitKind.KILLED, "killed"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_of_an_end_is_noticed_with_its_reason(cause: str) -> None:
    end, kind, reason = CAUSES[cause]
    diary, recorder = Diary(), Recorder()
    bystander = Child.start("bystander", diary)
    with no_threads_left():
        with Supervisor(
            "root", [diary.spec("a"), diary.spec("b")], max_restarts=1, listeners=[recorder]
        ) as root:
            first = root.whereis("a")
            assert isinstance(first, Child)
            end(first)
            wait_until(lambda: root.whereis("a") not in (None, first))
            assert first.exit is not None
            assert first.exit.kind is kind
            assert recorder.events[2].kind == "child_terminated"
            assert recorder.events[2].reason.endswith(reason)
            assert recorder.told[3:] == [("child_restarted", "a")]
            # Pykka would take SystemExit and KeyboardInterrupt for an order to stop every actor.
            assert bystander.is_alive()
        assert all(child.exit is not None for child in diary.made if child.name != "bystander")
    bystander.stop()


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("restart", ["transient", "temporary"])
def test_the_restart_type_decides_who_comes_back(cause: str, restart: str) -> None:
    end, kind, _ = CAUSES[cause]
    diary = Diary()
    with Supervisor("root", [diary.spec("a", restart=restart)], max_restarts=1) as root:
        first = root.whereis("a")
        assert isinstance(first, Child)
        end(first)
        first.join()
        [child] = root.which_children() or [None]
        abnormal = kind in (ExitKind.CRASHED, ExitKind.KILLED)
        if restart == Restart.TRANSIENT:
            assert child is not None
            assert (child.status == "running") == abnormal
        else:
            assert child is None


def test_an_exception_in_on_stop_makes_the_end_a_crash() -> None:
    class Careless(Child):
        def on_stop(self) -> None:
            raise OSError("cannot write")

    diary = Diary()
    careless = Careless("careless", diary)
    careless.launch()
    assert str(careless.shutdown()) == "OSError: cannot write"


def test_a_failing_on_failure_does_not_hide_the_first_error() -> None:
    class Careless(Child):
        def on_failure(self, *_: Any) -> None:
            raise OSError("again")

    careless = Careless("careless", Diary())
    careless.launch()
    careless.actor_ref.tell("crash")
    careless.join()
    assert str(careless.exit) == "RuntimeError: careless crashed"


def test_a_failing_start_is_told_to_the_starter() -> None:
    diary = Diary()
    diary.failing_starts["a"] = 1
    ended: list[str] = []
    child = Child("a", diary)
    with no_threads_left(), pytest.raises(StartFailed, match="a could not start: OSError: a has nothing"):
        child.launch(lambda _actor, exit: ended.append(str(exit)))
    assert ended == ["OSError: a has nothing to work with"]


def test_a_start_that_takes_too_long_fails_and_leaves_no_actor() -> None:
    stuck = Stuck()

    class Slow(SupervisedActor):
        def on_start(self) -> None:
            stuck()

    slow = Slow()
    with no_threads_left():
        with pytest.raises(StartFailed, match=r"Slow was not ready after 0\.01 s"):
            slow.launch(timeout=0.01)
        assert slow.exit is not None
        stuck.released.set()
    assert ActorRegistry.get_by_class(Slow) == []


def test_whoever_waits_gets_an_answer_however_the_actor_ends() -> None:
    stuck = Stuck()
    child = Child("a", Diary())
    child.launch()
    handled = child.actor_ref.ask(stuck, block=False)
    waiting = child.actor_ref.ask("hello", block=False)
    stuck.entered.wait()
    child.kill()
    with pytest.raises(Interrupted):
        handled.get()
    with pytest.raises(NotHandled):
        waiting.get()
    with pytest.raises(ActorDeadError):
        child.actor_ref.ask("too late")
    with pytest.raises(ActorDeadError):
        child.actor_ref.tell("too late")
    stuck.released.set()


def test_an_asker_whose_message_crashed_the_actor_can_rely_on_its_death() -> None:
    child = Child("a", Diary())
    child.launch()
    with pytest.raises(RuntimeError, match="a crashed"):
        child.actor_ref.ask("crash")
    assert child.exit is not None
    assert not child.actor_ref.is_alive()


def test_errors_that_are_answers_do_not_end_the_actor() -> None:
    class Polite(Child):
        answers_with = (LookupError,)

    def missing() -> None:
        raise KeyError("missing")

    polite = Polite("polite", Diary())
    polite.launch()
    with pytest.raises(KeyError):
        polite.actor_ref.ask(missing)
    assert polite.actor_ref.ask("still here") == "still here"
    polite.actor_ref.tell(missing)  # with nobody to answer it is a crash like any other
    polite.join()
    assert str(polite.exit) == "KeyError: 'missing'"


def test_a_message_withdrawn_in_time_is_never_handled() -> None:
    stuck = Stuck()
    handled: list[str] = []
    child = Child("a", Diary())
    child.launch()
    child.actor_ref.tell(stuck)
    answer = child.actor_ref.ask(lambda: handled.append("withdrawn"), block=False)
    assert answer.withdraw()  # type: ignore[attr-defined]
    stuck.released.set()
    kept = child.actor_ref.ask(lambda: handled.append("kept"), block=False)
    kept.get()
    assert handled == ["kept"]
    assert not kept.withdraw()  # type: ignore[attr-defined]
    child.shutdown()


def test_an_actor_is_usable_without_a_supervisor_as_any_of_pykka() -> None:
    with no_threads_left():
        ref = Child.start("alone", Diary())
        assert ref.ask("hello") == "hello"
        assert ref.proxy().name.get() == "alone"
        assert ref.stop()
        assert not ref.is_alive()
        assert not ref.stop()
    assert issubclass(Child, ThreadingActor)
