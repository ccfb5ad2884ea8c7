"""Pairs of programs whose transactions meet in a database: one lets them overlap wrongly, its twin does not."""

from tests.twins.database.cases import DatabaseCase
from tests.twins.database.decisions import CASES as DECISIONS
from tests.twins.database.updates import CASES as UPDATES

__all__ = ["CASES", "DatabaseCase"]

CASES: list[DatabaseCase] = [*UPDATES, *DECISIONS]
