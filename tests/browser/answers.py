"""What the live server answers when the page asks for more: a waterfall, the flame graph, functions, queries."""

from __future__ import annotations

import time
from typing import Any

from tests.browser.messages import Message, Service, place


class Answers:
    """The answers of one imagined service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def waterfall(self, number: str) -> Message:
        """A request with a few hundred spans."""
        spans: list[Message] = []

        def add(parent: int, kind: str, name: str, start: float, duration: float, **values: Any) -> int:
            spans.append(
                {
                    "id": len(spans) + 1,
                    "parent": parent,
                    "kind": kind,
                    "name": self._service.called(name),
                    "detail": "",
                    "start_ms": start,
                    "duration_ms": duration,
                    "self_ms": duration / 3,
                    "depth": 0,
                    "outcome": "returned",
                    "error": "",
                    "location": place("taskflow/web/dashboard.py", 21, "dashboard"),
                }
                | values
            )
            return len(spans)

        root = add(0, "scope", "GET /projects/3/dashboard", 0.0, 48.0)
        view = add(root, "call", "taskflow.web.dashboard.dashboard", 1.0, 45.0)
        add(view, "lock", "waited for the session's lock", 1.5, 1.2)
        rows = add(view, "call", "taskflow.services.dashboard.project_dashboard", 3.0, 36.0)
        for index in range(120):
            loop = add(rows, "call", "taskflow.services.dashboard.card", 3.5 + index * 0.29, 0.27)
            add(
                loop,
                "query",
                "SELECT",
                3.55 + index * 0.29,
                0.2,
                detail="SELECT users.id, users.name FROM users WHERE users.id = ?",
            )
        call = add(view, "external", "http POST hooks.example:443", 39.5, 6.0)
        for index, outcome in enumerate(["raised", "raised", "returned"]):
            add(
                call,
                "attempt",
                f"attempt {index + 1}",
                39.6 + 2 * index,
                1.2,
                outcome=outcome,
                error=self._service.called("HTTP 503") if outcome == "raised" else "",
            )
        request = self._service.request(
            id=number,
            name=self._service.called("GET /projects/3/dashboard"),
            route=self._service.called("/projects/{project_id}/dashboard"),
            duration_ms=48.0,
            status=200,
            outcome="returned",
            error="",
            parts={
                "python_ms": 11.0,
                "sql_ms": 24.0,
                "external_ms": 6.0,
                "lock_ms": 1.2,
                "wait_ms": 5.8,
                "cpu_ms": 11.4,
            },
        )
        return {"request": request, "spans": spans, "cut": 14}

    def flame(self) -> Message:
        """A tree of calls, wide and deep enough to zoom."""
        now = time.time() * 1000

        def node(name: str, value: float, depth: int) -> Message:
            children = []
            rest = value * 0.85
            while depth < 6 and rest > value * 0.12:
                share = rest * self._service.random.uniform(0.3, 0.7)
                module = self._service.random.choice(
                    ["web.tasks", "services.tasks", "data.repo", "data.models", "web.schemas"]
                )
                child = self._service.random.choice(["create", "load", "dump", "find", "validate", "commit"])
                children.append(node(f"taskflow.{module}.{child}", share, depth + 1))
                rest -= share
            used = sum(child["value"] for child in children)
            return {
                "name": self._service.called(name),
                "value": value,
                "self_ms": value - used,
                "children": children,
                "calls": self._service.random.randrange(1, 4000),
                "location": place(f"{name.replace('.', '/')}.py", 12, name),
            }

        return node("all", 12_000.0, 0) | {
            "name": "all",
            "location": None,
            "window": {"from_ms": now - 60_000, "to_ms": now},
        }

    def functions(self) -> Message:
        """Two hundred functions by self time."""
        rows = [
            {
                "module": "taskflow.services.tasks",
                "qualname": self._service.called(f"TaskService.step_{number}"),
                "file": "/srv/shop/taskflow/services/tasks.py",
                "line": 10 + number,
                "calls": 40_000 // (number + 1),
                "total_ms": 9000 / (number + 1),
                "self_ms": 4000 / (number + 1),
                "share": 0.3 / (number + 1),
            }
            for number in range(200)
        ]
        return {"total": len(rows), "functions": rows}

    def queries(self) -> Message:
        """Statements with their call sites."""
        tables = ["users", "tasks", "projects", "watchers", "notifications"]
        return {
            "queries": [
                {
                    "statement": self._service.text
                    or f"SELECT {table}.id, {table}.name FROM {table} WHERE {table}.id = ? ORDER BY {table}.id LIMIT ?",
                    "count": 400 // (number + 1),
                    "total_ms": 900 / (number + 1),
                    "mean_ms": 0.6 + number,
                    "max_ms": 9.0 + number,
                    "call_site": place("taskflow/data/repo.py", 30 + number, "find"),
                    "requests": 40,
                }
                for number, table in enumerate(tables)
            ]
        }
