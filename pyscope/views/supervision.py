"""The supervision tree as it stands at the trace's end, and what happened to the children."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pyscope.analysis.ranking import ON_PURPOSE
from pyscope.events.supervision import CHILD
from pyscope.views.values import NAME, ms, places, text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["message"]

_MOST_NODES = 1000
_DEEPEST = 20
_OF_PROCESSES = ("subprocess", "multiprocessing")  # children of one name are often several at a time
_STATES = {"child_started": "running", "child_restarted": "running", "child_shutdown": "shutdown"}


@dataclass(slots=True)
class _Node:
    name: str
    state: str = "running"
    restarts: int = 0
    reason: str = ""
    since_ns: int = 0
    pid: int = 0
    children: dict[str, _Node] = field(default_factory=dict)
    ended: dict[str, str] = field(
        default_factory=dict
    )  # by name: the key of the child that last ended in order
    is_child: bool = False


def message(trace: Trace, limit: int = 1000) -> dict[str, Any]:
    """The tree, and the last `limit` of `total` events in order of time.

    A supervisor that is another's child stands below it. "threading", "asyncio", "subprocess", "multiprocessing" and
    "interpreter" stand for the supervisor of children that have none. Of processes of one name each stands for itself
    that runs or has failed; of those that ended in order the last. Of very many children those that failed and the
    latest are kept; `left_out` says how many of a supervisor's are not.
    """
    events = trace.probe_events(CHILD)
    last = np.arange(len(events))[-limit:] if limit > 0 else np.zeros(0, np.intp)
    return {
        "type": "supervision",
        "total": len(events),
        "tree": _tree(trace, events),
        "events": [
            {
                "kind": row.kind,
                "supervisor": text(row.supervisor, NAME),
                "child": text(row.child, NAME),
                "reason": text(row.reason),
                "restart_count": row.restart_count,
                "time_ms": ms(row.time_ns),
                "pid": row.pid,
                "stack": places(row.stack),
            }
            for row in events.records(last)
        ],
    }


def _tree(trace: Trace, events: Any) -> list[dict[str, Any]]:
    strings = trace.strings
    supervisors: dict[str, _Node] = {}
    columns = (
        events[name].tolist() for name in ("kind", "supervisor", "child", "restart_count", "pid", "time_ns")
    )
    for kind, supervisor, child, restarts, pid, time, reason in zip(*columns, events["reason"], strict=True):
        above = supervisors.setdefault(strings[supervisor], _Node(strings[supervisor], since_ns=time))
        name = strings[child]
        key = f"{name} {pid}" if above.name in _OF_PROCESSES else name
        node = above.children.get(key)
        if node is None:
            node = above.children[key] = _Node(name, since_ns=time, is_child=True)
        _happened(above, node, strings[kind], restarts, reason, time, pid)
        if key != name:
            _make_room(above, node, key)
    for above in list(supervisors.values()):
        for name, node in above.children.items():
            below = supervisors.get(name)
            if below is not None and below is not above and not _has(below, above.name, supervisors):
                node.children = below.children
                below.is_child = True
    roots = [node for node in supervisors.values() if not node.is_child]
    room = [_MOST_NODES]
    return [_plain(node, room, 0) for node in roots[:_MOST_NODES]]


def _happened(above: _Node, node: _Node, kind: str, restarts: int, reason: str, time: int, pid: int) -> None:
    if kind == "max_restarts_exceeded":
        above.state, above.reason, above.since_ns = "failed", reason, time
        return
    if kind == "child_terminated":
        node.state = "terminated" if reason in ON_PURPOSE else "failed"
    else:
        node.state = _STATES.get(kind, node.state)
    if kind == "child_restarted":
        node.restarts = max(node.restarts + 1, restarts)
    if node.state == "running" and above.state == "failed":
        above.state, above.reason, above.since_ns = "running", "", time
    node.reason = reason or (node.reason if kind == "child_restarted" else "")
    node.since_ns = time
    node.pid = pid or node.pid


def _make_room(above: _Node, node: _Node, key: str) -> None:
    """A child that has ended in order takes the place of its namesake that did before."""
    before = above.ended.get(node.name)
    if node.state in ("running", "failed"):
        if before == key:
            del above.ended[node.name]
    else:
        if before is not None and before != key:
            del above.children[before]
        above.ended[node.name] = key


def _has(node: _Node, name: str, supervisors: dict[str, _Node]) -> bool:
    """Whether a supervisor stands somewhere below another: names that go round in a circle are no tree."""
    seen: set[str] = set()
    waiting = [node.name]
    while waiting:
        at = waiting.pop()
        if at == name:
            return True
        if at not in seen:
            seen.add(at)
            waiting += supervisors[at].children.keys() & supervisors.keys()
    return False


def _plain(node: _Node, room: list[int], depth: int) -> dict[str, Any]:
    room[0] -= 1
    children = list(node.children.values()) if depth < _DEEPEST else []
    if len(children) > room[0]:
        kept = sorted(
            children, key=lambda child: (child.state == "failed", child.restarts > 0, child.since_ns)
        )
        children = sorted(kept[-room[0] :] if room[0] > 0 else [], key=lambda child: child.since_ns)
    shown = [_plain(child, room, depth + 1) for child in children if room[0] > 0]
    return {
        "name": text(node.name, NAME),
        "state": node.state,
        "restarts": node.restarts,
        "reason": text(node.reason),
        "since_ms": ms(node.since_ns),
        "pid": node.pid,
        "children": shown,
        "left_out": len(node.children) - len(shown),
    }
