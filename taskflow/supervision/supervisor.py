"""The supervisor: starts its children in order, watches them, restarts them by the rules, or gives up."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Self

from pykka import ActorDeadError
from pykka.messages import ProxyCall

from taskflow.supervision.actor import StartFailed, SupervisedActor, is_own_thread
from taskflow.supervision.events import EventKind, Listener, Listeners, SupervisorEvent
from taskflow.supervision.exits import Exit, ExitKind, Killed
from taskflow.supervision.intensity import RestartIntensity
from taskflow.supervision.mailbox import SystemMessage
from taskflow.supervision.specs import ChildCounts, ChildInfo, ChildSpec, ChildStatus, ChildType, Restart

logger = logging.getLogger(__name__)


class Strategy(StrEnum):
    """Which children a restart concerns."""

    ONE_FOR_ONE = "one_for_one"
    """The one that ended."""
    ONE_FOR_ALL = "one_for_all"
    """All of them."""
    REST_FOR_ONE = "rest_for_one"
    """The one that ended and those started after it."""


class SupervisionError(Exception):
    """What a supervisor refuses to do; its state has not changed."""


class NoSuchChild(SupervisionError):
    """The supervisor has no child of that name."""


class AlreadyPresent(SupervisionError):
    """There is such a child already, running or not."""


class ChildStartFailed(SupervisionError):
    """A child could not be started; its specification is not kept."""


class MaxRestartsExceeded(Exception):
    """Children ended more often than the supervisor's restart intensity allows."""


@dataclass(frozen=True, slots=True)
class _ChildExited(SystemMessage):
    child: SupervisedActor
    exit: Exit


@dataclass(frozen=True, slots=True)
class _TryAgain(SystemMessage):
    name: str
    reason: str


@dataclass(slots=True)
class _Child:
    """What the supervisor knows of one child: `actor` runs, or `restarting` says another try is due."""

    spec: ChildSpec
    actor: SupervisedActor | None = None
    restarting: bool = False
    restart_count: int = 0

    @property
    def status(self) -> ChildStatus:
        if self.actor is not None:
            return ChildStatus.RUNNING
        return ChildStatus.RESTARTING if self.restarting else ChildStatus.DOWN


class Supervisor(SupervisedActor):
    """An actor that keeps other actors running; see the rules in `taskflow.supervision`.

    `children` are started in order by `launch` (or on entering a `with` block), which raises StartFailed
    when one cannot be. More than `max_restarts` restarts within `max_seconds`, counted over all children,
    end the supervisor. Its methods may be called from any thread; they are carried out one at a time in
    the supervisor's own, so a call waits for a restart or a shutdown that is under way.
    """

    answers_with: ClassVar[tuple[type[Exception], ...]] = (SupervisionError,)

    def __init__(
        self,
        name: str,
        children: Iterable[ChildSpec] = (),
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        max_restarts: int = 1,
        max_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        listeners: Iterable[Listener] = (),
    ) -> None:
        super().__init__()
        self.name = self.label = name
        self.strategy = Strategy(strategy)
        self.intensity = RestartIntensity(max_restarts, max_seconds, clock)
        self._children: dict[str, _Child] = {}
        for spec in children:
            if spec.name in self._children:
                raise ValueError(f"two children named {spec.name}")
            self._children[spec.name] = _Child(spec)
        self._listeners = Listeners()
        for listener in listeners:
            self._listeners.add(listener)

    # What others may ask of it

    def start_child(self, spec: ChildSpec) -> SupervisedActor:
        """Add a child and start it, last in order. AlreadyPresent, ChildStartFailed."""
        actor: SupervisedActor = self._call("_start_child", spec)
        return actor

    def terminate_child(self, name: str) -> None:
        """End a child; it is not restarted, unless by name or with its siblings. NoSuchChild.

        Its specification is kept, except that of a temporary child.
        """
        self._call("_terminate_child", name)

    def restart_child(self, name: str) -> SupervisedActor:
        """Start a child that is down. NoSuchChild, ChildStartFailed, SupervisionError when it is not down."""
        actor: SupervisedActor = self._call("_restart_child", name)
        return actor

    def delete_child(self, name: str) -> None:
        """Forget a child that is down. NoSuchChild, SupervisionError when it is not down."""
        self._call("_delete_child", name)

    def which_children(self) -> list[ChildInfo]:
        """The children in the order of their start."""
        children: list[ChildInfo] = self._call("_which_children")
        return children

    def count_children(self) -> ChildCounts:
        """How many children there are."""
        counts: ChildCounts = self._call("_count_children")
        return counts

    def whereis(self, name: str) -> SupervisedActor | None:
        """The running child of that name, as it stands; never waits."""
        child = self._children.get(name)
        actor = child.actor if child is not None else None
        return actor if actor is not None and actor.exit is None else None

    def add_listener(self, listener: Listener) -> None:
        """Tell `listener` of every event of this supervisor and of the supervisors below it."""
        self._listeners.add(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Tell `listener` no more."""
        self._listeners.remove(listener)

    def on_event(self, event: SupervisorEvent) -> None:
        """Hand on what a supervisor below tells."""
        self._listeners.tell(event)

    def __enter__(self) -> Self:
        self.launch()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _call(self, method: str, *arguments: Any) -> Any:
        if is_own_thread(self):
            return getattr(self, method)(*arguments)
        return self.actor_ref.ask(ProxyCall((method,), arguments, {}))

    # Its own life

    def on_start(self) -> None:
        """Start the children in order; if one fails, end those that run and fail with it."""
        for child in list(self._children.values()):
            try:
                self._start(child)
            except StartFailed:
                self._shut_down_all()
                raise

    def on_receive(self, message: Any) -> None:
        """Take note of a child's end, or try to restart it once more."""
        match message:
            case _ChildExited(actor, exit):
                for child in self._children.values():
                    if child.actor is actor:
                        self._has_ended(child, exit)
                        break
            case _TryAgain(name, reason):
                again = self._children.get(name)
                if again is not None and again.restarting:
                    self._restart(again, reason)
            case _:
                super().on_receive(message)

    def on_stop(self) -> None:
        """End the children, last started first."""
        self._shut_down_all()

    def on_failure(self, *_: object) -> None:
        """The same when the supervisor itself has a defect."""
        self._shut_down_all()

    def kill(self) -> Exit:
        """Kill the supervisor, and the children it can no longer look after."""
        self._strike()  # first, or it would restart them
        for child in reversed(list(self._children.values())):
            if (actor := child.actor) is not None:
                self._tell_end(child, actor.kill())
        return super().kill()

    # Starting and ending children

    def _start(self, child: _Child, reason: str = "", again: bool = False) -> None:
        if again:
            child.restart_count += 1
        actor = None
        try:
            actor = self._made(child.spec)
            actor.launch(self._note_exit, child.spec.start_seconds)
            child.actor = actor
        except StartFailed as failure:
            self._tell(EventKind.CHILD_TERMINATED, child, str(failure))
            raise
        except Killed:
            if actor is not None:
                actor.kill()  # nobody else knows of it yet
            raise
        self._tell(EventKind.CHILD_RESTARTED if again else EventKind.CHILD_STARTED, child, reason)

    def _made(self, spec: ChildSpec) -> SupervisedActor:
        try:
            actor = spec.factory()
        except Exception as error:
            raise StartFailed(f"{spec.name} could not be made: {Exit.of(error)}") from error
        if not isinstance(actor, SupervisedActor):
            raise StartFailed(f"the factory of {spec.name} made no actor but {type(actor).__name__}")
        if isinstance(actor, Supervisor):
            actor.add_listener(self)
        return actor

    def _note_exit(self, actor: SupervisedActor, exit: Exit) -> None:
        """Called in the child's thread."""
        try:
            self.actor_ref.tell(_ChildExited(actor, exit))
        except ActorDeadError:
            pass

    def _shut_down(self, child: _Child) -> None:
        child.restarting = False
        actor = child.actor
        if actor is None:
            return
        exit = actor.kill() if child.spec.kills else actor.shutdown(child.spec.shutdown_seconds)
        child.actor = None  # not before, so that a kill of this supervisor still finds it
        self._tell_end(child, exit)

    def _shut_down_all(self) -> None:
        for child in reversed(list(self._children.values())):
            self._shut_down(child)

    def _tell_end(self, child: _Child, exit: Exit) -> None:
        by_itself = exit.kind in (ExitKind.NORMAL, ExitKind.CRASHED)
        self._tell(EventKind.CHILD_TERMINATED if by_itself else EventKind.CHILD_SHUTDOWN, child, str(exit))

    # Restarting

    def _has_ended(self, child: _Child, exit: Exit) -> None:
        child.actor = None
        self._tell(EventKind.CHILD_TERMINATED, child, str(exit))
        restart = child.spec.restart
        if restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and not exit.is_normal):
            self._restart(child, str(exit))
        elif restart is Restart.TEMPORARY:
            del self._children[child.spec.name]

    def _restart(self, child: _Child, reason: str) -> None:
        restarts = self.intensity.add()
        if restarts > self.intensity.max_restarts:
            child.restarting = False
            self._tell(EventKind.MAX_RESTARTS_EXCEEDED, child, reason, restarts)
            self._give_up(restarts)
        for other in (concerned := self._concerned_by(child))[::-1]:
            self._shut_down(other)
            if other.spec.restart is Restart.TEMPORARY:
                del self._children[other.spec.name]
                concerned.remove(other)
        for other in concerned:
            try:
                self._start(other, reason, again=True)
            except StartFailed as failure:
                other.restarting = True
                # Not at once: what waits in the mailbox, an order to shut down perhaps, comes first.
                self.actor_ref.tell(_TryAgain(other.spec.name, str(failure)))
                return

    def _concerned_by(self, child: _Child) -> list[_Child]:
        everyone = list(self._children.values())
        match self.strategy:
            case Strategy.ONE_FOR_ONE:
                return [child]
            case Strategy.ONE_FOR_ALL:
                return everyone
            case Strategy.REST_FOR_ONE:
                return everyone[everyone.index(child) :]

    def _give_up(self, restarts: int) -> None:
        cause = MaxRestartsExceeded(
            f"{restarts} restarts within {self.intensity.max_seconds:g} s, "
            f"{self.intensity.max_restarts} are allowed"
        )
        logger.error("supervisor %s gives up: %s", self.name, cause)
        self.exit_with(Exit(ExitKind.SHUTDOWN, cause))

    # Carrying out what is asked

    def _start_child(self, spec: ChildSpec) -> SupervisedActor:
        if spec.name in self._children:
            raise AlreadyPresent(f"{self.name} has a child {spec.name} already")
        child = _Child(spec)
        self._start_on_demand(child)
        self._children[spec.name] = child
        assert child.actor is not None
        return child.actor

    def _start_on_demand(self, child: _Child, again: bool = False) -> None:
        try:
            self._start(child, "on demand" if again else "", again)
        except StartFailed as failure:
            raise ChildStartFailed(str(failure)) from failure

    def _terminate_child(self, name: str) -> None:
        child = self._child(name)
        self._shut_down(child)
        if child.spec.restart is Restart.TEMPORARY:
            del self._children[name]

    def _restart_child(self, name: str) -> SupervisedActor:
        child = self._down(name)
        self._start_on_demand(child, again=True)
        assert child.actor is not None
        return child.actor

    def _delete_child(self, name: str) -> None:
        self._down(name)
        del self._children[name]

    def _child(self, name: str) -> _Child:
        try:
            return self._children[name]
        except KeyError:
            raise NoSuchChild(f"{self.name} has no child {name}") from None

    def _down(self, name: str) -> _Child:
        child = self._child(name)
        if child.status is not ChildStatus.DOWN:
            raise SupervisionError(f"{name} is {child.status.value}")
        return child

    def _which_children(self) -> list[ChildInfo]:
        return [
            ChildInfo(name, child.status, child.spec.type, child.actor, child.restart_count)
            for name, child in self._children.items()
        ]

    def _count_children(self) -> ChildCounts:
        types = [child.spec.type for child in self._children.values()]
        active = sum(
            child.actor is not None and child.actor.exit is None for child in self._children.values()
        )
        supervisors = types.count(ChildType.SUPERVISOR)
        return ChildCounts(len(types), active, supervisors, len(types) - supervisors)

    def _tell(self, kind: EventKind, child: _Child, reason: str, restarts: int | None = None) -> None:
        count = child.restart_count if restarts is None else restarts
        self._listeners.tell(SupervisorEvent(kind, self.name, child.spec.name, reason, count))
