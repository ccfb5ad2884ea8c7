"""Child processes record too: after a fork, and in Python interpreters started by the program.

A forked child begins a part of its own (`os.register_at_fork`; the native handler has detached it from the
parent's ring before). A new interpreter finds the settings in the environment and a `sitecustomize` on
PYTHONPATH, which both are as before after the stop.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyscope import backends, config

if TYPE_CHECKING:
    from pyscope.recorder import Recording

__all__ = ["follow", "leave", "start_if_child", "watch_forks"]

VARIABLE = "PYSCOPE_CHILD_OF"
FOLDER = str(Path(__file__).with_name("_child"))

# multiprocessing's own helper runs none of the program's code and outlives the stop: its part would stay behind.
RESOURCE_TRACKER = "from multiprocessing.resource_tracker import main"

_before: dict[str, str | None] | None = None
_fork_hook_installed = False


def watch_forks() -> None:
    """From now on a fork finds none of the recorder's threads at work, and the child lets go of the recording.

    To be called before probes begin: what is registered later runs earlier before a fork, and the last page of a
    probe's thread, which ends for a fork too, would wake the drain again.
    """
    global _fork_hook_installed
    if not _fork_hook_installed:
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
        )
        _fork_hook_installed = True


def follow(recording: Recording) -> None:
    """From now on the children of this process record too."""
    global _before
    root = _root(recording)
    _before = {name: os.environ.get(name) for name in (VARIABLE, "PYTHONPATH")}
    os.environ[VARIABLE] = json.dumps(
        {
            "root": root,
            "identity": recording.identity.hex(),
            "pid": os.getpid(),
            # Whatever the program starts may read its environment: the secret of the live view is not for it.
            "settings": json.loads(dataclasses.replace(recording.settings, token=None).to_json()),
        }
    )
    paths = [path for path in (_before["PYTHONPATH"] or "").split(os.pathsep) if path and path != FOLDER]
    os.environ["PYTHONPATH"] = os.pathsep.join([FOLDER, *paths])


def leave(recording: Recording) -> None:
    """Puts the environment back as it was."""
    global _before
    if _before is None:
        return
    for name, value in _before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    _before = None


def _root(recording: Recording) -> str | None:
    """The path of the recording that the parts belong to."""
    if recording.path is None or not recording.is_child:
        return recording.path
    return recording.path.rsplit(".", 2)[0]


def _before_fork() -> None:
    from pyscope import recorder

    recorder.pause_governor()
    native = backends.native() if sys.version_info >= (3, 12) else None
    if native is not None:
        native.pause_before_fork()


def _after_fork_in_parent() -> None:
    from pyscope import recorder

    recorder.resume_governor()


def _after_fork_in_child() -> None:
    from pyscope import recorder

    try:
        inherited = recorder.forget_in_forked_child()
        if inherited is None or not inherited.settings.children:
            return
        recorder.begin_in_child(inherited.settings, _root(inherited), inherited.identity, os.getppid())
        _stop_at_multiprocessing_exit()
    except Exception as error:  # the child goes on, unrecorded
        sys.stderr.write(f"pyscope: the forked child {os.getpid()} is not recorded: {error}\n")


def _stop_at_multiprocessing_exit() -> None:
    """A multiprocessing child leaves by os._exit: stop in its own exit functions, which do run.

    (Any other os._exit leaves the ring, which the parent seals.)
    """
    util: Any = sys.modules.get("multiprocessing.util")
    if util is None:
        return

    def register(_: object) -> None:
        util.Finalize(None, _stop_quietly, exitpriority=-1000)

    util.register_after_fork(_Anchor, register)


class _Anchor:
    """Something for multiprocessing's weak registry to hold on to."""


def _stop_quietly() -> None:
    from pyscope import recorder

    if recorder.active() is not None:
        recorder.stop()


def start_if_child() -> None:
    """Called by the `sitecustomize` of a new interpreter: joins the recording that the environment names."""
    text = os.environ.get(VARIABLE)
    if not text or any(RESOURCE_TRACKER in argument for argument in sys.orig_argv):
        return
    if backends.in_subinterpreter():  # of a child process, which records already
        return
    from pyscope import recorder

    message = json.loads(text)
    settings = config.Settings.from_json(json.dumps(message["settings"]))
    recorder.begin_in_child(settings, message["root"], bytes.fromhex(message["identity"]), message["pid"])
