"""PyScope: a flight recorder for Python services.

Record, then read::

    import pyscope

    with pyscope.record("run.pyscope", modules=["shop.*"]):
        ...
    trace = pyscope.load("run.pyscope")
    for finding in pyscope.diagnose(trace): ...

Under `pyscope run -m pytest` this module is there before pytest is: PYTEST_DONT_REWRITE, or pytest would warn of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyscope.recorder import Recording, dump, record, recover, start, stop

if TYPE_CHECKING:
    from pyscope.analysis.ranking import diagnose
    from pyscope.trace import Call, Trace, load

__all__ = ["Call", "Recording", "Trace", "diagnose", "dump", "load", "record", "recover", "start", "stop"]
__version__ = "0.1.0"

_LAZY = {
    "Call": "pyscope.trace",
    "Trace": "pyscope.trace",
    "diagnose": "pyscope.analysis.ranking",
    "load": "pyscope.trace",
}


def __getattr__(name: str) -> Any:
    """The reading side, and with it numpy, is imported when it is first used."""
    if name in _LAZY:
        import importlib

        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pyscope' has no attribute {name!r}")
