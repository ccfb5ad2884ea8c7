"""Start and stop: one recording at a time in a process.

The ring lies on tmpfs where it fits; the file grows beside it. Children (fork, multiprocessing, Python
started by subprocess) record into parts `<path>.<pid>-<id>.part`, which the stop joins.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyscope import (
    backends,
    beginning,
    children,
    config,
    descriptors,
    emitter,
    ending,
    parts,
    probes,
    ring_place,
    selection,
)
from pyscope.errors import AlreadyRecording, NotRecording, RecorderError
from pyscope.probes import values
from pyscope.warning import warn

if TYPE_CHECKING:
    from pyscope.governor import Governor

__all__ = ["Recording", "active", "clock_report", "dump", "record", "recover", "start", "stop"]

backend_report = backends.backend_report
recover = parts.recover

_recording: Recording | None = None
_changing = _thread.RLock()  # held by whoever starts or stops: one thread's start waits for another's stop


class Recording:
    """A recording in progress, or ended. `record` and `start` make it.

    Attributes: `path` (of the file; None in flight mode without one), `backend`, `backend_reason`,
    `settings`, `active`, `figures` (a dict of the recorder's own figures, final after the stop).
    """

    def __init__(
        self, settings: config.Settings, path: str | None, choice: backends.BackendChoice | None
    ) -> None:
        self.settings = settings
        self.path = path
        self.backend = choice.name if choice else "none"
        self.backend_reason = choice.reason if choice else "recording is disabled (PYSCOPE_DISABLE)"
        self.active = False
        self.ring_path: str | None = None
        self.identity = b""
        self.process_id = b""
        self.is_child = False
        self.probes: list[str] = []
        self.reselectable = False
        self.governor: Governor | None = None
        self._figures: dict[str, Any] = {}

    @property
    def figures(self) -> dict[str, Any]:
        """events_saved, dropped, faults, drain_cpu_ns, threads, ring_bytes …: now, or as they were at the stop."""
        if self.active and self.backend != "python":
            return dict(backends.required().figures())
        figures = dict(self._figures)
        if "events" in figures:  # all of them, at the stop
            figures["events_saved"] = figures["events"]
        return figures

    def stop(self) -> None:
        """Ends this recording. Raises NotRecording if it has ended."""
        if _recording is not self:
            raise NotRecording("this recording has ended already")
        _stop(self)

    def dump(self, path: str | os.PathLike[str]) -> str:
        """Writes what the ring holds now to `path`; see `pyscope.dump`."""
        return dump(path)

    @contextlib.contextmanager
    def c_calls(self) -> Iterator[None]:
        """Records C calls too, on the calling thread, while the block runs: deep capture of one request.

        In a coroutine the other tasks that run on this thread meanwhile are captured as well. With the backends
        `python` and "none" it does nothing.
        """
        native = backends.native() if self.active and self.backend not in ("python", "none") else None
        if native is not None:
            native.c_calls_here(True)
        try:
            yield
        finally:
            if native is not None:
                native.c_calls_here(False)

    def __repr__(self) -> str:
        return f"<Recording {self.path!r} by {self.backend}, {'active' if self.active else 'ended'}>"


def active() -> Recording | None:
    """The recording in progress in this process, or None."""
    return _recording


def start(path: str | os.PathLike[str] | None = None, **arguments: Any) -> Recording:
    """Starts recording this process (and its children) into the file `path`.

    Parameters (each also `PYSCOPE_<NAME>` in the environment and a key of `[tool.pyscope]`):
    `modules` and `exclude`, dotted globs or module objects; `modules=None` is everything but the standard library
    and site-packages, `["*"]` every module. `detail`, "calls" or "c_calls". `mode`, "stream" (everything
    goes to the file) or "flight" (the last `ring_mb` MiB are kept until `dump`; `path` is optional).
    `backend`, "auto", "monitoring", "frame", "setprofile" or "python". `ring_mb`, MiB of memory a process.
    `budget`, such as "3%": with C calls, they are recorded in windows that keep within it. `children`, whether child
    processes record too. `probes`, what is watched beside calls: names of `pyscope.probes.names()`, or "auto" for all
    that need nothing to be named. `values`, which of the program's values they may record: "sql_parameters",
    "request_header:NAME", "request_body".

    An existing recording at `path` is replaced; any other file is not. With PYSCOPE_DISABLE=1 nothing is
    recorded, and the handle returned is inert.
    Raises AlreadyRecording, ConfigError, BackendUnavailable, or RecorderError when the ring or the file cannot
    be made.
    """
    if path is not None:
        arguments["path"] = path
    settings = config.resolve(**arguments)
    return _begin(settings, settings.path)


def begin_reselectable(settings: config.Settings) -> Recording:
    """Starts a recording whose modules `reselect` can change. Errors as `start`."""
    return _begin(settings, settings.path, reselectable=True)


def reselect(modules: tuple[str, ...] | None) -> None:
    """Selects other modules in a recording of `begin_reselectable`; what ran already goes on to be recorded."""
    recording = _recording
    if recording is None or not recording.active or not recording.reselectable:
        raise NotRecording("no recording is in progress whose modules could change")
    globs = None if modules is None else selection.expand(modules)
    exclude = selection.expand(recording.settings.exclude)
    if recording.backend == "python":
        from pyscope.fallback import hook

        hook.reselect(globs, exclude)
    else:
        backends.required().reselect(globs=globs, exclude=exclude)


def stop() -> None:
    """Ends the recording: the hook is taken out, everything is written, the ring file is removed.

    Raises NotRecording when none is in progress. Warns (PyScopeWarning) of what could not be saved and of module
    globs that matched nothing.
    """
    recording = _recording
    if recording is None:
        raise NotRecording("no recording is in progress: call pyscope.start first")
    _stop(recording)


class record:
    """Records while a `with` block runs. Parameters and errors as `start`; the block gets the `Recording`."""

    # A class and not a generator: the frames of contextlib would stand in the recording of every module.
    def __init__(self, path: str | os.PathLike[str] | None = None, **arguments: Any) -> None:
        self._path, self._arguments = path, arguments
        self._recording: Recording | None = None

    def __enter__(self) -> Recording:
        self._recording = start(self._path, **self._arguments)
        return self._recording

    def __exit__(self, *_: object) -> None:
        if self._recording is not None and _recording is self._recording:
            with contextlib.suppress(NotRecording):  # another thread was first
                _stop(self._recording)


def dump(path: str | os.PathLike[str]) -> str:
    """Writes what the ring holds (in flight mode: the last seconds) to `path`, and goes on recording.

    Returns the path. Raises NotRecording, or RecorderError when it cannot be written.
    """
    recording = _recording
    if recording is None or not recording.active:
        raise NotRecording("no recording is in progress: there is nothing to dump")
    target = os.path.abspath(os.fspath(path))
    if recording.backend == "python":
        raise RecorderError("the pure-Python backend has no ring to dump: record in stream mode")
    if recording.path is not None and os.path.exists(target) and os.path.samefile(target, recording.path):
        raise RecorderError(f"{target} is the recording in progress: dump to another file")
    parts.check_replaceable(target)
    try:
        backends.required().dump(target)
    except OSError as error:
        raise RecorderError(f"the dump {target} could not be written: {error}") from error
    except RuntimeError:  # another thread has stopped it meanwhile
        raise NotRecording("the recording has ended: there is nothing to dump") from None
    return target


def _begin(
    settings: config.Settings,
    path: str | None,
    *,
    identity: bytes = b"",
    parent: int = 0,
    reselectable: bool = False,
) -> Recording:
    with _changing:
        return _begin_alone(settings, path, identity=identity, parent=parent, reselectable=reselectable)


def _begin_alone(
    settings: config.Settings, path: str | None, *, identity: bytes, parent: int, reselectable: bool
) -> Recording:
    global _recording
    if _recording is not None:
        where = "in memory" if _recording.path is None else f"into {_recording.path}"
        how = "end it with runtime.stop_all() first" if _recording.reselectable else "stop that one first"
        raise AlreadyRecording(f"this process is being recorded already, {where}: {how}")
    if settings.disable:
        _recording = Recording(settings, None, None)
        return _recording
    choice = backends.choose(
        settings.backend, detail=settings.detail, modules=settings.modules, budget=settings.budget
    )
    if path is None and settings.mode == "stream":
        path = f"{os.path.splitext(os.path.basename(sys.argv[0] or 'python'))[0] or 'python'}-{os.getpid()}.pyscope"
    if path is not None:
        path = os.path.abspath(path)
        if not parent:
            parts.check_replaceable(path)
    if not parent:
        own = settings.ring_dir or (path and os.path.dirname(path))
        for folder in {ring_place.SHM, os.path.abspath(own or ring_place.SHM)}:
            parts.seal_left_behind(folder)
    recording = Recording(settings, path, choice)
    recording.is_child = bool(parent)
    recording.reselectable = reselectable
    recording.identity = identity or os.urandom(16)
    process_id = recording.process_id = os.urandom(16)
    meta = beginning.meta(recording)
    # Everything that runs Python code comes before the hook: it would stand in the recording. And what a forked child
    # asks for as well is known before: another thread may hold a lock of the standard library's in a fork.
    selection.library_prefixes()
    atexit.register(_stop_at_exit)
    children.watch_forks()
    values.allow(settings.values)
    recording.probes = probes.acquire(settings.probes)
    if settings.children:
        children.follow(recording)
    recording.active = True
    _recording = recording
    held = descriptors.closed_streams()
    try:
        beginning.begin(recording, process_id, meta, parent)
    except BaseException:
        _recording = None
        recording.active = False
        children.leave(recording)
        atexit.unregister(_stop_at_exit)
        probes.release(recording.probes)
        values.forbid()
        raise
    finally:
        for fd in held:
            os.close(fd)
    emitter.connect(beginning.sink(recording))
    return recording


def _stop_at_exit() -> None:
    recording = _recording
    if recording is not None:
        with contextlib.suppress(NotRecording):
            _stop(recording)


def _stop(recording: Recording) -> None:
    with _changing:
        if recording is not _recording:
            raise NotRecording("this recording has ended already")
        _stop_alone(recording)


def _stop_alone(recording: Recording) -> None:
    global _recording
    if recording.active and recording.backend not in ("python", "none"):
        if recording.governor is not None:
            recording.governor.stop()
        probes.last_look(recording.probes)
        backends.required().uninstall()  # before any more Python code of ours
    _recording = None
    atexit.unregister(_stop_at_exit)
    if not recording.active:
        return
    recording.active = False
    probes.release(recording.probes)
    values.forbid()
    emitter.disconnect()
    children.leave(recording)
    problems = ending.end(recording)
    for problem in problems:  # last: the program may have made errors of warnings
        warn(problem)


# --- in a child process --------------------------------------------------------------------------


def begin_in_child(settings: config.Settings, root: str | None, identity: bytes, parent: int) -> None:
    """Starts a child's part of the recording `root`; a failure leaves the child unrecorded, with a warning."""
    global _recording
    _recording = None
    path = None if root is None else f"{root}.{os.getpid()}-{os.urandom(4).hex()}.part"
    try:
        _begin(settings, path, identity=identity, parent=parent)
    except Exception as error:
        warn(f"the child process {os.getpid()} is not recorded: {error}")


def pause_governor() -> None:
    """Ends the governor's thread until `resume_governor`: a fork must not find it at work."""
    if _recording is not None and _recording.governor is not None:
        _recording.governor.pause()


def resume_governor() -> None:
    """Undoes `pause_governor`."""
    if _recording is not None and _recording.active and _recording.governor is not None:
        _recording.governor.start()


def forget_in_forked_child() -> Recording | None:
    """The parent's recording as this forked child inherited it, detached; None if there was none."""
    global _recording, _changing
    _changing = _thread.RLock()  # another thread of the parent may have held it
    recording, _recording = _recording, None
    if recording is None or not recording.active:
        return None
    recording.active = False
    recording.governor = None  # its thread is the parent's
    emitter.disconnect()
    probes.release(recording.probes)
    values.forbid()
    atexit.unregister(_stop_at_exit)
    if recording.backend == "python":
        from pyscope.fallback import hook

        hook.forget_parent()
    else:
        backends.required().forget_parent()
    return recording


# --- for doctor ----------------------------------------------------------------------------------


def clock_report() -> dict[str, Any]:
    """The clock in use: `kind`, `tick_ns` (nanoseconds a tick), `read_ns` (cost of a reading, measured now)."""
    native = backends.native()
    if native is None:
        return {"kind": "time.perf_counter_ns", "tick_ns": 1.0, "read_ns": None}
    return {key: value for key, value in native.clock().items() if key != "sink"}
