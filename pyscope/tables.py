"""The calls of a trace as tables of other libraries, with readable, dictionary-encoded names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyscope.errors import MissingExtra

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from pyscope.trace import Trace

NUMBERS = ("start_ns", "duration_ns", "self_ns", "parent", "depth")


def to_arrow(trace: Trace) -> pyarrow.Table:
    """See Trace.to_arrow."""
    pa = _import("to_arrow", "pyarrow", "arrow")
    columns: dict[str, Any] = {}
    for name, (codes, values) in categories(trace).items():
        missing = codes < 0
        indices = pa.array(codes, mask=missing if missing.any() else None)
        columns[name] = pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string()))
    for name in NUMBERS:
        columns[name] = pa.array(trace.calls[name])
    table: pyarrow.Table = pa.table(columns)
    return table


def to_pandas(trace: Trace) -> pandas.DataFrame:
    """See Trace.to_pandas."""
    pd = _import("to_pandas", "pandas", "pandas")
    columns: dict[str, Any] = {}
    for name, (codes, values) in categories(trace).items():
        columns[name] = pd.Categorical.from_codes(codes, categories=values)
    for name in NUMBERS:
        columns[name] = trace.calls[name]
    frame: pandas.DataFrame = pd.DataFrame(columns, copy=False)
    return frame


def to_polars(trace: Trace) -> polars.DataFrame:
    """See Trace.to_polars."""
    pl = _import("to_polars", "polars", "polars")
    _import("to_polars", "pyarrow", "polars")
    frame: polars.DataFrame = pl.from_arrow(to_arrow(trace))
    return frame


def _import(feature: str, package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtra(f"Trace.{feature}", package, extra) from error


def categories(trace: Trace) -> dict[str, tuple[NDArray[np.int32], list[str]]]:
    """Columns of names: the code of each row (-1 for none) and the names, each once."""
    from pyscope.trace import OUTCOMES

    calls, names = trace.calls, trace._names.functions
    processes = [str(process.pid) for process in trace.processes]
    by_thread = [processes[thread.process] for thread in trace.threads]
    contexts = ["", *(context.name for context in trace.contexts[1:])]
    context, context_names = _encoded(calls["context"], contexts)
    return {
        "function": _encoded(
            calls["function"], [f"{f.module}.{f.qualname}" if f.module else f.qualname for f in names]
        ),
        "module": _encoded(calls["function"], [f.module for f in names]),
        "process": _encoded(calls["thread"], by_thread),
        "thread": _encoded(calls["thread"], [thread.name for thread in trace.threads]),
        "context": (np.where(calls["context"] == 0, np.int32(-1), context), context_names),
        "outcome": (calls["outcome"].astype(np.int32), list(OUTCOMES)),
        "exception": (calls["exception"], trace.exceptions),
    }


def _encoded(index: NDArray[Any], values: list[str]) -> tuple[NDArray[np.int32], list[str]]:
    """An index into values of which some may be equal as codes of values that are each there once."""
    unique: dict[str, int] = {}
    lookup = np.array([unique.setdefault(value, len(unique)) for value in values] or [0], np.int32)
    return lookup[index], list(unique)
