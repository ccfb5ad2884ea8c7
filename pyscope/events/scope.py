"""Events of scopes: the requests, messages, reports and tasks that work belongs to."""

from __future__ import annotations

from pyscope.events import EventType

__all__ = ["SCOPE_BEGIN", "SCOPE_END", "VALUE"]

# id: what `emitter.scope` holds meanwhile. parent: the scope that it began in, 0 for none. label: of `kind`, such as
# "request"; name: "GET", a message's or a report's type.
SCOPE_BEGIN = EventType(1, "scope_begin", "id parent label:string name:string")
# duration_ns: since its begin. cpu_ns: of the thread while it ran the scope, -1 unknown. status: of an HTTP
# answer, 0 none. outcome: "returned", "raised" or "cancelled". error: the exception's type.
SCOPE_END = EventType(2, "scope_end", "id duration_ns cpu_ns status route:string outcome:string error:string")
# A value that the setting `values` allows. what: "sql_parameters", of the statement that the same thread and context
# tells next, or "request_body" or "request_header:NAME" of the scope `id`.
VALUE = EventType(3, "value", "id what:string value:text")
