"""Kinds of monitoring that are in force side by side in one session: begun, read and ended each by itself."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from pyscope import config
from pyscope import probes as probing
from pyscope.config import ModuleSelector
from pyscope.errors import ConfigError
from pyscope.probes.classes import type_name
from pyscope.session import Session
from pyscope.trace import Trace

__all__ = ["Kind", "Monitoring"]

logger = logging.getLogger("pyscope.runtime")


class Kind:
    """One kind of monitoring in force, or ended: `read` makes its findings of a trace and the time it began.

    `undo`: called at its end. `probe`: the name of one that is asked to `look_now` before its events are read.
    """

    def __init__(
        self,
        read: Callable[[Trace, int], Any],
        undo: Callable[[], None] = lambda: None,
        probe: str | None = None,
    ) -> None:
        self.read = read
        self.undo = undo
        self.probe = probe
        self.since = 0
        self.gathered: Any = None
        self.unread: Trace | None = (
            None  # of an ended kind: what `gathered` is to be made of when it is asked for
        )
        self.active = False
        self.fresh = True  # nothing has been named to its probe yet

    def look_now(self) -> None:
        """Has the probe say what it would have said a moment later."""
        probe: Any = probing.installed(self.probe) if self.probe is not None else None
        if probe is not None and probe.active:
            probe.look_now()


class Monitoring:
    """All kinds, by name. Threads may call everything at any time; `lock` keeps several calls together."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.session: Final = Session()
        self._kinds: dict[str, Kind] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_forked_child)

    def start(
        self,
        name: str,
        kind: Kind,
        modules: Sequence[ModuleSelector] | None,
        probes: Iterable[str] = (),
        **options: Any,
    ) -> None:
        """Begins a kind, after the end of an earlier one of the same name. Errors as `pyscope.start`."""
        with self.lock:
            self._stop_whatever_it_gathered(name, self.session.trace)
            if config.resolve().disable:  # nothing is watched, and every reading is empty
                self._kinds.pop(name, None)
                return
            try:
                kind.since = self.session.add(name, modules, probes, **options)
            except BaseException:
                kind.undo()
                raise
            kind.active = True
            self._kinds[name] = kind

    def watch(self, name: str, probe: str, subjects: Sequence[object]) -> None:
        """Names subjects to a probe; the kind ends again where it had only begun for one that is refused."""
        with self.lock:
            if name not in self._kinds:  # switched off
                return
            watching: Any = probing.installed(probe)
            try:
                if not isinstance(subjects, Iterable):
                    raise ConfigError(
                        f"processes is {_shown(subjects)}: it must be a list, also where one is watched: [it]"
                    )
                for subject in subjects:
                    if watching.watch(subject) is False:
                        raise ConfigError(
                            f"{_shown(subject)} cannot be watched: its class is built in, or an extension's. Name an "
                            "object of a class of the program's own, such as the one that holds it"
                        )
            except BaseException:
                if self._kinds[name].fresh:
                    self.stop(name)
                    self._kinds.pop(name, None)
                raise
            self._kinds[name].fresh = False

    def active(self, name: str) -> bool:
        """Whether a kind is in force."""
        kind = self._kinds.get(name)
        return kind is not None and kind.active

    def read(self, name: str, empty: Any) -> Any:
        """What a kind has found up to now, or had found when it ended; `empty` where it never began."""
        with self.lock:
            kind = self._kinds.get(name)
            if kind is None:
                return empty
            if kind.active:
                kind.look_now()
                return kind.read(self.session.trace(), kind.since)
            if kind.unread is not None:
                kind.gathered, kind.unread = kind.read(kind.unread, kind.since), None
            return empty if kind.gathered is None else kind.gathered

    def stop(self, name: str, keep: Callable[[], Trace | None] | None = None) -> None:
        """Ends a kind. `keep` gives the trace that stays readable; the session's as it is now by default."""
        with self.lock:
            kind = self._kinds.get(name)
            if kind is None or not kind.active:
                return
            try:
                kind.look_now()
                kind.unread = (keep or self.session.trace)()
            finally:
                kind.active = False
                try:
                    kind.undo()
                finally:
                    self.session.remove(name)

    def stop_all(self) -> None:
        """Ends every kind; all of them keep one trace."""
        with self.lock:
            trace = functools.cache(self.session.trace)
            for name in list(self._kinds):
                self._stop_whatever_it_gathered(name, trace)

    def _stop_whatever_it_gathered(self, name: str, keep: Callable[[], Trace | None]) -> None:
        try:
            self.stop(name, keep)
        except Exception as error:
            logger.warning("monitoring ended, but what it gathered could not be read: %s", error)

    def reset(self) -> None:
        """Ends every kind, and forgets what was gathered."""
        with self.lock:
            for name in list(self._kinds):
                self.stop(name, lambda: None)
            self._kinds.clear()

    def _in_forked_child(self) -> None:
        self.lock = threading.RLock()
        self._kinds.clear()
        self.session.forget()


def _shown(subject: object) -> str:
    if isinstance(subject, type):
        return f"the class {type_name(subject)}"
    return f"an object of the class {type_name(type(subject))}"
