"""How a load went: throughput, latencies and errors, counted while it runs and printed after it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final

OVERALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Timing:
    """What one operation (or `all` of them) took; times in milliseconds."""

    operation: str
    requests: int
    errors: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The outcome of a load: overall throughput, one row an operation, and each error's count.

    `refusals` are answers that a good client expects (nothing left to assign, come back later): they
    are no errors. `driver_saturated` says that the driver itself was short of CPU.
    """

    scenario: str
    concurrency: int
    seconds: float
    requests: int
    errors: int
    requests_per_second: float
    operations: list[Timing]
    error_counts: dict[str, int]
    refusals: dict[str, int]
    driver_saturated: bool

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LoadReport":
        """The report that `as_dict` gave away."""
        return cls(**{**values, "operations": [Timing(**row) for row in values["operations"]]})

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)

    def as_table(self) -> str:
        """The same for people, one line an operation."""
        width = max(12, *(len(row.operation) + 2 for row in self.operations))
        lines = [
            f"{self.requests} requests in {self.seconds:.1f} s = {self.requests_per_second:.0f} a second, "
            f"{self.errors} errors (scenario {self.scenario}, {self.concurrency} at a time)",
            "",
            f"{'operation':<{width}}{'requests':>10}{'errors':>8}"
            + "".join(f"{name:>10}" for name in ("p50 ms", "p95 ms", "p99 ms", "max ms")),
        ]
        lines += [
            f"{row.operation:<{width}}{row.requests:>10}{row.errors:>8}"
            f"{row.p50_ms:>10.1f}{row.p95_ms:>10.1f}{row.p99_ms:>10.1f}{row.max_ms:>10.1f}"
            for row in self.operations
        ]
        lines += [f"{count:>6} × {error}" for error, count in sorted(self.error_counts.items())]
        lines += [f"{count:>6} × {refusal} (expected)" for refusal, count in sorted(self.refusals.items())]
        if self.driver_saturated:
            lines.append("The driver was short of CPU: these latencies include its own waiting.")
        return "\n".join(lines)


class Tally:
    """Latencies, errors and refusals while the load runs."""

    def __init__(self) -> None:
        self.refusals: Counter[str] = Counter()
        self.driver_saturated = False
        self._latencies_ms: defaultdict[str, list[float]] = defaultdict(list)
        self._failed: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def add(self, operation: str, latency_ms: float, error: str | None) -> None:
        """Count one request that was answered or failed."""
        self._latencies_ms[operation].append(latency_ms)
        if error is not None:
            self.add_error(operation, error)

    def add_error(self, operation: str, error: str) -> None:
        """Count an error."""
        self._failed[operation] += 1
        self._errors[f"{operation}: {error}"] += 1

    def report(self, scenario: str, concurrency: int, seconds: float) -> LoadReport:
        """What was counted, as the outcome of a load of `seconds`."""
        everything = [latency for latencies in self._latencies_ms.values() for latency in latencies]
        rows = [
            timing(operation, latencies, self._failed[operation])
            for operation, latencies in sorted(self._latencies_ms.items())
        ]
        failures = self._failed.total()
        return LoadReport(
            scenario=scenario,
            concurrency=concurrency,
            seconds=round(seconds, 3),
            requests=len(everything),
            errors=failures,
            requests_per_second=round(len(everything) / seconds, 1) if seconds else 0.0,
            operations=[*rows, timing(OVERALL, everything, failures)],
            error_counts=dict(self._errors),
            refusals=dict(self.refusals),
            driver_saturated=self.driver_saturated,
        )


def timing(operation: str, latencies_ms: Sequence[float], errors: int) -> Timing:
    """The row of one operation."""
    ordered = sorted(latencies_ms)

    def percentile(percent: float) -> float:
        """The nearest-rank percentile: a latency that really occurred."""
        return round(ordered[max(0, ceil(len(ordered) * percent / 100) - 1)], 3) if ordered else 0.0

    return Timing(
        operation, len(ordered), errors, percentile(50), percentile(95), percentile(99), percentile(100)
    )
