"""The faults TaskFlow commits on purpose, each with its fixed twin, in one table.

A fault is asked for by name: `TASKFLOW_FAULTS=n_plus_one_dashboard,…`, or `TASKFLOW_FAULTS=none`
for a service without any. A test or the demo can so ask for exactly one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Fault:
    """One deliberate defect.

    `does` says what goes wrong, `twin` how the fixed code does it instead, `finding` the kind of
    finding that PyScope should report while the fault is on.
    """

    name: str
    does: str
    twin: str
    finding: str
    on_by_default: bool = False


N_PLUS_ONE_DASHBOARD: Final = Fault(
    name="n_plus_one_dashboard",
    does="GET /projects/{id}/dashboard loads the assignee and the watchers of each task one by one, "
    "as plain attribute access inside SQLAlchemy's greenlet",
    twin="the same page from two extra SELECTs (selectinload)",
    finding="n_plus_one_query",
    on_by_default=True,
)
N_PLUS_ONE_DASHBOARD_AWAITED: Final = Fault(
    name="n_plus_one_dashboard_awaited",
    does="the same, written with awaitable_attrs in a coroutine: one greenlet a relationship",
    twin="the same page from two extra SELECTs (selectinload)",
    finding="n_plus_one_query",
)

FAULTS: Final = {fault.name: fault for fault in (N_PLUS_ONE_DASHBOARD, N_PLUS_ONE_DASHBOARD_AWAITED)}
DEFAULT_FAULTS: Final = frozenset(name for name, fault in FAULTS.items() if fault.on_by_default)


def parse_faults(names: str | Iterable[str]) -> frozenset[str]:
    """The set of fault names in `names`, an iterable or a comma-separated string.

    `none` (or nothing at all) is the empty set. Raises ValueError naming what is allowed.
    """
    if isinstance(names, str):
        names = names.split(",")
    asked = frozenset(stripped for name in names if (stripped := name.strip()))
    if asked == {"none"}:
        return frozenset()
    if unknown := asked - FAULTS.keys():
        raise ValueError(
            f"unknown fault {', '.join(sorted(unknown))}; known: none, {', '.join(sorted(FAULTS))}"
        )
    return asked
