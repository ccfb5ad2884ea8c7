"""Messages as the live server sends them, of a service that never ran: what the page's tests feed it with."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]

ROUTES = [
    ("GET /projects/3/dashboard", "/projects/{project_id}/dashboard"),
    ("GET /tasks", "/tasks"),
    ("POST /tasks", "/tasks"),
    ("POST /tasks/17/assign", "/tasks/{task_id}/assign"),
    ("GET /projects/1/export", "/projects/{project_id}/export"),
    ("GET /tasks/search", "/tasks/search"),
]
HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    '"><svg onload=document.title=`owned`>',
    "</script><script>document.title='owned'</script>",
    "{{ 7 * 7 }} & &lt; \u202e rtl \U0001f600 \x1b[31m",
]
"""Names that a traced program may have, which a page that pasted them into its HTML would run."""


def place(file: str, line: int, function: str) -> Message:
    """A `Location`."""
    return {"file": f"/srv/shop/{file}", "line": line, "function": function}


class Service:
    """Makes the messages of one imagined service; the same seed makes the same ones."""

    def __init__(self, seed: int = 1, name: str = "taskflow", text: str = "") -> None:
        self.random = random.Random(seed)
        self._name = name
        self.text = text  # stands where names of the program stand
        self._numbers = 0

    def called(self, name: str) -> str:
        """A name of the imagined program, or the text that stands for all of them."""
        return self.text or name

    def hello(self, **source: Any) -> Message:
        """The first message of a connection; `source` replaces fields."""
        process = {"pid": 4242, "name": self.called("taskflow"), "state": "recording", "python": "3.11.9"}
        return {
            "type": "hello",
            "version": 1,
            "pyscope": "0.1.0",
            "source": {
                "kind": "process",
                "name": self.called(self._name),
                "path": "/srv/shop/run.pyscope",
                "recording": True,
                "state": "recording",
                "mode": "stream",
                "modules": ["taskflow"],
                "processes": [process],
            }
            | source,
            "controls": {"read_only": False, "start": True, "stop": True, "dump": True, "download": True},
            "csrf": "a-token",
        }

    def request(self, **values: Any) -> Message:
        """One `Request`, newer than all before it."""
        self._numbers += 1
        name, route = self.random.choice(ROUTES)
        duration = self.random.lognormvariate(2.6, 0.9)
        shares = [self.random.random() for _ in range(5)]
        parts = [duration * share / sum(shares) for share in shares]
        failed = self.random.random() < 0.04
        return {
            "id": f"{self._numbers}",
            "kind": "request",
            "name": self.called(name),
            "route": self.called(route),
            "status": 500 if failed else 200,
            "outcome": "raised" if failed else "returned",
            "error": self.called("RuntimeError: the worker is gone") if failed else "",
            "start_ms": time.time() * 1000 - duration,
            "duration_ms": duration,
            "parent": "",
            "pid": 4242,
            "thread": self.called("MainThread"),
            "context": self.called("Task-17"),
            "parts": dict(
                zip(("python_ms", "sql_ms", "external_ms", "lock_ms", "wait_ms"), parts, strict=True),
                cpu_ms=parts[0],
            ),
            "queries": self.random.randrange(12),
            "external": self.random.randrange(2),
            "findings": int(self.random.random() < 0.1),
        } | values

    def traces(self, count: int) -> Message:
        """`count` new requests."""
        return {
            "type": "traces",
            "at_ms": time.time() * 1000,
            "requests": [self.request() for _ in range(count)],
        }

    def metrics(self, count: int = 1, at: float | None = None) -> Message:
        """`count` samples, a second apart, the last at `at` (Unix seconds; now)."""
        end = (time.time() if at is None else at) * 1000
        return {
            "type": "metrics",
            "samples": [self._sample(end - 1000 * back) for back in reversed(range(count))],
        }

    def _sample(self, at_ms: float) -> Message:
        median = self.random.uniform(9, 14)
        memory = int(180e6 + 20e6 * self.random.random())
        return {
            "at_ms": at_ms,
            "throughput": self.random.uniform(80, 110),
            "p50_ms": median,
            "p90_ms": median * 2.4,
            "p99_ms": median * self.random.uniform(4, 7),
            "errors_per_s": self.random.choice([0, 0, 0, 1, 3]),
            "cpu_percent": self.random.uniform(35, 60),
            "memory_bytes": memory,
            "peak_memory_bytes": 214_000_000,
            "events_per_s": self.random.uniform(90_000, 120_000),
            "calls_per_s": self.random.uniform(40_000, 55_000),
            "overhead_percent": self.random.uniform(0.8, 2.1),
            "lost_events": 0,
            "mailboxes": {
                self.called("TaskManager"): self.random.randrange(20),
                "ProjectWorker-3": self.random.randrange(300),
            },
            "processes": [
                {
                    "pid": 4242,
                    "name": self.called("taskflow"),
                    "cpu_percent": 41.0,
                    "memory_bytes": memory,
                },
                {"pid": 4250, "name": "report", "cpu_percent": 3.0, "memory_bytes": 61_000_000},
            ],
            "process_count": 2,
        }

    def losses(self) -> Message:
        """Two losses."""
        now = time.time() * 1000
        row = {"start_ms": now - 9000, "end_ms": now, "pid": 4242}
        return {
            "type": "losses",
            "rows": [
                {
                    "reason": "quieted",
                    "count": 120_345,
                    "detail": self.called("taskflow.web.schemas.dump"),
                    **row,
                },
                {"reason": "dropped", "count": 17, "detail": "the ring of thread MainThread was full", **row},
            ],
        }

    def findings(self) -> Message:
        """One finding of each kind that the page draws in a way of its own."""
        listed = [
            self._n_plus_one(),
            self._race(),
            self._blocking(),
            self._timeout(),
            self._crash(),
        ]
        return {"type": "findings", "at_ms": time.time() * 1000, "total": len(listed), "findings": listed}

    def _finding(self, kind: str, severity: str, title: str, details: Message, **values: Any) -> Message:
        return {
            "id": f"{kind}-1",
            "kind": kind,
            "severity": severity,
            "title": self.called(title),
            "where": place("taskflow/services/dashboard.py", 58, self.called("project_dashboard")),
            "why": self.called("the statement ran once for each of 40 tasks"),
            "cure": self.called("load the relationship with the tasks: options(selectinload(Task.assignee))"),
            "count": 3,
            "time_ms": time.time() * 1000,
            "scope": "1",
            "details": details,
        } | values

    def _stack(self) -> list[Message]:
        return [
            place("taskflow/services/dashboard.py", 58, self.called("project_dashboard")),
            place("taskflow/web/dashboard.py", 21, "dashboard"),
        ]

    def _n_plus_one(self) -> Message:
        return self._finding(
            "n_plus_one_query",
            "warning",
            "40 queries for Task.assignee, one for each task",
            {
                "statement": self.called("SELECT users.id, users.name FROM users WHERE users.id = ?"),
                "parent_statement": self.called(
                    "SELECT tasks.id, tasks.title FROM tasks WHERE tasks.project_id = ?"
                ),
                "relationship": self.called("Task.assignee"),
                "cause": "lazy_load",
                "query_count": 40,
                "parents": 40,
                "total_ms": 23.4,
                "scopes": 3,
                "stack": self._stack(),
            },
        )

    def _race(self) -> Message:
        now = time.time() * 1000
        accesses = [
            {
                "operation": operation,
                "thread": self.called(thread),
                "context": None,
                "time_ms": now + offset,
                "location": place(
                    "taskflow/actors/task_manager.py", line, self.called("assign_next_available_task")
                ),
                "stack": self._stack(),
                "scope": "1",
            }
            for operation, thread, line, offset in [
                ("read", "AnyIO worker thread 1", 88, 0.0),
                ("write", "AnyIO worker thread 2", 93, 0.31),
                ("write", "AnyIO worker thread 1", 93, 0.74),
            ]
        ]
        details = {
            "subject": self.called("TaskManager.available"),
            "grade": "observed",
            "accesses": accesses,
            "accesses_left_out": 4,
        }
        return self._finding("lost_update", "error", "Two threads overwrote TaskManager.available", details)

    def _blocking(self) -> Message:
        parts = {
            "python_ms": 180.0, "sql_ms": 20.0, "external_ms": 0.0, "lock_ms": 0.0, "wait_ms": 250.0, "cpu_ms": 180.0,
        }  # fmt: skip
        details = {
            "duration_ms": 450.0,
            "total_ms": 450.0,
            "parts": parts,
            "thread": "MainThread",
            "stack": self._stack(),
        }
        return self._finding(
            "blocking_call_in_event_loop", "warning", "export held up the event loop for 450 ms", details
        )

    def _timeout(self) -> Message:
        call = self.external(1)["calls"][0]
        return self._finding(
            "timeout", "error", "mail.example did not answer, 4 attempts", call | {"calls": 2}
        )

    def _crash(self) -> Message:
        details = {
            "supervisor": "ProjectSupervisor",
            "children": ["ProjectWorker-3"],
            "reason": self.called("RuntimeError: simulated crash"),
            "restart_count": 2,
            "pid": 4242,
            "stack": self._stack(),
        }
        return self._finding("crash", "error", "ProjectWorker-3 crashed", details, scope="")

    def supervision(self) -> Message:
        """A tree of three levels with a restarted and a failed child."""
        now = time.time() * 1000

        def node(name: str, children: list[Message], **values: Any) -> Message:
            return {
                "name": self.called(name), "state": "running", "restarts": 0, "reason": "",
                "since_ms": now - 60_000, "pid": 4242, "children": children,
            } | values  # fmt: skip

        crash = self.called("RuntimeError: simulated crash")
        workers = [
            node("ProjectWorker-1", []),
            node("ProjectWorker-3", [], restarts=2, reason=crash),
            node("ProjectWorker-7", [], state="failed", restarts=3, reason=crash),
        ]
        tree = node("root", [node("TaskManager", []), node("ProjectSupervisor", workers)])
        happened = [
            ("child_started", "ProjectWorker-3", "", 0, []),
            ("child_terminated", "ProjectWorker-3", crash, 0, self._stack()),
            ("child_restarted", "ProjectWorker-3", crash, 1, []),
            ("max_restarts_exceeded", "ProjectWorker-7", crash, 3, []),
        ]
        events = [
            {
                "kind": kind,
                "supervisor": "ProjectSupervisor",
                "child": self.called(child),
                "reason": reason,
                "restart_count": count,
                "time_ms": now - 5000 + 400 * number,
                "pid": 4242,
                "stack": stack,
            }
            for number, (kind, child, reason, count, stack) in enumerate(happened)
        ]
        return {"type": "supervision", "tree": [tree], "events": events}

    def state(self, count: int) -> Message:
        """`count` changes of the status of tasks."""
        return {"type": "state", "changes": [self._change(count - number) for number in range(count)]}

    def _change(self, back: int) -> Message:
        self._numbers += 1
        steps = ["open", "assigned", "in_progress", "completed"]
        step = self.random.randrange(3)
        return {
            "id": f"s{self._numbers}",
            "process": self.called("Task"),
            "key": str(self.random.randrange(1, 7)),
            "object": "140112",
            "attribute": "status",
            "old": self.called(steps[step]),
            "new": self.called(steps[step + 1]),
            "transition": ["task_assigned", "status_changed", "status_changed"][step],
            "trigger": self.called("POST /tasks/17/assign"),
            "time_ms": time.time() * 1000 - 170 * back,
            "thread": self.called("MainThread"),
            "seen": "write",
            "scope": "1",
            "location": place("taskflow/services/tasks.py", 77, "assign"),
        }

    def external(self, count: int) -> Message:
        """`count` calls: a mail server that hangs, a webhook that is repeated, a file that is stored, in turn."""
        return {"type": "external", "calls": [self._call(number) for number in range(count)]}

    def _call(self, number: int) -> Message:
        self._numbers += 1
        service, operation, peer, outcomes = [
            ("smtp", "send", "mail.example:25", ["timed_out"] * 4),
            ("http", "POST /hook", "hooks.example:443", ["failed", "failed", "succeeded"]),
            ("storage", "write", "taskflow-files", ["succeeded"]),
        ][number % 3]
        start = now = time.time() * 1000 - 9000 + number * 40
        attempts = []
        for index, outcome in enumerate(outcomes):
            backoff = 200.0 * 2 ** (index - 1) if index else 0.0
            took = self.random.uniform(40, 90) if outcome != "timed_out" else 500.0
            now += backoff
            failed = {"failed": "HTTP 503", "timed_out": "TimeoutError: no answer"}.get(outcome, "")
            attempts.append(
                {
                    "start_ms": now,
                    "duration_ms": took,
                    "outcome": outcome,
                    "error": self.called(failed) if failed else "",
                    "backoff_ms": backoff,
                    "status": 503 if outcome == "failed" else 0,
                    "timeout_ms": 500.0,
                }
            )
            now += took
        return {
            "id": f"e{self._numbers}",
            "service": service,
            "operation": self.called(operation),
            "peer": self.called(peer),
            "outcome": outcomes[-1],
            "timed_out": outcomes[-1] == "timed_out",
            "retries": len(outcomes) - 1,
            "start_ms": start,
            "duration_ms": now - start,
            "client": "aiosmtplib",
            "repeated_by": "stamina",
            "location": place("taskflow/integrations/email.py", 41, self.called("send")),
            "scope": "1",
            "attempts": attempts,
        }

    def all(self) -> Iterator[Message]:
        """What a server says to a new viewer."""
        yield self.hello()
        yield self.traces(120)
        yield self.metrics(180)
        yield self.losses()
        yield self.findings()
        yield self.supervision()
        yield self.state(60)
        yield self.external(12)
