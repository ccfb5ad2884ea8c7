"""Pairs of programs that read a database: one sends queries one by one, its twin does the same work in a few."""

from tests.twins.queries.asynchronous import CASES as ASYNCHRONOUS
from tests.twins.queries.cases import QueryCase
from tests.twins.queries.columns import CASES as COLUMNS
from tests.twins.queries.lazy import CASES as LAZY
from tests.twins.queries.nested import CASES as NESTED
from tests.twins.queries.repeated import CASES as REPEATED
from tests.twins.queries.statements import CASES as STATEMENTS

__all__ = ["CASES", "QueryCase"]

CASES: list[QueryCase] = [*LAZY, *NESTED, *COLUMNS, *STATEMENTS, *REPEATED, *ASYNCHRONOUS]
