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

N_PLUS_ONE_GET_LOOP: Final = Fault(
    name="n_plus_one_get_loop",
    does="GET /projects/{id}/people fetches each person with a session.get() of its own",
    twin="one SELECT with IN",
    finding="n_plus_one_query",
)
ASSIGN_RACE: Final = Fault(
    name="assign_race",
    does="assign_next_available_task reads and changes the TaskManager's book in the caller's thread, past the "
    "mailbox and without a lock: two callers can take the same task",
    twin="the call goes through the actor's mailbox, one at a time",
    finding="check_then_act",
)
LOST_UPDATE: Final = Fault(
    name="lost_update",
    does="POST /tasks/{id}/time reads the minutes spent, adds in Python and writes the sum back",
    twin="SET minutes_spent = minutes_spent + :minutes",
    finding="lost_update",
)
WRITE_SKEW: Final = Fault(
    name="write_skew",
    does="DELETE /tasks/{id}/watchers/{user} counts the watchers and removes one without locking what it counted: "
    "two callers leave an urgent task without any",
    twin="the task's row is locked first (FOR UPDATE)",
    finding="write_skew",
)
CHECK_THEN_ACT_AWAIT: Final = Fault(
    name="check_then_act_await",
    does="POST /reports looks whether a report of the year is running, awaits, and only then notes that it is: two "
    "callers start it twice",
    twin="it is noted before the first await",
    finding="check_then_act",
)
WORKER_CRASH: Final = Fault(
    name="worker_crash",
    does="the first task completed in a project crashes its ProjectWorker",
    twin="the worker handles the message",
    finding="child_restarted",
)
CRASH_LOOP: Final = Fault(
    name="crash_loop",
    does="a ProjectWorker crashes at every message and at its start, beyond the restart intensity",
    twin="the worker handles the message",
    finding="max_restarts_exceeded",
)
HANGING_EMAIL: Final = Fault(
    name="hanging_email",
    does="the mail server accepts the connection and never answers: every attempt times out",
    twin="the mail server answers",
    finding="timed out external call with 3 retries",
)
FAILING_STORAGE: Final = Fault(
    name="failing_storage",
    does="file storage fails each write",
    twin="file storage writes",
    finding="failed external call with 3 retries",
)
FLAKY_WEBHOOK: Final = Fault(
    name="flaky_webhook",
    does="the first two attempts of each webhook delivery are answered with 503",
    twin="the first attempt is delivered",
    finding="external call with 2 retries",
)
BLOCKING_CALL: Final = Fault(
    name="blocking_call",
    does="GET /projects/{id}/export sleeps and computes inside the event loop",
    twin="the work runs in a thread",
    finding="blocking_call_in_event_loop",
)
MEMORY_HUNGRY_REPORT: Final = Fault(
    name="memory_hungry_report",
    does="the annual report loads all tasks of the year at once and keeps copies of them",
    twin="it streams over them",
    finding="memory_growth",
)
SLOW_ENDPOINT: Final = Fault(
    name="slow_endpoint",
    does="GET /tasks/search matches in Python, over every task of the database",
    twin="the database matches, with a limit",
    finding="slow_call",
)
MAILBOX_FLOOD: Final = Fault(
    name="mailbox_flood",
    does="completing a task sends its ProjectWorker a refresh message for every task of the project",
    twin="it sends one",
    finding="mailbox_backlog",
)

FAULTS: Final = {
    fault.name: fault
    for fault in (
        N_PLUS_ONE_DASHBOARD,
        N_PLUS_ONE_DASHBOARD_AWAITED,
        N_PLUS_ONE_GET_LOOP,
        ASSIGN_RACE,
        LOST_UPDATE,
        WRITE_SKEW,
        CHECK_THEN_ACT_AWAIT,
        WORKER_CRASH,
        CRASH_LOOP,
        HANGING_EMAIL,
        FAILING_STORAGE,
        FLAKY_WEBHOOK,
        BLOCKING_CALL,
        MEMORY_HUNGRY_REPORT,
        SLOW_ENDPOINT,
        MAILBOX_FLOOD,
    )
}
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
