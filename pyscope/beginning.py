"""How a recording begins: what is written first, the ring and its place, the hook, and where probes emit."""

from __future__ import annotations

import datetime
import errno
import json
import os
import platform
import sys
from typing import TYPE_CHECKING, Any

from pyscope import backends, breaker, emitter, ring_place, selection
from pyscope.errors import RecorderError
from pyscope.governor import Governor

if TYPE_CHECKING:
    from pyscope.recorder import Recording

__all__ = ["begin", "meta", "sink"]

_ADVICE: dict[int, str] = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
        "Choose a folder that can be written.",
    ),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free some space, or choose another folder."),
    errno.EAGAIN: "Allow the process more threads: ulimit -u, or the container's limit of processes.",
    errno.EFBIG: "Choose a smaller ring_mb (PYSCOPE_RING_MB), or allow larger files: ulimit -f.",
    errno.EMFILE: "Allow the process more open files: ulimit -n.",
}


def begin(recording: Recording, process_id: bytes, meta: bytes, parent: int) -> None:
    """Makes ring and file and installs the hook. `parent`: the process that this one is a child of, 0 for none.

    Raises BackendUnavailable, or RecorderError when the ring or the file cannot be made.
    """
    if recording.backend == "python":
        from pyscope.fallback import hook

        hook.start(recording, process_id, meta, parent)
    else:
        _start_native(recording, process_id, meta, parent)


def _start_native(recording: Recording, process_id: bytes, meta: bytes, parent: int) -> None:
    settings = recording.settings
    ring_bytes = ring_place.size_bytes(settings, child=bool(parent))
    native = backends.required()
    costs = None if settings.budget is None else native.calibrate(recording.backend)
    globs = None if settings.modules is None else selection.expand(settings.modules)
    refusals: list[str] = []
    for folder in ring_place.folders(settings, recording.path, ring_bytes, refusals):
        ring_path = os.path.join(folder, f"pyscope-{os.getuid()}-{os.getpid()}-{process_id[:6].hex()}.ring")
        recording.ring_path = ring_path
        try:
            native.start(
                backend=recording.backend,
                ring_path=ring_path,
                ring_bytes=ring_bytes,
                file_path=None if settings.mode == "flight" else recording.path,
                parts_prefix="" if recording.path is None or parent else f"{recording.path}.",
                recording_id=recording.identity,
                process_id=process_id,
                meta=meta,
                flight=settings.mode == "flight",
                globs=globs,
                exclude=selection.expand(settings.exclude),
                libraries=selection.library_prefixes(),
                c_calls=settings.detail == "c_calls",
                keep=None if settings.budget is None else selection.expand(settings.keep),
                parent_pid=parent,
                reselectable=recording.reselectable,
            )
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM) and "ring file" in str(error):
                refusals.append(f"{folder}: {os.strerror(error.errno)}")
                continue
            advice = _ADVICE.get(error.errno or 0, "")
            raise RecorderError(f"recording cannot start: {error}. {advice}".rstrip()) from error
        if costs is not None and settings.budget is not None:
            recording.governor = Governor(
                native,
                settings.budget,
                mechanism_ns=costs[0],
                record_ns=costs[1],
                frame=recording.backend == "frame",
                keeps=bool(settings.keep),
                c_calls=settings.detail == "c_calls",
            )
            recording.governor.start()
        return
    budget = ring_place.budget_bytes(settings, child=bool(parent)) >> 20
    raise RecorderError(
        f"recording cannot start: no room for the ring of {budget} MiB ({'; '.join(refusals)}). "
        "Free some space, or choose a smaller ring_mb (PYSCOPE_RING_MB) or another ring_dir (PYSCOPE_RING_DIR)."
    )


def meta(recording: Recording) -> bytes:
    """What is known of a recording at its begin, as JSON."""
    from pyscope import __version__

    settings = recording.settings
    return json.dumps(
        {
            "argv": [str(part) for part in getattr(sys, "orig_argv", sys.argv)],
            "python": platform.python_version(),
            "executable": sys.executable,
            "platform": sys.platform,
            "host": platform.node(),
            "backend": recording.backend,
            "backend_reason": recording.backend_reason,
            "mode": settings.mode,
            "detail": settings.detail,
            "modules": None if settings.modules is None else list(settings.modules),
            "exclude": list(settings.exclude),
            "path": recording.path,
            "recording": recording.identity.hex(),
            "ring_bytes": ring_place.size_bytes(settings, child=recording.is_child),
            "pyscope": __version__,
            "started": datetime.datetime.now(datetime.UTC).isoformat(),
        }
    ).encode()


class _NativeSink:
    def __init__(self, native: Any) -> None:
        self.emit = native.emit
        self.intern = native.intern_string
        self.stack = native.call_stack


def sink(recording: Recording) -> emitter.Sink:
    """Where probes put their events."""
    if recording.backend == "python":
        from pyscope.fallback import hook

        return hook.sink()
    native = backends.required()
    native.use_scope(emitter.scope)
    if hasattr(native, "use_circuit_breaker"):  # an extension that was built before has none
        native.use_circuit_breaker(breaker.recorder_out)
    return _NativeSink(native)
