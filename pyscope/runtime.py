"""Monitoring for a program that watches itself: tests, admin pages, a service's lifespan.

Each kind of monitoring is started, read and stopped by itself; any combination can be in force at once, and threads may
call everything here at any time. What was gathered stays readable after a stop, until the next start of the same kind.
All times are nanoseconds of the Unix epoch, durations nanoseconds, memory bytes. Every `get_*` returns frozen
dataclasses of `pyscope.findings` in order of time.

    runtime.start_tracing(modules=["shop.*"])
    ...
    for call in runtime.get_traces(): ...
    runtime.stop_all()
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyscope import config, recorder, selection
from pyscope import probes as probing
from pyscope.config import ModuleSelector
from pyscope.errors import ConfigError
from pyscope.findings import (
    ExternalCall,
    PerformanceIssue,
    PerformanceIssues,
    Race,
    ResourceMetrics,
    StateChange,
    SupervisorEvent,
)
from pyscope.monitoring import Kind, Monitoring
from pyscope.rows import Function, Location
from pyscope.trace import Call, Trace

__all__ = [
    "Controller",
    "get_external_calls",
    "get_performance_issues",
    "get_race_conditions",
    "get_resource_metrics",
    "get_state_changes",
    "get_supervisor_events",
    "get_traces",
    "is_recording",
    "monitor_concurrency",
    "monitor_process",
    "monitor_supervisor_tree",
    "reset",
    "start_performance_monitoring",
    "start_resource_monitoring",
    "start_tracing",
    "stop_all",
    "stop_concurrency_monitoring",
    "stop_external_calls",
    "stop_performance_monitoring",
    "stop_process_monitoring",
    "stop_resource_monitoring",
    "stop_supervisor_monitoring",
    "stop_tracing",
    "trace_external_calls",
]

logger = logging.getLogger(__name__)

Level: TypeAlias = Literal["function_calls", "c_calls"]
Modules: TypeAlias = Sequence[ModuleSelector] | None
_LEVELS = {"function_calls": None, "c_calls": "c_calls"}


_monitoring = Monitoring()
# The probes that tell of requests and jobs.
_WORK = ("asgi", "wsgi", "aiohttp_server", "celery", "rq", "dramatiq", "apscheduler")


def _there(names: Sequence[str]) -> list[str]:
    """Those of some probes whose library is installed: the others have nothing to watch."""
    return [name for name in names if probing.has_library(name)]


def _chosen(name: str, values: Any, allowed: Iterable[str]) -> list[Any]:
    """The values of an argument, one or several. Raises ConfigError for one that is not allowed."""
    chosen = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    allowed = list(allowed)
    for value in chosen:
        if value not in allowed:
            raise ConfigError(f"{name} = {value!r}: must be one of {', '.join(map(repr, allowed))}")
    return chosen


def is_recording() -> bool:
    """Whether this process is being recorded: by `pyscope run`, `pyscope.start` or something started here."""
    recording = recorder.active()
    return recording is not None and recording.active


# --- calls ---------------------------------------------------------------------------------------


def start_tracing(
    modules: Modules = None,
    level: Level = "function_calls",
    *,
    path: str | os.PathLike[str] | None = None,
    probes: Sequence[str] = (),
) -> None:
    """Records the calls of `modules` (dotted globs or module objects; None: the program's own code).

    `level`: "function_calls", or "c_calls" for calls of C functions too. `path`: the recording goes into that file,
    whole; without it the last 64 MiB are kept in memory. `probes`: what the recording holds beside calls, as in
    `pyscope.start`. Where the program is recorded already, by `pyscope run` or `pyscope.start`, that recording is
    used. Raises ConfigError for bad arguments, RecorderError where recording cannot begin, or not into that file
    because other monitoring has begun one.
    """
    [level] = _chosen("level", [level], _LEVELS)

    def read(trace: Trace, since: int) -> list[Call]:
        columns = trace.calls
        chosen = columns["start_ns"] >= since
        if modules is not None:
            chosen &= _made_by(trace, modules)
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(columns["start_ns"][rows], kind="stable")]
        return [trace.call(int(row)) for row in rows]

    wanted = config.resolve(probes=probes).probes
    _monitoring.start("tracing", Kind(read), modules, wanted, path=path, detail=_LEVELS[level])


def get_traces() -> list[Call]:
    """The calls recorded since `start_tracing`, in order of start; those still running have outcome "open"."""
    found: list[Call] = _monitoring.read("tracing", [])
    return found


def stop_tracing() -> None:
    """Ends what `start_tracing` began; does nothing if that is over."""
    _monitoring.stop("tracing")


def _made_by(trace: Trace, modules: Sequence[ModuleSelector]) -> NDArray[np.bool_]:
    """For each call of a trace whether it is of these modules, or of a C function that they call."""
    globs = selection.expand(config.resolve(modules=modules).modules or ())
    functions = trace.functions
    meant = np.array([_is_of(f, globs) for f in functions], bool)
    in_c = np.array([f.kind == "c_function" for f in functions], bool)
    function, parent = trace.calls["function"], trace.calls["parent"]
    own: NDArray[np.bool_] = meant[function]
    own |= in_c[function] & (parent >= 0) & own[parent]
    return own


def _files_of(trace: Trace, modules: Modules) -> frozenset[str] | None:
    """The files of the modules, as far as their code ran; None where every module is meant."""
    if modules is None:
        return None
    globs = selection.expand(config.resolve(modules=modules).modules or ())
    # Generated code ("<string>": the methods of a dataclass) tells nothing: other modules have it too.
    return frozenset(f.file for f in trace.functions if not f.file.startswith("<") and _is_of(f, globs))


def _is_of(function: Function, globs: Sequence[str]) -> bool:
    """Whether a function's module is meant; that which `python -m` runs by both its names."""
    main = sys.modules.get("__main__")
    names = selection.names_of(vars(main)) if main is not None and function.module == "__main__" else ()
    return any(fnmatchcase(name, glob) for glob in globs for name in (function.module, *names))


def _within(stack: tuple[Location, ...], files: frozenset[str] | None) -> bool:
    """Whether a stack goes through one of the files. One that is not known is not left out."""
    return files is None or not stack or any(location.file in files for location in stack)


# --- state ---------------------------------------------------------------------------------------


def monitor_process(subject: object, what: str = "state_changes") -> None:
    """Watches the state of an object, of a class with all its instances, or of an actor (its reference or proxy).

    Further calls watch more. `what` is "state_changes". Raises ConfigError for anything else, and for a subject whose
    state cannot be seen: a number, a text, a built-in class.
    """
    if what != "state_changes":
        raise ConfigError(f"what = {what!r}: an object can be watched for 'state_changes'")

    def read(trace: Trace, since: int) -> list[StateChange]:
        from pyscope.analysis import states

        return [change for change in states.find(trace) if change.time_ns >= since]

    with _monitoring.lock:
        if not _monitoring.active("state"):
            _monitoring.start("state", Kind(read, probe="state"), [], ["state"])
        _monitoring.watch("state", "state", [subject])


def get_state_changes() -> list[StateChange]:
    """The changes of what `monitor_process` watches, in order of time."""
    found: list[StateChange] = _monitoring.read("state", [])
    return found


def stop_process_monitoring() -> None:
    """Ends what `monitor_process` began."""
    _monitoring.stop("state")


# --- performance ---------------------------------------------------------------------------------

_PATTERNS = {
    "n_plus_one_queries": "n_plus_one_query",
    "repeated_queries": "repeated_query",
    "slow_calls": "slow_call",
    "blocking_calls": "blocking_call_in_event_loop",
}


def start_performance_monitoring(
    modules: Modules = None,
    detect_patterns: Sequence[str] | None = None,
    threshold: int = 5,
    *,
    slow_ms: float = 500.0,
    blocking_ms: float = 100.0,
) -> None:
    """Looks for what takes more time than it needs, in `modules` (None: the program's own code).

    `detect_patterns`: any of "n_plus_one_queries", "repeated_queries", "slow_calls", "blocking_calls"; None is all.
    `threshold`: from how many queries on, at least 2. `slow_ms`, `blocking_ms`: from how many milliseconds on a call is
    slow, and blocks an event loop. Raises ConfigError.
    """
    wanted = _chosen("detect_patterns", _PATTERNS if detect_patterns is None else detect_patterns, _PATTERNS)
    for name, limit in (("slow_ms", slow_ms), ("blocking_ms", blocking_ms)):
        if not isinstance(limit, int | float) or not 0 <= limit < math.inf:
            raise ConfigError(f"{name} = {limit!r}: must be a number of milliseconds, 0 or more")
    if type(threshold) is not int or threshold < 2:
        raise ConfigError(
            f"threshold = {threshold!r}: must be a whole number, 2 or more: one query is no pattern"
        )
    kinds = {_PATTERNS[pattern] for pattern in wanted}

    def read(trace: Trace, since: int) -> PerformanceIssues:
        from pyscope.analysis import hotspots, queries

        found: list[PerformanceIssue] = []
        if kinds & {"n_plus_one_query", "repeated_query"}:
            found += queries.find(trace, threshold)
        if kinds & {"slow_call", "blocking_call_in_event_loop"}:
            found += hotspots.find(trace, slow_ms=slow_ms, blocking_ms=blocking_ms)
        files = _files_of(trace, modules)
        return PerformanceIssues(
            sorted(
                (
                    issue
                    for issue in found
                    if issue.kind in kinds and issue.time_ns >= since and _within(issue.stack, files)
                ),
                key=lambda issue: issue.time_ns,
            )
        )

    needed = ["django", "sqlalchemy", *_WORK]
    if kinds & {"slow_call", "blocking_call_in_event_loop"}:
        needed += ["event_loop", "http", "redis", "smtp"]
    _monitoring.start("performance", Kind(read), modules, _there(needed))


def get_performance_issues() -> PerformanceIssues:
    """The issues found so far, in order of time; the list's `query_count` is the sum of theirs."""
    found: PerformanceIssues = _monitoring.read("performance", PerformanceIssues())
    return found


def stop_performance_monitoring() -> None:
    """Ends what `start_performance_monitoring` began."""
    _monitoring.stop("performance")


# --- resources -----------------------------------------------------------------------------------

_METRICS = ("memory", "cpu", "message_queue_length")


def start_resource_monitoring(
    processes: Sequence[object] | None = None,
    metrics: Sequence[str] = _METRICS,
    *,
    interval: float | None = None,
) -> None:
    """Samples memory and CPU of this process (and its children) and of the ids in `processes`, and the mailboxes of
    the actors in it.

    `metrics`: any of "memory", "cpu", "message_queue_length". `interval`: seconds between samples. Raises ConfigError,
    ProcessLookupError for a process that does not exist.
    """
    metrics = _chosen("metrics", metrics, _METRICS)
    if interval is not None and (not isinstance(interval, int | float) or not 0.001 <= interval <= 3600):
        raise ConfigError(f"interval = {interval!r}: must be between 0.001 and 3600 seconds")

    def read(trace: Trace, since: int) -> ResourceMetrics:
        from pyscope.analysis import resources

        return _only(resources.find(trace, since=since), metrics)

    with _monitoring.lock:
        _monitoring.start("resources", Kind(read, probe="resources"), [], ["resources"])
        probe: Any = probing.installed("resources")
        if interval is not None and probe is not None:
            probe.interval = interval
        _monitoring.watch("resources", "resources", processes or ())


def get_resource_metrics() -> ResourceMetrics:
    """What was sampled so far."""
    found: ResourceMetrics = _monitoring.read("resources", ResourceMetrics(0, False, (), (), (), {}))
    return found


def stop_resource_monitoring() -> None:
    """Ends what `start_resource_monitoring` began."""
    _monitoring.stop("resources")


def _only(found: ResourceMetrics, metrics: Sequence[str]) -> ResourceMetrics:
    """Without the series that were not asked for."""
    unwanted: dict[str, Any] = {}
    if "memory" not in metrics:
        unwanted |= {"peak_memory": 0, "peak_is_exact": False, "memory_samples": ()}
    if "cpu" not in metrics:
        unwanted |= {"cpu_usage_samples": ()}
    if "message_queue_length" not in metrics:
        unwanted |= {"message_queue_length_samples": ()}
    by_process = {
        name: dataclasses.replace(process, **unwanted) for name, process in found.by_process.items()
    }
    return dataclasses.replace(found, **unwanted, by_process=by_process)


# --- supervision ---------------------------------------------------------------------------------


def monitor_supervisor_tree(supervisor: object | None = None) -> None:
    """Follows a supervisor and what is below it; with None a program that has none: uncaught exceptions of threads
    and of asyncio's tasks, deaths of child processes (which are always told).

    Further calls follow more. Raises TypeError for an object that is no supervisor PyScope knows, with what to do.
    """

    def read(trace: Trace, since: int) -> list[SupervisorEvent]:
        from pyscope.analysis import supervision

        return [event for event in supervision.find(trace) if event.time_ns >= since]

    with _monitoring.lock:
        if not _monitoring.active("supervision"):
            _monitoring.start("supervision", Kind(read), [], ["supervision"])
        if supervisor is not None:
            _monitoring.watch("supervision", "supervision", [supervisor])


def get_supervisor_events() -> list[SupervisorEvent]:
    """What happened to children so far, in order of time."""
    found: list[SupervisorEvent] = _monitoring.read("supervision", [])
    return found


def stop_supervisor_monitoring() -> None:
    """Ends what `monitor_supervisor_tree` began."""
    _monitoring.stop("supervision")


# --- external calls ------------------------------------------------------------------------------


def trace_external_calls(modules: Modules = None) -> None:
    """Follows calls to other services (HTTP, SMTP, Redis, file storage) and their retries, made from `modules` (None:
    from anywhere)."""

    def read(trace: Trace, since: int) -> list[ExternalCall]:
        from pyscope.analysis import external

        files = _files_of(trace, modules)
        found = external.find(trace)
        return [call for call in found if call.start_ns >= since and _within(call.stack, files)]

    _monitoring.start(
        "external",
        Kind(read),
        modules or [],
        _there(["http", "redis", "retry", "smtp", "storage", *_WORK]),
    )


def get_external_calls() -> list[ExternalCall]:
    """The calls to other services so far, each with its attempts, in order of start."""
    found: list[ExternalCall] = _monitoring.read("external", [])
    return found


def stop_external_calls() -> None:
    """Ends what `trace_external_calls` began."""
    _monitoring.stop("external")


# --- concurrency ---------------------------------------------------------------------------------


def monitor_concurrency(processes: Sequence[object] = (), detect_races: bool = True) -> None:
    """Looks for races: on the attributes of the objects, classes or actors in `processes`, by threads and asyncio
    tasks, and in the transactions of every SQLAlchemy engine. Locks, queues and the like are watched with them.

    Further calls watch more. With `detect_races` off the events are recorded and nothing is concluded. Raises
    ConfigError for an object whose accesses cannot be seen: a dict or a list is watched through who holds it.
    """

    def read(trace: Trace, since: int) -> list[Race]:
        if not detect_races:
            return []
        from pyscope.analysis import database_races, races

        found = [*races.find(trace), *database_races.find(trace)]
        return sorted(
            (race for race in found if race.accesses[-1].time_ns >= since),
            key=lambda race: race.accesses[0].time_ns,
        )

    with _monitoring.lock:
        if not _monitoring.active("concurrency"):
            needed = ["sync", "accesses", "actors", *_there(["sqlalchemy", *_WORK])]
            _monitoring.start("concurrency", Kind(read), [], needed)
        _monitoring.watch("concurrency", "accesses", processes)


def get_race_conditions() -> list[Race]:
    """The races found so far, in order of time."""
    found: list[Race] = _monitoring.read("concurrency", [])
    return found


def stop_concurrency_monitoring() -> None:
    """Ends what `monitor_concurrency` began."""
    _monitoring.stop("concurrency")


# --- all of it -----------------------------------------------------------------------------------


def stop_all() -> None:
    """Ends every kind of monitoring and undoes every patch and subscription. Can be called at any time, repeatedly."""
    _monitoring.stop_all()


def reset() -> None:
    """As `stop_all`, and forgets what was gathered: a fresh start, for tests."""
    _monitoring.reset()


class Controller:
    """Monitoring for as long as a service runs: a context manager, sync or async, for its lifespan.

    auto_start: whether entering starts it. default_tracing: arguments of `start_tracing`. Its own failure is a warning
    in the log of `pyscope.runtime`; the service runs on without it. `running` tells.
    """

    def __init__(self, auto_start: bool = True, default_tracing: dict[str, Any] | None = None) -> None:
        self.auto_start = auto_start
        self.default_tracing = dict(default_tracing or {})
        self.running = False

    def start(self) -> None:
        """Starts tracing, if it can be started."""
        try:
            start_tracing(**self.default_tracing)
            self.running = True
        except Exception:
            logger.warning("PyScope could not start; the service runs without it", exc_info=True)

    def stop(self) -> None:
        """Ends every kind of monitoring. Nothing is kept in memory: read before, or from the recording's file."""
        self.running = False
        try:
            reset()
        except Exception:
            logger.warning("PyScope could not stop cleanly", exc_info=True)

    def __enter__(self) -> Self:
        if self.auto_start:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
