"""How a recording ends, once the hook is out: all of it is written, and what went wrong is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyscope import backends, incomplete, parts

if TYPE_CHECKING:
    from pyscope.recorder import Recording

__all__ = ["end"]

STOP_TIMEOUT = 10.0  # seconds the stop waits for a stalled disk


def end(recording: Recording) -> list[str]:
    """Writes what is left, and joins the parts of children. Returns what went wrong, in words."""
    if recording.backend == "python":
        from pyscope.fallback import hook

        unwritten: list[str] = []
        recording._figures = hook.stop()
    else:
        unwritten = list(_write_flight(recording))
        recording._figures = backends.required().stop(STOP_TIMEOUT)
    problems = [*unwritten, *incomplete.problems(recording, STOP_TIMEOUT)]
    if recording.settings.mode == "stream" and not _still_there(recording):
        problems.append(
            f"the recording {recording.path} was deleted or replaced while it was being written: "
            "nothing of it is left. Record again, and move a recording only after its stop."
        )
    elif recording.path is not None and not recording.is_child and os.path.exists(recording.path):
        problems += parts.join(recording.path)
    return problems


def _write_flight(recording: Recording) -> Iterator[str]:
    """Writes a flight recorder that has a path; what went wrong, in words. Its ring is kept then."""
    if recording.settings.mode != "flight" or recording.path is None or recording.ring_path is None:
        return
    try:
        backends.required().dump(recording.path)
    except OSError as error:
        problem = f"the recording {recording.path} could not be written: {error}"
        kept = parts.keep_ring(recording.ring_path)
        if kept is not None:
            problem += f". What it held is kept in {kept} for an hour: pyscope recover {recording.path}"
        yield problem


def _still_there(recording: Recording) -> bool:
    """Whether the file at the recording's path is the one that was written."""
    return recording.path is None or parts.belongs_to(recording.path, recording.process_id)
