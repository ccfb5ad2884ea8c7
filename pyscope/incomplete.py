"""What a recording that has been stopped lacks: sentences that say what happened and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pyscope import parts

if TYPE_CHECKING:
    from pyscope.recorder import Recording

__all__ = ["problems"]


def problems(recording: Recording, stop_timeout: float) -> Iterator[str]:
    """One sentence for each thing that is missing of `recording`; `stop_timeout`: seconds that the disk was given."""
    figures = recording.figures
    evicted = figures.get("evicted", False)
    unmatched = _unmatched(recording.settings.modules, figures.get("unmatched", ()))
    if unmatched and not evicted and _selected_once(recording):
        names = ", ".join(repr(glob) for glob in unmatched)
        yield f"modules={names} matched no code that ran: check the spelling (a module is named as in __name__)"
    if figures.get("state") in ("write_failed", "stalled"):
        why = (
            os.strerror(figures["error"])
            if figures.get("error")
            else f"the disk did not answer in {stop_timeout:g} s"
        )
        yield (
            f"the recording {recording.path} is incomplete: {why}. What was not written is kept in "
            f"{figures['ring_path']}: make room, then run: pyscope recover {recording.path}"
        )
    if figures.get("interrupted"):
        yield (
            f"signal handlers raised {figures['interrupted']} times inside the pure-Python hook: calls about then are "
            "missing. The native backends do not have this weakness."
        )
    if evicted:
        yield (
            "the program set a profile function of its own (sys.setprofile, cProfile): while it was set, "
            'its thread was not recorded. With backend="auto" both work.'
        )
    if figures.get("tool_taken"):
        yield (
            "the program freed PyScope's tool id of sys.monitoring, or registered callbacks of its own for it: calls "
            "after that are missing. Let it use an id whose sys.monitoring.get_tool() is None."
        )
    if figures.get("unnamed"):
        yield (
            f"{figures['unnamed']} functions are recorded without their names: the table of names was full. "
            "An eighth of the ring is for them: raise ring_mb, or name fewer modules."
        )
    if not figures.get("clean", True):
        yield "another frame evaluator was installed over PyScope's; PyScope's now only passes frames on"


def _selected_once(recording: Recording) -> bool:
    """Whether the globs are meant for this process alone, and have been the same from its beginning."""
    alone = not recording.is_child and not (recording.path and parts.of(recording.path))
    return alone and not recording.reselectable


def _unmatched(globs: tuple[str, ...] | None, native: Iterable[str]) -> list[str]:
    missing = set(native)
    return [
        glob for glob in globs or () if glob in missing and (not glob.endswith(".*") or glob[:-2] in missing)
    ]
