"""The functions that ran, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyscope.rows import Function
from pyscope.views.values import NAME, ms, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["ORDERS", "table"]

ORDERS = ("self", "total", "calls")


def table(trace: Trace, order: str = "self", pattern: str = "", limit: int = 200) -> dict[str, Any]:
    """The first `limit` functions in an order of ORDERS whose name or file contains `pattern`, in any case.

    `total`: how many do; `share`: of the self time of all functions. Raises ValueError for another order.
    """
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; it must be one of {', '.join(ORDERS)}")
    ran = [function for function in trace.functions if function.calls]
    whole = sum(function.self_ns for function in ran)
    wanted = pattern.casefold()
    found = [f for f in ran if wanted in f"{f.module}.{f.qualname} {f.file}".casefold()] if wanted else ran
    found = sorted(found, key=lambda f: _weight(f, order), reverse=True)
    return {"total": len(found), "functions": [_row(function, whole) for function in found[: max(0, limit)]]}


def _weight(function: Function, order: str) -> int:
    return {"self": function.self_ns, "total": function.total_ns, "calls": function.calls}[order]


def _row(function: Function, whole: int) -> dict[str, Any]:
    return {
        "module": text(function.module, NAME),
        "qualname": text(function.qualname, NAME),
        "file": text(function.file, NAME),
        "line": function.line,
        "calls": function.calls,
        "total_ms": ms(function.total_ns),
        "self_ms": ms(function.self_ns),
        "share": round(function.self_ns / whole, 6) if whole > 0 else 0.0,
    }
