"""Supervision: one probe, an adapter for each supervision library, and what happens where there is no supervisor.

An adapter is an object with two methods; `register` it, and `SupervisionProbe.watch(supervisor)` asks the
registered ones, last first::

    class MySupervision:
        def knows(self, supervisor: object) -> bool:
            return isinstance(supervisor, mylib.Supervisor)

        def subscribe(self, supervisor: object, tell: Tell) -> Callable[[], None]:
            def listener(event):
                tell("child_restarted", supervisor.name, event.child, str(event.reason), event.count)
            supervisor.listen(listener)
            return lambda: supervisor.unlisten(listener)

`tell(kind, supervisor, child, reason, restart_count)` takes a kind of `pyscope.events.supervision.KINDS`,
from any thread, and never raises; `subscribe` returns what undoes it. A supervisor with `add_listener` and
`remove_listener` (or one of the other pairs named in `listening`) needs no adapter.

Without a supervisor (in `threads`, `tasks` and `processes`): uncaught exceptions of threads and of the main
program, of asyncio's tasks and callbacks, and deaths of child processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pyscope import emitter
from pyscope.events.supervision import CHILD, KINDS
from pyscope.probes import Probe, actors, installed, on_import
from pyscope.probes.patches import Patches
from pyscope.probes.supervision.listening import Listening
from pyscope.probes.supervision.processes import ChildProcesses
from pyscope.probes.supervision.tasks import watch_tasks
from pyscope.probes.supervision.threads import ExceptionHooks

__all__ = ["Adapter", "SupervisionProbe", "Tell", "register", "unregister"]

Tell = Callable[[str, str, str, str, int], None]
"""Kind, supervisor, child, reason, restart count (-1 unknown)."""

MOST_TEXT = 500


class Adapter(Protocol):
    """What knows a supervision library."""

    def knows(self, supervisor: object) -> bool:
        """Whether `supervisor` is of that library."""

    def subscribe(self, supervisor: object, tell: Tell) -> Callable[[], None]:
        """From now on `tell` is called at every event of the supervisor's tree, until what is returned is called."""


_adapters: list[Adapter] = [Listening()]


def register(adapter: Adapter) -> None:
    """Makes an adapter known; it is asked before those that were known already."""
    _adapters.append(adapter)


def unregister(adapter: Adapter) -> None:
    """The opposite; one that is not known is no error."""
    if adapter in _adapters:
        _adapters.remove(adapter)


def uncaught(error: BaseException) -> None:
    """The main program ends by `error`, whatever a `sys.excepthook` of its own makes of that."""
    probe = installed("supervision")
    if isinstance(probe, SupervisionProbe):
        probe.uncaught(error)


class SupervisionProbe(Probe):
    """Tells of the children of watched supervisors, and of threads, tasks and processes that end without one."""

    name = "supervision"

    def __init__(self) -> None:
        super().__init__()
        self._patches = Patches()
        self._hooks = ExceptionHooks(self._tell)
        self._processes = ChildProcesses(self._tell, self.fault)
        self._subscriptions: dict[int, tuple[object, Callable[[], None]]] = {}

    def install(self) -> None:
        self._patches = Patches()
        self._hooks.install(self._patches)
        watch_tasks(self._patches, self._tell)
        self._processes.install(self._patches)

    def uninstall(self) -> None:
        try:
            for _, undo in list(self._subscriptions.values()):
                try:
                    undo()
                except Exception:
                    self.fault()
        finally:
            self._subscriptions = {}
            on_import.cancel(self._patches)
            self._patches.undo()
            self._hooks.uninstall()
            self._processes.stop()

    def last_look(self) -> None:
        self._processes.last_look()

    def uncaught(self, error: BaseException) -> None:
        """See the function of that name."""
        self._hooks.uncaught(error, error.__traceback__)

    def watch(self, supervisor: object) -> None:
        """Listens to a supervisor, given itself or by its actor's reference or proxy. Once is enough.

        Raises TypeError when no adapter knows it, with what to do.
        """
        actor = actors.actor_of(supervisor)
        supervisor = supervisor if actor is None else actor
        if id(supervisor) in self._subscriptions:
            return
        for adapter in reversed(_adapters):
            if adapter.knows(supervisor):
                self._subscriptions[id(supervisor)] = supervisor, adapter.subscribe(supervisor, self.tell)
                return
        raise TypeError(
            f"{type(supervisor).__name__} is no supervisor that PyScope knows: give it add_listener(listener) and "
            "remove_listener(listener), or register an adapter with pyscope.probes.supervision.register"
        )

    def tell(self, kind: str, supervisor: str, child: str, reason: str, restart_count: int) -> None:
        """Records an event of a supervisor."""
        if kind in KINDS:
            self._tell(kind, supervisor, child, reason, restart_count)

    def _tell(
        self,
        kind: str,
        supervisor: str,
        child: str,
        reason: str = "",
        restart_count: int = -1,
        pid: int = 0,
        stack: int = 0,
    ) -> None:
        try:
            emitter.emit(
                CHILD.kind,
                restart_count,
                pid,
                emitter.intern(kind),
                emitter.intern(supervisor),
                emitter.intern(child),
                stack,
                reason[:MOST_TEXT],
            )
        except Exception:
            self.fault()
