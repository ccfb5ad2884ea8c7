"""A pytest plugin: the fixture `pyscope_runtime`, and assertions about what was monitored.

    from pyscope.testing import assert_function_traced

    def test_creating_a_task_inserts_it(pyscope_runtime):
        pyscope_runtime.start_tracing(modules=["shop.*"])
        shop.create_task("write the report")
        assert_function_traced(pyscope_runtime.get_traces(), "shop.repo", "insert", 1)

Each assertion returns what it found first, so that a test can go on with it. One that fails says what was there.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:  # pytest loads this module at every start: the rest, and numpy, only where it is used
    from pyscope.findings import ExternalCall, PerformanceIssue, StateChange, SupervisorEvent
    from pyscope.trace import Call

    T = TypeVar("T", ExternalCall, PerformanceIssue, StateChange, SupervisorEvent)

__all__ = [
    "assert_event_captured",
    "assert_function_traced",
    "assert_issue_detected",
    "assert_retry_attempts",
    "assert_state_transition",
    "assert_timeout_captured",
    "pyscope_runtime",
]

MOST_LISTED = 12


@pytest.fixture(name="pyscope_runtime")
def pyscope_runtime() -> Iterator[ModuleType]:
    """`pyscope.runtime`, with nothing in force and nothing gathered; everything is undone after the test."""
    from pyscope import runtime

    runtime.reset()
    try:
        yield runtime
    finally:
        runtime.stop_all()


def assert_function_traced(
    traces: Iterable[Call], module: str, function: str, arity: int | None = None
) -> Call:
    """That a function was called. `module` is a dotted glob, `function` a name or qualified name (globs too), `arity`
    the number of its parameters without self or cls (None: any)."""
    __tracebackhide__ = True
    calls = list(traces)
    for call in calls:
        if (
            fnmatchcase(call.module, module)
            and (fnmatchcase(call.qualname, function) or fnmatchcase(call.function, function))
            and arity in (None, call.arity)
        ):
            return call
    wanted = f"{module}.{function}" + ("" if arity is None else f"/{arity}")
    raise _missing(
        f"no call of {wanted} was traced",
        "calls",
        (f"{call.module}.{call.qualname}/{call.arity}" for call in calls),
    )


def assert_state_transition(
    changes: Iterable[StateChange], transition: str, *, process: str | None = None, **fields: Any
) -> StateChange:
    """That a transition took place: "task_assigned", "count_changed". `process`: the class's name; further
    fields of a StateChange must be equal."""
    __tracebackhide__ = True
    found = _having(changes, fields)
    for change in found:
        if change.transition == transition and process in (None, change.process) and _equal(change, fields):
            return change
    raise _missing(
        f"there was no transition {transition}{_with(fields, process=process)}",
        "transitions",
        (
            f"{change.process}.{change.attribute}: {change.transition}{_of(change, fields)}"
            for change in found
        ),
    )


def assert_issue_detected(
    issues: Iterable[PerformanceIssue], kind: str, *, minimum_queries: int = 0, **fields: Any
) -> PerformanceIssue:
    """That an issue of a kind ("n_plus_one_query") was found, with at least so many queries; further fields must be
    equal."""
    __tracebackhide__ = True
    found = _having(issues, fields)
    for issue in found:
        if issue.kind == kind and issue.query_count >= minimum_queries and _equal(issue, fields):
            return issue
    least = minimum_queries or None
    raise _missing(
        f"no {kind} was found{_with(fields, minimum_queries=least)}",
        "issues",
        (
            f"{issue.kind} at {issue.call_site}, {issue.query_count} queries{_of(issue, fields)}"
            for issue in found
        ),
    )


def assert_event_captured(
    events: Iterable[SupervisorEvent], kind: str, *, child: str | None = None, **fields: Any
) -> SupervisorEvent:
    """That something happened to a child: "child_restarted". `child` is a glob; further fields must be equal."""
    __tracebackhide__ = True
    found = _having(events, fields)
    for event in found:
        if (
            event.kind == kind
            and (child is None or fnmatchcase(event.child, child))
            and _equal(event, fields)
        ):
            return event
    raise _missing(
        f"no {kind} was captured{_with(fields, child=child)}",
        "events",
        (
            f"{event.kind} {event.supervisor}/{event.child}: {event.reason}{_of(event, fields)}"
            for event in found
        ),
    )


def assert_timeout_captured(calls: Iterable[ExternalCall], service: str, **fields: Any) -> ExternalCall:
    """That a call to a service ("smtp") ran into a time limit; further fields must be equal."""
    __tracebackhide__ = True
    found = _having(calls, fields)
    for call in found:
        if call.service == service and call.timed_out and _equal(call, fields):
            return call
    raise _missing(f"no call to {service} timed out{_with(fields)}", "calls", _external(found, fields))


def assert_retry_attempts(
    calls: Iterable[ExternalCall], service: str, retries: int, **fields: Any
) -> ExternalCall:
    """That a call to a service was tried again exactly so many times: 3 retries are 4 attempts."""
    __tracebackhide__ = True
    found = _having(calls, fields)
    for call in found:
        if call.service == service and call.retries == retries and _equal(call, fields):
            return call
    raise _missing(
        f"no call to {service} had {retries} retries{_with(fields)}", "calls", _external(found, fields)
    )


def _external(calls: Iterable[ExternalCall], fields: Iterable[str]) -> Iterator[str]:
    for call in calls:
        what = f"{call.service} {call.operation} {call.peer}"
        yield f"{what}: {call.outcome}, {call.retries} retries{_of(call, fields)}"


def _having(found: Iterable[T], fields: Iterable[str]) -> list[T]:
    """What was found, as a list. Raises TypeError where it has no such fields: a slip in the test."""
    __tracebackhide__ = True
    rows = list(found)
    for name in fields:
        if rows and not hasattr(rows[0], name):
            known = ", ".join(field.name for field in dataclasses.fields(rows[0]))
            raise TypeError(f"{type(rows[0]).__name__} has no field {name!r}; it has {known}")
    return rows


def _equal(found: object, fields: dict[str, Any]) -> bool:
    return all(getattr(found, name) == value for name, value in fields.items())


def _of(found: object, fields: Iterable[str]) -> str:
    """What the fields are that were asked for."""
    return "".join(f", {name}={getattr(found, name)!r}" for name in fields)


def _with(fields: dict[str, Any], **others: Any) -> str:
    asked = {name: value for name, value in others.items() if value is not None} | fields
    given = ", ".join(f"{name}={value!r}" for name, value in asked.items())
    return f" with {given}" if given else ""


def _missing(what: str, plural: str, seen: Iterable[str]) -> AssertionError:
    counted = Counter(seen)
    if not counted:
        return AssertionError(f"{what}; no {plural} were captured at all")
    lines = [f"  {count} × {line}" for line, count in counted.most_common(MOST_LISTED)]
    if len(counted) > MOST_LISTED:
        lines.append(f"  … and {len(counted) - MOST_LISTED} others")
    return AssertionError("\n".join([f"{what}; the {plural} were:", *lines]))
