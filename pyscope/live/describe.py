"""What is looked at, as messages say it: the recording and its processes, and how the looking goes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from pyscope.live.follow import FollowedProcess
from pyscope.live.hub import Message
from pyscope.live.source import Source
from pyscope.rows import Process
from pyscope.views.source import process_name
from pyscope.views.values import NAME, ms, text

__all__ = ["describe", "name_of", "nothing", "status"]

_MOST_PROCESSES = 100
_MOST_MODULES = 100


def nothing(source: Source) -> dict[str, Any]:
    """Of a source where nothing is recorded."""
    return {
        "kind": source.kind,
        "name": text(source.name, NAME),
        "path": "",
        "recording": False,
        "state": "waiting",
        "mode": None,
        "modules": None,
        "processes": [],
    }


def status(state: str, message: str) -> Message:
    """How the looking goes now, with a message for people."""
    return {"type": "status", "state": state, "message": message, "at_ms": ms(time.time_ns())}


def describe(source: Source, path: str, processes: list[FollowedProcess]) -> dict[str, Any]:
    """Of a recording that is being followed."""
    if not processes:
        return {**nothing(source), "path": text(path)}
    first = processes[0].record
    meta = first.meta or {}
    modules = meta.get("modules")
    mode = meta.get("mode")
    return {
        "kind": source.kind,
        "name": text(source.name, NAME),
        "path": text(path),
        "recording": any(process.record.alive for process in processes),
        "state": processes[0].state,
        "mode": mode if mode in ("stream", "flight") else None,
        "modules": [text(glob, NAME) for glob in modules[:_MOST_MODULES]]
        if isinstance(modules, list)
        else None,
        "processes": [_process(process) for process in processes[:_MOST_PROCESSES]],
    }


def name_of(process: FollowedProcess) -> str:
    """What people call a process."""
    argv = (process.record.meta or {}).get("argv")
    words = tuple(str(word) for word in argv) if isinstance(argv, list) else ()
    return process_name(cast(Process, SimpleNamespace(argv=words, pid=process.record.info.pid)))


def _process(process: FollowedProcess) -> dict[str, Any]:
    python = (process.record.meta or {}).get("python")
    return {
        "pid": process.record.info.pid,
        "name": text(name_of(process), NAME),
        "state": process.state,
        "python": text(python, NAME) if isinstance(python, str) else "",
    }
