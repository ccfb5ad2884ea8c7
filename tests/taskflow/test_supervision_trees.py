"""Supervisors under supervisors: escalation, the root's end, and what observers of the tree are told."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskflow.supervision import (
    ChildSpec,
    ChildStatus,
    ChildType,
    ExitKind,
    MaxRestartsExceeded,
    Strategy,
    Supervisor,
    SupervisorEvent,
)
from tests.taskflow.children import Diary, Recorder, no_threads_left, wait_until


def tree(diary: Diary, outer: int, inner: int, restart: str = "permanent", **options: object) -> Supervisor:
    """root → inner → a, b; `outer` and `inner` restarts are allowed, all in one window."""
    make = partial(
        Supervisor, "inner", [diary.spec("a"), diary.spec("b")], max_restarts=inner, max_seconds=3600.0
    )
    spec = ChildSpec("inner", make, restart=restart, type=ChildType.SUPERVISOR)  # type: ignore[arg-type]
    return Supervisor("root", [spec], max_restarts=outer, max_seconds=3600.0, **options)  # type: ignore[arg-type]


def crash(root: Supervisor, name: str = "a") -> None:
    """Crash the running child of that name under `inner`, and wait until somebody has dealt with it."""
    wait_until(lambda: isinstance(s := root.whereis("inner"), Supervisor) and s.whereis(name))
    inner = root.whereis("inner")
    assert isinstance(inner, Supervisor)
    child = inner.whereis(name)
    assert child is not None
    child.actor_ref.tell("crash")
    child.join()
    wait_until(
        lambda: (
            root.exit
            or (isinstance(s := root.whereis("inner"), Supervisor) and s.whereis(name) not in (None, child))
        )
    )


@settings(max_examples=20, deadline=None)
@given(outer=st.integers(0, 2), inner=st.integers(0, 2))
def test_a_tree_takes_as_many_crashes_as_the_intensities_of_its_levels_multiply_to(
    outer: int, inner: int
) -> None:
    diary, recorder = Diary(), Recorder()
    root = tree(diary, outer, inner, listeners=[recorder])
    with no_threads_left():
        root.launch()
        crashes = 0
        while root.exit is None:
            crash(root)
            crashes += 1
        root.join()
    assert crashes == (outer + 1) * (inner + 1)
    exceeded = [event for event in recorder.events if event.kind == "max_restarts_exceeded"]
    assert [(event.supervisor, event.restart_count) for event in exceeded] == [
        ("inner", inner + 1)
    ] * outer + [("inner", inner + 1), ("root", outer + 1)]
    assert exceeded[0].reason == "RuntimeError: a crashed"
    assert exceeded[-1].reason.startswith("shutdown (")
    assert "MaxRestartsExceeded" in exceeded[-1].reason
    assert root.exit is not None
    assert root.exit.kind is ExitKind.SHUTDOWN
    assert isinstance(root.exit.error, MaxRestartsExceeded)


def test_a_supervisor_that_gives_up_ends_its_other_children_and_is_restarted_with_all() -> None:
    diary, recorder = Diary(), Recorder()
    with no_threads_left(), tree(diary, 1, 0, listeners=[recorder]) as root:
        crash(root)
        wait_until(lambda: ("child_restarted", "inner") in recorder.told)
        assert [(e.kind.value, e.supervisor, e.child) for e in recorder.events[3:]] == [
            ("child_terminated", "inner", "a"),
            ("max_restarts_exceeded", "inner", "a"),
            ("child_shutdown", "inner", "b"),
            ("child_terminated", "root", "inner"),
            ("child_started", "inner", "a"),
            ("child_started", "inner", "b"),
            ("child_restarted", "root", "inner"),
        ]


def test_a_transient_supervisor_that_gave_up_stays_down_since_that_is_a_shutdown() -> None:
    diary, recorder = Diary(), Recorder()
    with tree(diary, 5, 0, restart="transient", listeners=[recorder]) as root:
        inner = root.whereis("inner")
        assert isinstance(inner, Supervisor)
        a = inner.whereis("a")
        assert a is not None
        a.actor_ref.tell("crash")
        inner.join()
        assert [child.status for child in root.which_children()] == [ChildStatus.DOWN]
        root.restart_child("inner")
        assert isinstance(root.whereis("inner"), Supervisor)


def test_restarts_older_than_the_window_are_forgiven() -> None:
    now = 0.0
    diary = Diary()
    root = Supervisor("root", [diary.spec("a")], max_restarts=1, max_seconds=5.0, clock=lambda: now)
    with root:
        for now in (0.0, 5.1, 10.2, 15.3):  # noqa: B007
            child = root.whereis("a")
            assert child is not None
            child.actor_ref.tell("crash")
            child.join()
            root.count_children()
        assert root.exit is None
        now = 20.3  # 5.0 s after the one before, which still counts
        child = root.whereis("a")
        assert child is not None
        child.actor_ref.tell("crash")
        child.join()
        root.join()
    assert root.exit is not None
    assert isinstance(root.exit.error, MaxRestartsExceeded)


def test_a_crash_loop_in_on_start_counts_each_try_and_ends() -> None:
    diary, recorder = Diary(), Recorder()
    root = Supervisor("root", [diary.spec("a"), diary.spec("b")], max_restarts=3, listeners=[recorder])
    with no_threads_left():
        root.launch()
        diary.failing_starts["a"] = 1000
        child = root.whereis("a")
        assert child is not None
        child.actor_ref.tell("crash")
        root.join()
    tries = [event.restart_count for event in recorder.events if event.kind == "child_terminated"]
    assert tries == [0, 1, 2, 3]
    assert recorder.events[-2].kind == "max_restarts_exceeded"
    assert recorder.events[-2].restart_count == 4
    assert "OSError: a has nothing to work with" in recorder.events[-2].reason
    assert recorder.told[-1] == ("child_shutdown", "b")


def test_a_supervisor_can_be_ended_in_the_middle_of_a_crash_loop() -> None:
    diary = Diary()
    root = Supervisor("root", [diary.spec("a")], max_restarts=10**9)
    with no_threads_left():
        root.launch()
        diary.failing_starts["a"] = 10**9
        child = root.whereis("a")
        assert child is not None
        child.actor_ref.tell("crash")
        wait_until(lambda: len(diary.entries) > 5)
        assert root.which_children()[0].status is ChildStatus.RESTARTING
        assert root.shutdown().kind is ExitKind.SHUTDOWN


def test_a_child_in_a_crash_loop_can_be_terminated_and_stays_down() -> None:
    diary = Diary()
    with no_threads_left(), Supervisor("root", [diary.spec("a")], max_restarts=10**9) as root:
        diary.failing_starts["a"] = 10**9
        child = root.whereis("a")
        assert child is not None
        child.actor_ref.tell("crash")
        wait_until(lambda: len(diary.entries) > 5)
        root.terminate_child("a")  # the next try is in the mailbox already
        tries = len(diary.entries)
        assert [child.status for child in root.which_children()] == [ChildStatus.DOWN]
        assert len(diary.entries) == tries
        diary.failing_starts.clear()
        root.restart_child("a")
        assert [child.status for child in root.which_children()] == [ChildStatus.RUNNING]


def test_a_failing_listener_harms_nobody_and_one_removed_hears_nothing() -> None:
    class Failing:
        def on_event(self, event: SupervisorEvent) -> None:
            raise ZeroDivisionError

    diary, recorder, removed = Diary(), Recorder(), Recorder()
    with Supervisor("root", [diary.spec("a")], listeners=[Failing(), recorder, removed]) as root:
        root.remove_listener(removed)
        root.start_child(diary.spec("b"))
    assert recorder.told[:2] == [("child_started", "a"), ("child_started", "b")]
    assert removed.told == [("child_started", "a")]


def test_children_may_use_their_supervisor_and_its_proxy() -> None:
    diary = Diary()
    with Supervisor("root", [diary.spec("a")]) as root:
        child = root.whereis("a")
        assert child is not None
        started = child.actor_ref.ask(lambda: root.start_child(diary.spec("b")))
        assert started is root.whereis("b")
        assert root.actor_ref.proxy().count_children().get() == root.count_children()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda spec: ChildSpec("", spec),
        lambda spec: ChildSpec("a", spec, restart="sometimes"),
        lambda spec: ChildSpec("a", spec, shutdown=-1),
        lambda spec: ChildSpec("a", spec, shutdown="soon"),
        lambda spec: Supervisor("root", [ChildSpec("a", spec), ChildSpec("a", spec)]),
        lambda spec: Supervisor("root", [], strategy="two_for_one"),
        lambda spec: Supervisor("root", [], max_restarts=-1),
        lambda spec: Supervisor("root", [], max_seconds=0),
    ],
)
def test_a_wrong_specification_is_refused_when_it_is_made(wrong: object) -> None:
    with pytest.raises(ValueError):
        wrong(lambda: None)  # type: ignore[operator]


def test_the_words_of_otp_do_as_well() -> None:
    diary = Diary()
    root = Supervisor("root", [diary.spec("a", restart="transient")], strategy="one_for_all")  # type: ignore[arg-type]
    assert root.strategy is Strategy.ONE_FOR_ALL
