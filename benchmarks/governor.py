"""Whether a budget holds on a program that is nothing but tiny calls.

`python -m benchmarks.governor [CALLS]` runs it untraced (twice), recorded, and recorded under a budget of 3 %, each in
a process of its own, in random order, and prints the CPU time that each adds, with what the governor estimated and the
truth.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import estimator, worker
from benchmarks.estimator import BASELINE, CONTROL, Samples

BUDGET: Final = 0.03
ROUNDS: Final = 5
CALLS: Final = 60_000_000
VARIANTS: Final[dict[str, dict[str, Any] | None]] = {
    BASELINE: None,
    CONTROL: None,
    "untamed": {"mode": "flight"},
    "budget 3%": {"mode": "flight", "budget": BUDGET},
}


def tiny(number: int) -> int:
    """As little as a function can do."""
    return number


def also_tiny(number: int) -> int:
    """As little as another can."""
    return number


def adversary(calls: int) -> None:
    """Calls two functions alternately, and does nothing else."""
    for number in range(calls // 2):
        tiny(number)
        also_tiny(number)


def one(*, variant: str, calls: int) -> dict[str, Any]:
    """CPU seconds of the program, and what the recording says of `tiny`."""
    import pyscope

    settings = VARIANTS[variant]
    adversary(100_000)
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder:
        path = Path(folder) / "run.pyscope"
        if settings is not None:
            pyscope.start(path, modules=[__name__], children=False, ring_mb=16, **settings)
        began = time.process_time()
        adversary(calls)
        seconds = time.process_time() - began
        if settings is None:
            return {"seconds": seconds}
        pyscope.stop()
        trace = pyscope.load(path)
        rows = [loss for loss in trace.losses if loss.reason == "quieted" and "also" not in loss.detail]
        recorded = sum(function.calls for function in trace.functions if function.name == "tiny")
        return {
            "seconds": seconds,
            "recorded": recorded,
            "estimated": sum(row.count for row in rows),
            "low": sum(row.low for row in rows),
            "high": sum(row.high for row in rows),
            "quietings": len(rows),
        }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.governor", description=main.__doc__)
    parser.add_argument("calls", type=int, nargs="?", default=CALLS, help="of the program (%(default)s)")
    calls = parser.parse_args().calls
    rows: list[dict[str, float]] = []
    found: dict[str, dict[str, Any]] = {}
    for _ in range(ROUNDS):
        row = {}
        for variant in random.sample(list(VARIANTS), len(VARIANTS)):
            found[variant] = worker.run(
                sys.executable, "benchmarks.governor:one", variant=variant, calls=calls
            )
            row[variant] = found[variant]["seconds"]
        rows.append(row)
    samples = Samples.of([rows])
    print(f"{calls:,} calls of two tiny functions, CPU time against the untraced program ({ROUNDS} rounds)")
    for variant in VARIANTS:
        if variant != BASELINE:
            ratio = estimator.ratio(samples, variant)
            print(f"  {variant:10}  {ratio.median - 1:+7.1%}  [{ratio.low - 1:+.1%}, {ratio.high - 1:+.1%}]")
    last = found["budget 3%"]
    print(
        f"  tiny was called {calls // 2:,} times: {last['recorded']:,} recorded, {last['estimated']:,} estimated "
        f"[{last['low']:,}, {last['high']:,}] in {last['quietings']} quietings"
    )


if __name__ == "__main__":
    main()
