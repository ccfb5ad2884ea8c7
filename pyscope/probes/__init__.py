"""Probes: each watches one library or one part of the interpreter, and tells of it through `pyscope.emitter`.

A probe draws no conclusion and keeps no data: it emits events (`pyscope.events`), and the findings are made of a trace
(`pyscope.analysis`). To write one: a class derived from `Probe` in a file of its own here, an event type in
pyscope/events/, and a row in `_PROBES`. Whatever `install` changes, `uninstall` puts back exactly.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

from pyscope import breaker
from pyscope.errors import ConfigError, MissingExtra
from pyscope.probes import on_import
from pyscope.warning import warn

__all__ = ["AUTOMATIC", "Probe", "acquire", "installed", "last_look", "names", "release"]

MOST_FAULTS = 10


class Probe:
    """The base of every probe.

    `name`: as in the setting `probes`. `library`: the module that it watches; it is installed once that is imported, at
    once if None. `extra`: the extra of PyScope that brings the library, for the message when it is missing.
    """

    name: ClassVar[str]
    library: ClassVar[str | None] = None
    extra: ClassVar[str] = ""

    def __init__(self) -> None:
        self.faults = 0
        self.active = False

    def install(self) -> None:
        """Begins to watch. The library is imported by now."""
        raise NotImplementedError

    def uninstall(self) -> None:
        """Ends it: the library is as it was found."""
        raise NotImplementedError

    def deepen(self) -> None:
        """Somebody asks for this probe by its name, not as one of all: what it watches may cost more now."""

    def last_look(self) -> None:
        """Tells what it waits for otherwise; called once more before a recording ends."""

    def fault(self) -> None:
        """Counts an error of the probe itself, where it was caught. Too many, and the probe removes itself.

        What a signal handler of the program raised meanwhile is raised again.
        """
        breaker.raise_if_of_the_program()
        self.faults += 1
        if self.faults == MOST_FAULTS and self.active:
            self.active = False
            error = sys.exc_info()[1]
            try:
                self.uninstall()
            except Exception:
                self.faults += 1
            breaker.out(f"the probe {self.name!r}", MOST_FAULTS, _described(error))


class _Row(NamedTuple):
    module: str
    class_name: str
    automatic: bool  # part of probes="auto": it needs nothing to be named


_PROBES: dict[str, _Row] = {
    "asgi": _Row("pyscope.probes.asgi", "ASGIProbe", True),
    "wsgi": _Row("pyscope.probes.wsgi", "WSGIProbe", True),
    "aiohttp_server": _Row("pyscope.probes.aiohttp_server", "AiohttpServerProbe", True),
    "celery": _Row("pyscope.probes.celery", "CeleryProbe", True),
    "rq": _Row("pyscope.probes.rq", "RQProbe", True),
    "dramatiq": _Row("pyscope.probes.dramatiq", "DramatiqProbe", True),
    "apscheduler": _Row("pyscope.probes.apscheduler", "APSchedulerProbe", True),
    "http": _Row("pyscope.probes.http", "HTTPProbe", True),
    "redis": _Row("pyscope.probes.redis", "RedisProbe", True),
    "retry": _Row("pyscope.probes.retry", "RetryProbe", True),
    "sqlalchemy": _Row("pyscope.probes.sqlalchemy", "SQLAlchemyProbe", True),
    "django": _Row("pyscope.probes.django", "DjangoProbe", True),
    "smtp": _Row("pyscope.probes.smtp", "SMTPProbe", True),
    "storage": _Row("pyscope.probes.storage", "StorageProbe", True),
    "actors": _Row("pyscope.probes.actors", "ActorsProbe", True),
    "event_loop": _Row("pyscope.probes.event_loop", "EventLoopProbe", True),
    "gc": _Row("pyscope.probes.gc", "GCProbe", True),
    "resources": _Row("pyscope.probes.resources", "ResourcesProbe", True),
    "state": _Row("pyscope.probes.state", "StateProbe", True),
    "sync": _Row("pyscope.probes.sync", "SyncProbe", True),
    "accesses": _Row("pyscope.probes.accesses", "AccessProbe", True),
    "supervision": _Row("pyscope.probes.supervision", "SupervisionProbe", True),
}

AUTOMATIC = "auto"

_lock = threading.RLock()
_installed: dict[str, Probe] = {}
_users: dict[str, int] = {}


def names(automatic: bool = False) -> list[str]:
    """The probes there are; or those that "auto" stands for."""
    return [name for name, row in _PROBES.items() if row.automatic or not automatic]


def expand(wanted: Iterable[str]) -> list[str]:
    """The probes that a setting names. Raises ConfigError for one that does not exist."""
    found: list[str] = []
    for name in wanted:
        if name == AUTOMATIC:
            found += names(automatic=True)
        elif name in _PROBES:
            found.append(name)
        else:
            raise ConfigError(f"there is no probe {name!r}; there are {AUTOMATIC}, {', '.join(_PROBES)}")
    return list(dict.fromkeys(found))


def make(name: str) -> Probe:
    """A probe, not yet installed. Raises ConfigError for an unknown name."""
    [name] = expand([name])
    row = _PROBES[name]
    probe: Probe = getattr(importlib.import_module(row.module), row.class_name)()
    return probe


def acquire(wanted: Iterable[str], *, required: bool = False) -> list[str]:
    """Installs probes, each once however many ask for it, or as soon as its library is imported. Returns their names.

    A probe that cannot be installed is a warning. With `required`, one whose library is not there raises MissingExtra.
    """
    wanted = list(wanted)
    chosen = expand(wanted)
    with _lock:
        if required:
            for name in wanted:
                if name != AUTOMATIC:
                    _require(name)
        for name in chosen:
            _users[name] = _users.get(name, 0) + 1
            if _users[name] == 1:
                probe = _loaded(name)
                if probe is None:
                    continue
                _installed[name] = probe
                if probe.library is None:
                    _install(probe)
                else:
                    on_import.call(probe.library, functools.partial(_install, probe), probe)
            if name in wanted and name in _installed:
                _deepen(_installed[name])
    return chosen


def last_look(held: Iterable[str]) -> None:
    """The recording ends: probes tell what they have not told yet, while events still go into it."""
    for name in held:
        probe = _installed.get(name)
        if probe is not None and probe.active:
            try:
                probe.last_look()
            except Exception:
                probe.fault()


def release(held: Iterable[str]) -> None:
    """Gives back what `acquire` returned; the last to do so removes the probe."""
    with _lock:
        for name in list(held)[::-1]:
            _users[name] -= 1
            if _users[name] == 0:
                probe = _installed.pop(name, None)
                on_import.cancel(probe)
                if probe is not None and probe.active:
                    probe.active = False
                    try:
                        probe.uninstall()
                    except Exception as error:
                        warn(f"the probe {name!r} could not be removed cleanly: {error!r}")


def installed(name: str) -> Probe | None:
    """The probe of that name if somebody holds it."""
    return _installed.get(name)


def _loaded(name: str) -> Probe | None:
    """A probe, or None with a warning where it needs what is not installed."""
    try:
        return make(name)
    except ModuleNotFoundError as error:
        warn(
            f"the probe {name!r} needs the package {error.name!r}, which is not installed (pip install {error.name}); "
            "what it watches is not recorded"
        )
        return None


def _install(probe: Probe) -> None:
    with _lock:
        if _installed.get(probe.name) is not probe or probe.active:
            return
        try:
            probe.install()
            probe.active = True
        except Exception as error:
            try:
                probe.uninstall()  # what it had done by then
            except Exception:
                probe.faults += 1
            warn(
                f"the probe {probe.name!r} could not be installed: {error!r}; what it watches is not recorded"
            )


def _deepen(probe: Probe) -> None:
    try:
        probe.deepen()
    except Exception as error:
        warn(f"the probe {probe.name!r} watches less than it was asked to: {error!r}")


def has_library(name: str) -> bool:
    """Whether what a probe watches is installed."""
    probe = make(name)
    if probe.library is None or probe.library in sys.modules:
        return True
    try:
        return importlib.util.find_spec(probe.library) is not None
    except (ImportError, ValueError):
        return False


def _require(name: str) -> None:
    if not has_library(name):
        probe = make(name)
        raise MissingExtra(f"the probe {name!r}", str(probe.library), probe.extra or name)


def _described(error: BaseException | None) -> str:
    """Its type and the place: a message may hold the program's data."""
    if error is None:
        return ""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    name = type.__dict__["__name__"].__get__(type(error))
    return name if traceback is None else f"{name} in {traceback.tb_frame.f_code.co_qualname}"
