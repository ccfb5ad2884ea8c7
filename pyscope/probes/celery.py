"""Celery: each run of a task in a worker is a scope of kind "job" with the task's name, in every pool.

It lasts from `task_prerun` to `task_postrun`, so what stores the result belongs to it. A run that is to be tried again,
rejected or ignored has not failed. Connected to signals, so workers that run already are watched too.
"""

from __future__ import annotations

import sys
from typing import Any

from pyscope import emitter
from pyscope.probes import Probe, on_import
from pyscope.probes.clients import fault
from pyscope.probes.scope import Scope

__all__ = ["CeleryProbe"]


class CeleryProbe(Probe):
    """Watches the tasks that this process runs."""

    name = "celery"

    def __init__(self) -> None:
        super().__init__()
        self._runs: _Runs | None = None

    def install(self) -> None:
        """Connects to Celery's signals, once they are imported."""
        on_import.call("celery.signals", self._connect, self)

    def uninstall(self) -> None:
        """Disconnects; what runs now still ends."""
        on_import.cancel(self)
        if self._runs is not None:
            self._runs.stop()
            self._runs = None

    def _connect(self) -> None:
        try:
            self._runs = _Runs(sys.modules["celery.signals"])
        except Exception:
            self.fault()


class _Runs:
    """The runs of tasks that have begun and not ended."""

    def __init__(self, signals: Any) -> None:
        self._signals = signals
        self._running: dict[int, Scope] = {}  # by the address of the run's request
        self._on = True
        signals.task_prerun.connect(self._begin, weak=False)
        signals.task_postrun.connect(self._end, weak=False)

    def stop(self) -> None:
        """No run begins any more."""
        self._on = False
        self._signals.task_prerun.disconnect(self._begin)
        self._disconnect_if_idle()

    def _disconnect_if_idle(self) -> None:
        if not self._on and not self._running:
            self._signals.task_postrun.disconnect(self._end)

    def _begin(self, sender: Any = None, **_: Any) -> None:
        try:
            if emitter.active():
                run = Scope("job", str(sender.name))
                self._running[id(sender.request_stack.top)] = run
                run.enter()
        except Exception:
            fault("celery")

    def _end(self, sender: Any = None, retval: Any = None, state: Any = None, **_: Any) -> None:
        try:
            run = self._running.pop(id(sender.request_stack.top), None)
            if run is not None:
                if state is None:  # ended by what Celery does not catch
                    run.leave(sys.exception())
                else:
                    failed = state == "FAILURE" and isinstance(retval, BaseException)
                    run.leave(retval if failed else None)
            self._disconnect_if_idle()
        except Exception:
            fault("celery")
