"""Pairs of programs with asyncio tasks: one has a race across an await, its twin does the same work without."""

from tests.twins.races import RaceCase
from tests.twins.tasks.orders import CASES as ORDERS
from tests.twins.tasks.stretches import CASES as STRETCHES

__all__ = ["CASES"]

CASES: list[RaceCase] = [*STRETCHES, *ORDERS]
