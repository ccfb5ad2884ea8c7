"""The one estimator of costs: interleaved blocks, paired by round, medians with a bootstrap interval.

A block of work on a busy machine varies by 10–15 % from second to second, so variants are never measured
one after the other. In every round each variant runs one block, in random order, inside one process;
blocks of one round are compared with each other only. Several processes are run, because each has a memory
layout of its own. The baseline runs twice a round: baseline over baseline is the control, and where its
interval is as wide as what is to be shown there is no verdict.
"""

from __future__ import annotations

import enum
import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BASELINE: Final = "untraced"
CONTROL: Final = "control"
RESAMPLES: Final = 2000
LEAST_ROUNDS: Final = 2  # of a process, however little time it has
CONFIDENCE: Final = 0.95

Block = Callable[[], "float | Mapping[str, float]"]
Row = Mapping[str, float]  # one round: a value for each variant


@dataclass(frozen=True, slots=True)
class Interval:
    """A median with the bounds of its 95 % bootstrap interval, in the unit of the values."""

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the distance between the bounds."""
        return (self.high - self.low) / 2

    def farthest_from(self, value: float) -> float:
        """The greatest distance of a bound from `value`."""
        return max(abs(self.low - value), abs(self.high - value))

    def contains(self, value: float) -> bool:
        """Whether `value` lies between the bounds."""
        return self.low <= value <= self.high

    def scaled(self, factor: float, offset: float = 0.0) -> Interval:
        """The interval of `offset + factor × value`; factor > 0."""
        return Interval(*(offset + factor * value for value in (self.median, self.low, self.high)))


@dataclass(frozen=True, slots=True)
class Samples:
    """What was measured: for each process its rounds, for each round a value a variant."""

    processes: tuple[tuple[Row, ...], ...]

    @property
    def rounds(self) -> int:
        """The rounds of all processes together."""
        return sum(len(rows) for rows in self.processes)

    @classmethod
    def of(cls, processes: Sequence[Sequence[Row]]) -> Samples:
        """From lists, as they come out of JSON."""
        return cls(tuple(tuple(rows) for rows in processes))

    def paired(self, of_round: Callable[[Row], float]) -> list[NDArray[np.float64]]:
        """`of_round` of every round, one array a process."""
        return [
            np.array([of_round(row) for row in rows], dtype=np.float64) for rows in self.processes if rows
        ]


def run_rounds(
    blocks: Mapping[str, Block],
    rounds: int = sys.maxsize,
    *,
    seed: int,
    baseline: str | None = BASELINE,
    until: float = math.inf,
) -> list[dict[str, float]]:
    """`rounds` rounds in this process, or as many as end by `until`, a reading of time.monotonic.

    In each every block runs once, in random order. Two rounds are made however late it is. A block returns
    its cost, or several named ones. The block `baseline` runs a second time in each round, as the control;
    None when the caller has a control of its own.
    """
    chance = random.Random(seed)
    plan = dict(blocks)
    if baseline is not None:
        plan[CONTROL] = blocks[baseline]
    result: list[dict[str, float]] = []
    latest = 0.0
    while len(result) < rounds:
        began = time.monotonic()
        if len(result) >= LEAST_ROUNDS and began + latest / 2 > until:
            break
        order = list(plan)
        chance.shuffle(order)
        row: dict[str, float] = {}
        for name in order:
            measured = plan[name]()
            if isinstance(measured, Mapping):
                row.update(
                    {part if name != CONTROL else f"{CONTROL} {part}": v for part, v in measured.items()}
                )
            else:
                row[name] = measured
        result.append(row)
        latest = time.monotonic() - began
    return result


def interval(processes: Sequence[NDArray[np.float64]], *, seed: int = 0) -> Interval:
    """The median of all values with its interval.

    Parameters: `processes`, one array of values a process. The bootstrap has two levels (Davison and
    Hinkley, "Bootstrap Methods and their Application", 3.8): processes are drawn with replacement, then
    rounds within each.
    """
    if not processes:
        raise ValueError("there is nothing to estimate from")
    generator = np.random.default_rng(seed)
    lengths = np.array([len(values) for values in processes])
    longest = int(lengths.max())
    table = np.array([np.resize(values, longest) for values in processes])
    drawn = generator.integers(0, len(processes), (RESAMPLES, len(processes), 1))
    uniform = generator.random((RESAMPLES, len(processes), longest))
    rounds = (uniform * lengths[drawn]).astype(np.int64)
    medians = np.median(table[drawn, rounds].reshape(RESAMPLES, -1), axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    middle = float(np.median(np.concatenate(processes)))
    return Interval(middle, min(float(low), middle), max(float(high), middle))


def ratio(samples: Samples, variant: str, over: str = BASELINE) -> Interval:
    """`variant` over `over`, paired by round: 1.03 is 3 % more."""
    return interval(samples.paired(lambda row: row[variant] / row[over]))


def difference(samples: Samples, variant: str, less: str, minus: str | None = None) -> Interval:
    """`variant` less `less` (and less `minus`), paired by round, in the unit of the values."""
    return interval(samples.paired(lambda row: row[variant] - row[less] - (row[minus] if minus else 0.0)))


def ratio_difference(samples: Samples, variant: str, less: str, over: str = BASELINE) -> Interval:
    """(`variant` less `less`) over `over`, paired by round: 0.02 is two points more."""
    return interval(samples.paired(lambda row: (row[variant] - row[less]) / row[over]))


def loss(samples: Samples, variant: str, over: str = BASELINE) -> Interval:
    """What `variant` loses of a rate whose reciprocals are the values: 0.03 is 3 % fewer a second."""
    return interval(samples.paired(lambda row: 1 - row[over] / row[variant]))


def rate(samples: Samples, variant: str) -> Interval:
    """The reciprocals of the values of `variant`: seconds become a second's number."""
    return interval(samples.paired(lambda row: 1 / row[variant]))


def excess_share(samples: Samples, variant: str, peer: str, share: float, over: str = BASELINE) -> Interval:
    """What `variant` adds to `over` less `share` of what `peer` adds, over `over`; ≤ 0 is within it."""
    return interval(
        samples.paired(lambda row: ((row[variant] - row[over]) - share * (row[peer] - row[over])) / row[over])
    )


def level(samples: Samples, variant: str) -> Interval:
    """The values of `variant` themselves."""
    return interval(samples.paired(lambda row: row[variant]))


# --- verdicts ------------------------------------------------------------------------------------


class Verdict(enum.StrEnum):
    """Whether a figure was reached."""

    REACHED = "reached"
    MISSED = "missed"
    NOISY = "no verdict: the control's interval is too wide"
    SPANS = "no verdict: the interval spans the bound"
    INFORMATION = ""  # nothing was asked


def at_most(measured: Interval, bound: float, *, noise: float, room: float) -> Verdict:
    """Whether `measured` keeps below `bound`.

    Parameters: `noise`, how far the control's interval reaches from where it ought to be; `room`, the
    greatest noise with which such a bound can be judged (for "at most 1 %": one point). A miss by more
    than the noise is a miss all the same.
    """
    if noise > room:
        return Verdict.MISSED if measured.low - noise > bound else Verdict.NOISY
    if measured.high <= bound:
        return Verdict.REACHED
    return Verdict.MISSED if measured.low > bound else Verdict.SPANS


def at_least(measured: Interval, bound: float, *, noise: float = 0.0, room: float = 0.0) -> Verdict:
    """Whether `measured` keeps above `bound`; parameters as `at_most`."""
    mirrored = Interval(-measured.median, -measured.high, -measured.low)
    return at_most(mirrored, -bound, noise=noise, room=room)


def indistinguishable(measured: Interval, *, noise: float, room: float) -> Verdict:
    """Whether a ratio cannot be told from 1, with an interval and a control both narrower than `room`."""
    if not measured.contains(1.0):
        return Verdict.MISSED if noise <= room or measured.farthest_from(1.0) > 2 * noise else Verdict.NOISY
    return Verdict.REACHED if noise <= room and measured.half_width <= room else Verdict.NOISY
