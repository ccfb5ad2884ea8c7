"""Pairs of programs with threads: one has a race, its twin does the same work without."""

from tests.twins.races import RaceCase
from tests.twins.threads.containers import CASES as CONTAINERS
from tests.twins.threads.counters import CASES as COUNTERS
from tests.twins.threads.handovers import CASES as HANDOVERS
from tests.twins.threads.locks import CASES as LOCKS
from tests.twins.threads.publication import CASES as PUBLICATION
from tests.twins.threads.searches import CASES as SEARCHES

__all__ = ["CASES"]

CASES: list[RaceCase] = [*COUNTERS, *LOCKS, *CONTAINERS, *HANDOVERS, *PUBLICATION, *SEARCHES]
