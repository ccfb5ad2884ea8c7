"""What `pyscope doctor` finds out: whether recording works here, how, and with which settings."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import importlib
import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyscope import backends, config, launch, parts, recorder, ring_place
from pyscope.backends import BackendChoice
from pyscope.ring_place import RingPlace

__all__ = ["Diagnosis", "LeftoverRing", "SettingInForce", "examine"]

EXTRAS: dict[str, tuple[str, ...]] = {  # the packages that make each extra work
    "cli": ("click", "rich"),
    "arrow": ("pyarrow",),
    "pandas": ("pandas",),
    "polars": ("polars", "pyarrow"),
    "live": ("fastapi", "uvicorn", "websockets"),
    "sqlalchemy": ("sqlalchemy",),
}
_PART = re.compile(r"\.\d+-[0-9a-f]+\.part$")  # of a child: it belongs to its parent's recording
_RING_NAME = re.compile(r"pyscope-\d+-(\d+)-[0-9a-f]+\.ring")


@dataclass(frozen=True, slots=True)
class LeftoverRing:
    """The ring of a process that died before its recording was complete; `.ring.new` if it had not begun to record.

    `recording`: what it belongs to, None if to no file.
    """

    path: str
    pid: int
    bytes: int
    recording: str | None = None


@dataclass(frozen=True, slots=True)
class SettingInForce:
    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything `examine` found. `problems` holds what keeps recording from working; empty if it works."""

    python: str
    executable: str
    extensions: dict[str, str | None]  # module -> why it cannot be used, or None
    backends: Sequence[BackendChoice]
    backend_named: str  # the setting: "auto", or the backend that was asked for
    clock: dict[str, Any]
    ring_bytes: int
    rings: Sequence[RingPlace]
    leftovers: Sequence[LeftoverRing]
    settings: Sequence[SettingInForce]
    unknown: Sequence[str]  # variables of the environment that no setting has the name of, in words
    extras: dict[str, bool]
    problems: Sequence[str]

    @property
    def works(self) -> bool:
        """Whether a recording with these settings would start."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **dataclasses.asdict(self),
            "rings": [ring._asdict() for ring in self.rings],
            "works": self.works,
        }


def examine(*, modules: Sequence[str] | None = None, detail: str | None = None) -> Diagnosis:
    """Look at this interpreter and machine as a recording started now would.

    Parameters as in `pyscope.record`. Raises ConfigError for a bad setting.
    """
    settings = config.resolve(modules=modules, detail=detail)
    choices = backends.backend_report(
        detail=settings.detail, modules=settings.modules, budget=settings.budget
    )
    path = launch.recording_path(settings, "program.pyscope")  # as `pyscope run` has it
    rings = ring_place.considered(settings, path)
    ring_bytes = settings.ring_mb << 20
    problems = []
    if settings.backend != "auto":
        named = next(choice for choice in choices if choice.name == settings.backend)
        if not named.available:
            problems.append(f"the backend {named.name!r} was asked for, but {named.reason}")
    if not any(ring.fits for ring in rings):
        why = "; ".join(f"{ring.folder}: {ring.problem}" for ring in rings)
        problems.append(
            f"the ring of {settings.ring_mb} MiB can lie nowhere ({why}): set a smaller ring_mb "
            "(PYSCOPE_RING_MB) or another ring_dir (PYSCOPE_RING_DIR)"
        )
    if path is not None and os.path.exists(path) and not os.path.isfile(path):
        problems.append(f"the recording would be {path}, which is no file: name another with -o FILE")
    elif path is not None and not os.access(os.path.dirname(path), os.W_OK):
        problems.append(
            f"recordings would go to {os.path.dirname(path)}, which cannot be written: name another with -o FILE"
        )
    if settings.disable:
        problems.append(f"recording is switched off ({settings.source('disable')})")
    return Diagnosis(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        executable=sys.executable,
        extensions={"pyscope._hook": backends.native_problem(), "pyscope._codec": _problem("pyscope._codec")},
        backends=choices,
        backend_named=settings.backend,
        clock=recorder.clock_report(),
        ring_bytes=ring_bytes,
        rings=rings,
        leftovers=_leftovers({ring.folder for ring in rings} | {"/dev/shm"}),
        settings=_in_force(settings),
        unknown=config.unknown_variables(),
        extras={name: all(map(_installed, packages)) for name, packages in EXTRAS.items()},
        problems=problems,
    )


def _problem(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"it cannot be imported ({error})"
    return None


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _leftovers(folders: set[str]) -> list[LeftoverRing]:
    native = backends.native()
    found = []
    for folder in sorted(folders):
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), "pyscope-*.ring"))):
            name = _RING_NAME.fullmatch(os.path.basename(path))
            if name is None or not os.access(
                path, os.R_OK | os.W_OK
            ):  # another user's: alive or not, who knows
                continue
            if native is not None and native.owner_alive(path):
                continue
            with contextlib.suppress(
                OSError, ValueError, RuntimeError
            ):  # it went away meanwhile, or is no ring
                found.append(LeftoverRing(path, int(name[1]), os.path.getsize(path), _recording_of(path)))
        for path in parts.unbegun(folder, "*"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                found.append(LeftoverRing(path, parts.pid_of(path), os.path.getsize(path)))
    return found


def _recording_of(ring: str) -> str | None:
    """Raises OSError, ValueError or RuntimeError if it is no ring."""
    native = backends.native()
    meta = json.loads(native.ring_meta(ring)) if native is not None and os.path.getsize(ring) else None
    path = meta.get("path") if isinstance(meta, dict) else None
    return _PART.sub("", path) if isinstance(path, str) else None


def _in_force(settings: config.Settings) -> list[SettingInForce]:
    rows = []
    for field in dataclasses.fields(settings):
        if field.name == "sources":
            continue
        value = getattr(settings, field.name)
        if field.name == "token" and value is not None:
            text = "(set)"  # a secret
        elif isinstance(value, tuple):
            text = ", ".join(value) or "none"
        elif field.name == "modules" and value is None:
            text = "all but the standard library and site-packages"
        elif field.name == "budget" and value is not None:
            text = f"{value:.3g} of CPU time"
        else:
            text = {None: "none", True: "yes", False: "no"}.get(value, str(value))
        rows.append(SettingInForce(field.name, text, settings.source(field.name)))
    return rows
