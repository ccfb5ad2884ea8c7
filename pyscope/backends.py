"""Which backend records, and why: one function that states a reason for each, chosen or not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyscope import selection
from pyscope.errors import BackendUnavailable, RecorderError

if TYPE_CHECKING:
    import types

__all__ = ["BackendChoice", "backend_report", "choose", "in_subinterpreter", "native", "required"]

_native: types.ModuleType | None = None


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """One backend: whether it can work here, whether `auto` takes it, and the reason in plain words."""

    name: str
    available: bool
    chosen: bool
    reason: str


def native() -> types.ModuleType | None:
    """The extension module, or None where it is not built (or cannot be loaded: `native_problem`)."""
    global _native
    if _native is None:
        try:
            from pyscope import _hook
        except ImportError:
            return None
        _native = _hook
    return _native


def required() -> types.ModuleType:
    """The extension module. Raises RecorderError with the reason where it cannot be used."""
    module = native()
    if module is None:
        raise RecorderError(f"the native recorder is not available: {native_problem()}")
    return module


def native_problem() -> str | None:
    """Why the native recorder cannot be used, or None."""
    if sys.implementation.name != "cpython":
        return f"it needs CPython, this is {sys.implementation.name}"
    if getattr(sys, "_is_gil_enabled", lambda: True)() is False:
        return "this interpreter runs without the GIL, which the recorder's rings rely on"
    try:
        from pyscope import _hook  # noqa: F401
    except ImportError as error:
        return f"the extension module pyscope._hook cannot be imported ({error})"
    return None


def in_subinterpreter() -> bool:
    """Whether this is another interpreter than the process's first."""
    try:
        interpreters = importlib.import_module(
            "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
        )
    except ImportError:  # another implementation than CPython
        return False
    return bool(interpreters.get_current() != interpreters.get_main())


def _unavailable(name: str) -> str | None:
    """Why a backend cannot work in this interpreter now, or None."""
    if name == "python":
        return None
    problem = native_problem()
    if problem:
        return problem
    from pyscope import _hook

    if name == "monitoring":
        if sys.version_info < (3, 12):
            return f"sys.monitoring (PEP 669) came with 3.12, this is {sys.version_info[0]}.{sys.version_info[1]}"
        if _hook.free_tool_id() is None:
            return "the sys.monitoring tool ids 3, 4 and 5 are all in use by other tools"
    if name == "frame" and sys.version_info[:2] == (3, 13) and _hook.free_tool_id() is None:
        return (
            "3.13 runs __init__ past a frame hook, so sys.monitoring must help it, "
            "whose tool ids 3, 4 and 5 are all in use by other tools"
        )
    if name == "setprofile" and _hook.profiler_installed():
        return "another profiler is set on this thread (sys.setprofile); it is not evicted"
    return None


def _without_budget(name: str, budget: float | None) -> str | None:
    """Why a backend cannot keep a budget, or None if it can (or there is none)."""
    if budget is None:
        return None
    if name == "python":
        return (
            "it cannot keep a budget: it costs many times what it records; record fewer modules without one"
        )
    if name == "setprofile":
        return "it cannot keep a budget: every call of the process costs something while it is installed"
    if name == "monitoring" and native_problem() is None and sys.version_info >= (3, 12):
        from pyscope import _hook

        if len(_hook.free_tool_ids()) < 2:
            return (
                "a budget needs two of the sys.monitoring tool ids 3, 4 and 5, and other tools use the rest"
            )
    return None


def backend_report(
    *, detail: str = "calls", modules: Iterable[str] | None = None, budget: float | None = None
) -> list[BackendChoice]:
    """Every backend with its verdict for such a recording, in the order of `auto`'s preference.

    Parameters: `detail`, `modules` and `budget` as in `pyscope.record`.
    """
    everything = selection.selects_everything(modules)
    order = _preference(detail, everything, budget)
    report: list[BackendChoice] = []
    taken = False
    for name, why in order:
        problem = _unavailable(name) or _without_budget(name, budget)
        chosen = problem is None and not taken
        taken = taken or chosen
        if problem is not None:
            reason = problem
        elif chosen:
            reason = why
        else:
            reason = (
                f"not needed: what was asked for is recorded by {next(c.name for c in report if c.chosen)}"
            )
        report.append(BackendChoice(name, problem is None, chosen, reason))
    return report


def _preference(detail: str, everything: bool, budget: float | None) -> list[tuple[str, str]]:
    slow = ("python", "no native backend works here: sys.setprofile in pure Python, many times slower")
    full = "C calls are wanted all the time: only a profile function sees them in every version"
    if detail == "c_calls" and budget is None:
        return [("setprofile", full), ("monitoring", full), ("frame", full), slow]
    windows = "; C calls come from a profile function armed in windows" if detail == "c_calls" else ""
    frame = (
        "frame",
        "PEP 523 frame evaluation: "
        + (
            "the cheapest for every call of the process"
            if everything and budget is None
            else "the cheapest before 3.12"
        )
        + windows,
    )
    monitoring = (
        "monitoring",
        "PEP 669 events on the selected code only; all other code is disarmed" + windows,
    )
    setprofile = ("setprofile", "PyEval_SetProfile: neither of the cheaper mechanisms is free")
    # Under a budget: monitoring alone disarms single functions in full.
    first = [frame, monitoring] if everything and budget is None else [monitoring, frame]
    return [*first, setprofile, slow]


def choose(
    backend: str, *, detail: str, modules: Iterable[str] | None, budget: float | None
) -> BackendChoice:
    """The backend to record with. Raises BackendUnavailable with the reason and what to choose instead."""
    if backend != "python" and in_subinterpreter():
        raise BackendUnavailable(
            "PyScope records in the main interpreter of a process only, and this is a subinterpreter: "
            'start it there, or choose backend="python"'
        )
    report = backend_report(detail=detail, modules=modules, budget=budget)
    if backend == "auto":
        for choice in report:
            if choice.chosen:
                return choice
        reasons = "; ".join(f"{choice.name}: {choice.reason}" for choice in report)
        raise BackendUnavailable(f"no backend can keep a budget here ({reasons}). Record without a budget.")
    problem = _unavailable(backend) or _without_budget(backend, budget)
    if problem is not None:
        can = ", ".join(repr(choice.name) for choice in report if choice.available)
        raise BackendUnavailable(
            f"backend {backend!r} is not available: {problem}. Available here: {can}, or 'auto'."
        )
    return BackendChoice(backend, True, True, "asked for by name")
