"""A pair of programs, what is to be found in the faulty one, and how to run and record either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyscope
from pyscope.trace import Trace
from tests.twins.database.bank import Bank

Program = Callable[[Bank], bool]
"""Runs its transactions, which meet on purpose, and says whether the database is right afterwards."""


@dataclass(frozen=True)
class Expected:
    """The finding of the faulty twin."""

    kind: str
    subject: str
    grade: str = "observed"


@dataclass(frozen=True)
class DatabaseCase:
    """Two programs that want the same. `database`: "postgresql" or "sqlite"."""

    name: str
    faulty: Program
    fixed: Program
    expected: Expected
    database: str = "postgresql"


def recorded(program: Program, bank: Bank, path: Path) -> tuple[bool, Trace]:
    """Whether the database was right afterwards, and the trace of the run."""
    with pyscope.record(path, modules=["tests.twins.database.*"], probes=["sqlalchemy"], ring_mb=8):
        right = program(bank)
    return right, pyscope.load(path)
