"""What is looked at: the recording and its processes, as the page's first message says it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyscope
from pyscope.rows import Process
from pyscope.views.values import NAME, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["NO_CONTROLS", "hello", "process_name", "program_words", "source"]

VERSION = 1
NO_CONTROLS = {"read_only": True, "start": False, "stop": False, "dump": False, "download": False}

_MOST_PROCESSES = 100
_OURS = re.compile(r"(^|/)pyscope$")
_FLAGS = ("--no-children",)  # of `pyscope run`; its other options have values
_WORST_FIRST = ("write_failed", "killed", "recovered", "recording", "stopped")


def hello(
    trace: Trace,
    *,
    kind: str = "recording",
    name: str = "",
    controls: dict[str, bool] | None = None,
    csrf: str = "",
) -> dict[str, Any]:
    """The first message: what is shown and what may be done with it; of a saved recording nothing may."""
    return {
        "type": "hello",
        "version": VERSION,
        "pyscope": pyscope.__version__,
        "source": source(trace, kind=kind, name=name),
        "controls": dict(NO_CONTROLS if controls is None else controls),
        "csrf": csrf,
    }


def source(trace: Trace, *, kind: str = "recording", name: str = "") -> dict[str, Any]:
    """`kind` is "recording", "process" or "self"; `name` is that of the file where none is given."""
    processes = trace.processes
    first = processes[0] if processes else None
    modules = None if first is None or first.modules is None else [text(m, NAME) for m in first.modules[:100]]
    states = {process.state for process in processes}
    return {
        "kind": kind,
        "name": text(name or os.path.basename(trace.path), NAME),
        "path": text(trace.path),
        "recording": "recording" in states,
        "state": _state(first, states),
        "mode": first.mode if first is not None and first.mode in ("stream", "flight") else None,
        "modules": modules,
        "processes": [_process(process) for process in processes[:_MOST_PROCESSES]],
    }


def _state(first: Process | None, states: set[str]) -> str:
    """That of the process that was recorded first; of its children what is worse."""
    if first is None:
        return "waiting"
    if first.state == "recording":
        return "recording"
    return next((state for state in _WORST_FIRST if state in states and state != "recording"), first.state)


def _process(process: Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "name": text(process_name(process), NAME),
        "state": process.state,
        "python": text(process.python, NAME),
    }


def program_words(command: Sequence[str]) -> list[str]:
    """A command line without the interpreter's folder and what `pyscope run` stands for in it."""
    words = list(command)
    run = next(
        (at for at, word in enumerate(words[:-1]) if _OURS.search(word) and words[at + 1] == "run"), None
    )
    if run is None:
        return [word.rpartition("/")[2] for word in words[:1]] + words[1:]
    at = run + 2
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-m", "-c", "-", "--"):
        at += 1 if "=" in words[at] or words[at] in _FLAGS else 2
    return ["python", *words[at:]]


def process_name(process: Process) -> str:
    """What people call a process: its script or module and its first argument, without interpreter and folders."""
    words = program_words(process.argv)
    if "-m" in words:  # of several the last: what a launcher launches
        words = words[len(words) - words[::-1].index("-m") :]
    else:
        script = next((at for at, word in enumerate(words) if word.endswith(".py")), 0)
        words = words[script:]
    name = os.path.basename(words[0]) if words else ""
    if len(words) > 1 and name and not words[1].startswith("-"):
        name += f" {os.path.basename(words[1])}"
    return name or f"process {process.pid}"
