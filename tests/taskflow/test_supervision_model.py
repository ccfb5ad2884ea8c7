"""The supervisor against a model of OTP's rules, on random lives of random children."""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pykka import ActorDeadError

from taskflow.supervision import (
    AlreadyPresent,
    ChildStartFailed,
    ChildStatus,
    ExitKind,
    NoSuchChild,
    StartFailed,
    Strategy,
    SupervisionError,
    Supervisor,
)
from tests.taskflow.children import Diary, Recorder, no_threads_left

NAMES = ["a", "b", "c", "d", "e"]
RESTARTS = ["permanent", "transient", "temporary"]
names = st.sampled_from(NAMES)
failing = st.dictionaries(names, st.integers(1, 3), max_size=2)


@dataclass
class ModelChild:
    name: str
    restart: str
    pid: str = "undefined"  # or "running", "restarting"
    restarts: int = 0


@dataclass
class Model:
    """What OTP's supervisor.erl does, function by function, written down once more as simply as can be."""

    strategy: str
    max_restarts: int
    max_seconds: float
    children: list[ModelChild] = field(default_factory=list)
    failing: dict[str, int] = field(default_factory=dict)
    window: list[float] = field(default_factory=list)
    now: float = 0.0
    alive: bool = True
    diary: list[tuple[str, str]] = field(default_factory=list)
    events: list[tuple[str, str, int]] = field(default_factory=list)

    def find(self, name: str) -> ModelChild | None:
        return next((child for child in self.children if child.name == name), None)

    def tell(self, kind: str, child: ModelChild) -> None:
        self.events.append((kind, child.name, child.restarts))

    def do_start_child(self, child: ModelChild, again: bool = False) -> bool:
        child.restarts += again
        self.diary.append((child.name, "start"))
        if self.failing.get(child.name, 0) > 0:
            self.failing[child.name] -= 1
            self.tell("child_terminated", child)
            return False
        child.pid = "running"
        self.tell("child_restarted" if again else "child_started", child)
        return True

    def start(self) -> bool:
        for child in self.children:
            if not self.do_start_child(child):
                self.terminate()
                return False
        return True

    def terminate(self) -> None:
        self.terminate_children(self.children)
        self.alive = False

    def terminate_children(self, children: list[ModelChild]) -> list[ModelChild]:
        """Ends them last first; returns those to start again, first first."""
        for child in reversed(children):
            if child.pid == "running":
                self.diary.append((child.name, "stop"))
                self.tell("child_shutdown", child)
            child.pid = "undefined"
        return [child for child in children if child.restart != "temporary"]

    def exited(self, child: ModelChild, reason: str) -> None:
        child.pid = "undefined"
        self.tell("child_terminated", child)
        if child.restart == "permanent" or (child.restart == "transient" and reason == "crash"):
            self.restart_child(child)
        elif child.restart == "temporary":
            self.children.remove(child)

    def restart_child(self, child: ModelChild) -> None:
        self.window = [at for at in [*self.window, self.now] if self.now - at <= self.max_seconds]
        if len(self.window) > self.max_restarts:
            self.events.append(("max_restarts_exceeded", child.name, len(self.window)))
            child.pid = "undefined"
            self.terminate()
            return
        before: list[ModelChild] = []
        match self.strategy:
            case "one_for_one":
                if not self.do_start_child(child, again=True):
                    child.pid = "restarting"
                    self.restart_child(child)
                return
            case "one_for_all":
                after = self.children
            case _:
                position = self.children.index(child)
                before, after = self.children[:position], self.children[position:]
        after = self.terminate_children(after)
        self.children = before + after
        for sibling in after:
            if not self.do_start_child(sibling, again=True):
                sibling.pid = "restarting"
                self.restart_child(sibling)
                return


class SupervisorAgainstModel(RuleBasedStateMachine):
    """One supervisor, told and done to what the rules choose; after each rule it stands where the model does."""

    @initialize(
        strategy=st.sampled_from(list(Strategy)),
        max_restarts=st.integers(0, 4),
        max_seconds=st.sampled_from([0.5, 1.0, 5.0]),
        restarts=st.lists(st.sampled_from(RESTARTS), max_size=4),
        fails=failing,
    )
    def begin(
        self,
        strategy: Strategy,
        max_restarts: int,
        max_seconds: float,
        restarts: list[str],
        fails: dict[str, int],
    ) -> None:
        self.model = Model(strategy.value, max_restarts, max_seconds)
        self.diary, self.recorder = Diary(), Recorder()
        self.model.children = [ModelChild(*pair) for pair in zip(NAMES, restarts, strict=False)]
        self.supervisor = Supervisor(
            "root",
            [self.diary.spec(child.name, restart=child.restart) for child in self.model.children],
            strategy,
            max_restarts,
            max_seconds,
            clock=lambda: self.model.now,
            listeners=[self.recorder],
        )
        self.let_fail(fails)
        if self.model.start():
            self.supervisor.launch()
        else:
            with pytest.raises(StartFailed, match="has nothing to work with"):
                self.supervisor.launch()

    def let_fail(self, fails: dict[str, int]) -> None:
        self.diary.failing_starts.clear()
        self.diary.failing_starts.update(fails)
        self.model.failing = dict(fails)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds

    @precondition(lambda self: self.model.alive)
    @rule(name=names, reason=st.sampled_from(["crash", "stop"]), fails=failing)
    def a_child_ends(self, name: str, reason: str, fails: dict[str, int]) -> None:
        child, actor = self.model.find(name), self.supervisor.whereis(name)
        assert (actor is not None) == (child is not None and child.pid == "running")
        if child is None or actor is None:
            return
        self.let_fail(fails)
        if reason == "stop":
            self.model.diary.append((name, "stop"))
            actor.stop()
        else:
            actor.actor_ref.tell("crash")
        actor.join()
        self.model.exited(child, reason)

    @precondition(lambda self: self.model.alive)
    @rule(name=names, restart=st.sampled_from(RESTARTS), fails=failing)
    def start_child(self, name: str, restart: str, fails: dict[str, int]) -> None:
        self.let_fail(fails)
        spec = self.diary.spec(name, restart=restart)
        if self.model.find(name) is not None:
            with pytest.raises(AlreadyPresent):
                self.supervisor.start_child(spec)
            return
        child = ModelChild(name, restart)
        if self.model.do_start_child(child):
            self.model.children.append(child)
            assert self.supervisor.start_child(spec) is self.supervisor.whereis(name)
        else:
            with pytest.raises(ChildStartFailed, match="has nothing to work with"):
                self.supervisor.start_child(spec)

    @precondition(lambda self: self.model.alive)
    @rule(name=names)
    def terminate_child(self, name: str) -> None:
        child = self.model.find(name)
        if child is None:
            with pytest.raises(NoSuchChild):
                self.supervisor.terminate_child(name)
            return
        if not self.model.terminate_children([child]):
            self.model.children.remove(child)
        self.supervisor.terminate_child(name)

    @precondition(lambda self: self.model.alive)
    @rule(name=names, fails=failing)
    def restart_child(self, name: str, fails: dict[str, int]) -> None:
        child = self.model.find(name)
        self.let_fail(fails)
        if child is None or child.pid != "undefined":
            with pytest.raises(NoSuchChild if child is None else SupervisionError):
                self.supervisor.restart_child(name)
        elif self.model.do_start_child(child, again=True):
            self.supervisor.restart_child(name)
        else:
            with pytest.raises(ChildStartFailed):
                self.supervisor.restart_child(name)

    @precondition(lambda self: self.model.alive)
    @rule(name=names)
    def delete_child(self, name: str) -> None:
        child = self.model.find(name)
        if child is None or child.pid != "undefined":
            with pytest.raises(NoSuchChild if child is None else SupervisionError):
                self.supervisor.delete_child(name)
        else:
            self.model.children.remove(child)
            self.supervisor.delete_child(name)

    @invariant()
    def stands_where_the_model_does(self) -> None:
        self.settle()
        events = [(event.kind.value, event.child, event.restart_count) for event in self.recorder.events]
        assert events == self.model.events
        assert self.diary.entries == self.model.diary
        if not self.model.alive:
            assert self.supervisor.exit is not None
            assert [child.exit is not None for child in self.diary.made] == [True] * len(self.diary.made)
            return
        assert self.supervisor.exit is None
        children = self.supervisor.which_children()
        assert [(child.name, child.status.value) for child in children] == [
            (child.name, child.pid) for child in self.model.children
        ]
        assert all(child.actor is self.supervisor.whereis(child.name) for child in children)
        counts = self.supervisor.count_children()
        running = sum(child.pid == "running" for child in self.model.children)
        assert (counts.specs, counts.active) == (len(children), running)

    def settle(self) -> None:
        """Until no restart is due any more; each try is a message behind our question."""
        try:
            while ChildStatus.RESTARTING in {child.status for child in self.supervisor.which_children()}:
                pass
        except ActorDeadError:
            self.supervisor.join()

    def teardown(self) -> None:
        if hasattr(self, "supervisor"):
            gave_up = not self.model.alive
            if not gave_up:
                self.model.terminate()
            exit = self.supervisor.shutdown()
            assert gave_up or exit.kind is ExitKind.SHUTDOWN
            assert self.diary.entries == self.model.diary


def test_a_supervisor_does_what_the_model_of_otp_does() -> None:
    with no_threads_left():
        run_state_machine_as_test(
            SupervisorAgainstModel,
            settings=settings(
                max_examples=80,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
