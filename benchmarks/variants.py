"""The ways to run the same work: untraced, under PyScope's levels, under empty hooks, under peers.

Each is switched on and off within one process, so that blocks of all of them can be interleaved.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import peers
from benchmarks.estimator import BASELINE, CONTROL

Switch = Callable[[], Callable[[], dict[str, float]]]  # turns it on; the result turns it off, with figures

EMPTY: Final = "empty "  # then the backend's name
OWN: Final = "own modules"
ALL_PROBES: Final = f"{OWN} + all probes"
PROBES_IN_FLIGHT: Final = f"{ALL_PROBES}, flight"
EVERYTHING: Final = "everything"
IN_FLIGHT: Final = f"{EVERYTHING}, flight"
BUDGETED: Final = f"{EVERYTHING}, budget"
ALL_C_CALLS: Final = f"{EVERYTHING} + C calls"
DUTY_CYCLE: Final = f"{ALL_C_CALLS} by duty cycle"
WITH_PROBE: Final = f"{OWN} + "  # then the probe's name

PYSCOPE: Final[dict[str, dict[str, Any]]] = {
    OWN: {"modules": ["taskflow.*"]},
    ALL_PROBES: {"modules": ["taskflow.*"], "probes": ["auto"]},
    PROBES_IN_FLIGHT: {"modules": ["taskflow.*"], "probes": ["auto"], "mode": "flight"},
    EVERYTHING: {"modules": ["*"]},
    IN_FLIGHT: {"modules": ["*"], "mode": "flight"},
    BUDGETED: {"modules": ["*"], "budget": "5%"},
    "everything, frame": {"modules": ["*"], "backend": "frame"},
    "everything, monitoring": {"modules": ["*"], "backend": "monitoring"},
    "everything, setprofile": {"modules": ["*"], "backend": "setprofile"},
    DUTY_CYCLE: {"modules": ["*"], "detail": "c_calls", "budget": "3%"},
    ALL_C_CALLS: {"modules": ["*"], "detail": "c_calls"},
}


def backends() -> list[str]:
    """The native backends that this interpreter has."""
    return ["monitoring", "frame", "setprofile"] if sys.version_info >= (3, 12) else ["frame", "setprofile"]


def with_each_probe() -> list[str]:
    """The variants with one probe each, of those that "auto" stands for."""
    from pyscope import probes

    return [f"{WITH_PROBE}{name}" for name in probes.names(automatic=True)]


def available(name: str) -> bool:
    """Whether this interpreter, with what is installed, can run the variant."""
    if name in peers.SWITCHES:
        return peers.available(name)
    backend = name.removeprefix(EMPTY) if name.startswith(EMPTY) else PYSCOPE.get(name, {}).get("backend")
    return backend is None or backend in backends()


def switch(name: str) -> Switch:
    """What turns the variant on in this process. KeyError for a name that is none."""
    if name in (BASELINE, CONTROL):
        return lambda: dict
    if name.startswith(EMPTY):
        return lambda: _empty_hook(name.removeprefix(EMPTY))
    if name in peers.SWITCHES:
        return peers.SWITCHES[name]
    settings = PYSCOPE.get(name)
    if settings is None and name.startswith(WITH_PROBE):
        settings = {"modules": ["taskflow.*"], "probes": [name.removeprefix(WITH_PROBE)]}
    if settings is None:
        raise KeyError(name)
    return lambda: _pyscope(settings)


def _pyscope(settings: dict[str, Any]) -> Callable[[], dict[str, float]]:
    import pyscope

    directory = tempfile.TemporaryDirectory(prefix="pyscope-bench-")
    recording = pyscope.start(Path(directory.name) / "run.pyscope", children=False, **settings)

    def off() -> dict[str, float]:
        pyscope.stop()
        directory.cleanup()
        figures = recording.figures
        if figures.get("faults"):
            raise RuntimeError(f"the recorder counted {figures['faults']} faults")
        names = ("events", "dropped", "bytes", "drain_cpu_ns")
        return {name: float(figures.get(name, 0)) for name in names}

    return off


def _empty_hook(backend: str) -> Callable[[], dict[str, float]]:
    from pyscope import _hook

    _hook.install_empty(backend)

    def off() -> dict[str, float]:
        _hook.remove_empty(backend)
        return {}

    return off
