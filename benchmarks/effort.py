"""How much is measured: the share of time that a group may take, and the processes that it is spread over."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import worker
from benchmarks.estimator import Samples
from benchmarks.interpreters import Interpreter


@dataclass(frozen=True, slots=True)
class Effort:
    """`seconds` is the time that a group may take; `factor` scales what has a size instead of a time."""

    seconds: float
    factor: float = 1.0
    processes: int = 4

    def part(self, share: float) -> Effort:
        """The same with a share of the time."""
        return Effort(self.seconds * share, self.factor, self.processes)

    def sized(self, full: int, least: int = 1) -> int:
        """`full`, or less of it where less is measured."""
        return max(least, round(full * min(1.0, self.factor)))


QUICK_FACTOR: Final = 0.04
QUICK_PROCESSES: Final = 2


def samples(interpreter: Interpreter, function: str, effort: Effort, **arguments: Any) -> Samples:
    """The rounds of `function` ("module:name" in benchmarks), in processes that share the time evenly."""
    chance = random.Random(str(arguments))
    ends = time.monotonic() + effort.seconds
    found = []
    for left in range(effort.processes, 0, -1):
        now = time.monotonic()
        found.append(
            worker.run(
                interpreter.path,
                f"benchmarks.{function}",
                seed=chance.randrange(1 << 30),
                until=now + max(0.0, ends - now) / left,
                **arguments,
            )
        )
    return Samples.of(found)
