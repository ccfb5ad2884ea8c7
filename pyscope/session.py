"""The recording behind `pyscope.runtime`: begun by the first kind of monitoring, ended by the last.

It keeps the last `ring_mb` MiB in memory (flight mode), so a service can leave it on for good; or it goes into a file
if one is named. Where the program records itself already, that recording is used and left as it was.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from typing import Any

from pyscope import backends, config, probes, recorder, selection
from pyscope.errors import RecorderError
from pyscope.trace import Trace, load

__all__ = ["Session"]


class Session:
    """What the kinds of monitoring in force need of one recording. Its caller holds a lock."""

    def __init__(self) -> None:
        self._recording: recorder.Recording | None = None
        self._own = False
        self._scratch: str | None = None
        self._modules: dict[str, tuple[str, ...] | None] = {}  # by kind
        self._probes: dict[str, list[str]] = {}

    @property
    def active(self) -> bool:
        """Whether there is a recording."""
        return self._recording is not None and self._recording.active

    def add(
        self,
        kind: str,
        modules: Any,
        wanted: Iterable[str] = (),
        *,
        path: Any = None,
        detail: str | None = None,
    ) -> int:
        """A kind of monitoring begins, with the modules whose calls it needs (None: the user's own) and its probes.

        Returns the time from which on it holds, in ns of the Unix epoch. Raises as `pyscope.start`, ConfigError for bad
        modules, RecorderError where the program's own recording does not select the modules. Nothing has begun then.
        """
        settings = config.resolve(modules=modules, path=path)
        chosen = None if modules is None else settings.modules
        wanted = list(wanted)
        before = self._modules.copy()
        self._modules[kind] = chosen
        held: list[str] = []
        try:
            held = probes.acquire(wanted, required=True)
            since = time.time_ns()
            if self.active:
                self._select(detail, path)
            else:
                self._begin(path, detail, wanted)
        except BaseException:
            self._modules = before
            probes.release(held)
            raise
        self._probes[kind] = held
        return since

    def remove(self, kind: str) -> None:
        """A kind of monitoring ends; with the last one the recording."""
        self._modules.pop(kind, None)
        probes.release(self._probes.pop(kind, []))
        if not self._modules:
            self._end()

    def trace(self) -> Trace:
        """What has been recorded so far. Raises RecordingError if it cannot be read, RecorderError if it is gone."""
        recording = self._recording
        if recording is None:
            raise RecorderError("nothing is being monitored: start something first")
        source = recording.ring_path if recording.settings.mode == "flight" else recording.path
        assert source is not None
        if not recording.active and not os.path.exists(source):
            raise RecorderError(
                "the recording was ended from elsewhere, by pyscope.stop() perhaps, and what was in memory went with "
                "it: end what is monitored with runtime.stop_all()"
            )
        return load(source)

    def forget(self) -> None:
        """In the child of a fork: the recording is the parent's."""
        self.__init__()  # type: ignore[misc]

    def _union(self) -> tuple[str, ...] | None:
        """The modules of all kinds together; None is the user's own code."""
        if any(modules is None for modules in self._modules.values()):
            return None
        return tuple(dict.fromkeys(glob for modules in self._modules.values() for glob in modules or ()))

    def _begin(self, path: Any, detail: str | None, wanted: list[str]) -> None:
        found = recorder.active()
        if found is not None:
            self._recording, self._own = found, False
            try:
                self._select(detail)
            except BaseException:
                self._recording = None
                raise
            return
        mode = "flight" if path is None else "stream"
        if backends.native() is None and path is None:
            handle, self._scratch = tempfile.mkstemp(prefix="pyscope-", suffix=".pyscope")
            os.close(handle)
            os.unlink(self._scratch)
            path, mode = self._scratch, "stream"
        children = path is not None
        settings = config.resolve(
            path=path,
            mode=mode,
            detail=detail,
            modules=self._union(),
            children=children,
            probes=wanted if children else [],  # the children's too
        )
        self._recording = recorder.begin_reselectable(settings)
        self._own = True

    def _select(self, detail: str | None, path: Any = None) -> None:
        recording = self._recording
        assert recording is not None
        if self._own and path is not None and os.path.abspath(os.fspath(path)) != recording.path:
            kept = "in memory" if recording.path is None else f"in {recording.path}"
            raise RecorderError(
                f"the recording in progress is kept {kept}: stop what is being monitored, to begin again with {path}, "
                "or name the file first"
            )
        if detail is not None and detail != recording.settings.detail:
            raise RecorderError(
                f"the recording in progress has detail={recording.settings.detail!r}: stop what is being monitored, "
                f"to begin again with {detail!r}"
            )
        if self._own:
            recorder.reselect(self._union())
            return
        missing = [
            modules for modules in self._modules.values() if not covers(recording.settings.modules, modules)
        ]
        if missing:
            raise RecorderError(
                f"the program is being recorded already, with modules={recording.settings.modules}: "
                f"{missing[0]} is not among them. Stop that recording, or begin it with these modules too"
            )

    def _end(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None and self._own and recording.active and recorder.active() is recording:
            recording.stop()
        if self._scratch is not None:
            if os.path.exists(self._scratch):
                os.unlink(self._scratch)
            self._scratch = None


def covers(selected: tuple[str, ...] | None, wanted: tuple[str, ...] | None) -> bool:
    """Whether a recording that selects `selected` holds the calls of `wanted`, as far as globs can be compared."""
    if selection.selects_everything(selected) or wanted == ():
        return True
    if wanted is None or selected is None:
        return wanted is None and selected is None
    patterns = set(selection.expand(selected))
    return all(set(selection.expand([glob])) <= patterns for glob in wanted)
