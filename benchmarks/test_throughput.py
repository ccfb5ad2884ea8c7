"""Throughput of TaskFlow traced and untraced, by pytest-benchmark: `make bench-throughput`, which keeps its JSON.

For a person who looks at one level by itself; the comparison with intervals is `python -m benchmarks`,
because the levels run here one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import variants
from benchmarks.controlled import ControlledServer
from benchmarks.estimator import BASELINE
from benchmarks.workload import REQUESTS_A_PAIR, InProcessWorkload

# pytest-benchmark takes profile functions out while it measures: no level here needs one.
LEVELS = [
    BASELINE,
    variants.OWN,
    variants.ALL_PROBES,
    variants.PROBES_IN_FLIGHT,
    variants.EVERYTHING,
    variants.IN_FLIGHT,
]
OVER_HTTP = [BASELINE, variants.OWN, variants.ALL_PROBES, variants.EVERYTHING]
ROUNDS = 30

_untraced: dict[str | None, float] = {}


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessWorkload]:
    """TaskFlow in this process, warm."""
    with InProcessWorkload(tmp_path_factory.mktemp("taskflow")) as workload:
        workload.request_pairs(5)
        yield workload


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlledServer]:
    """TaskFlow in a server process, warm."""
    with ControlledServer(tmp_path_factory.mktemp("taskflow")) as server:
        server.workload.run_slice(5)
        yield server


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.benchmark(group="TaskFlow in process")
def test_request_pairs_in_process(
    benchmark: BenchmarkFixture, in_process: InProcessWorkload, level: str
) -> None:
    off = variants.switch(level)()
    try:
        in_process.request_pair()
        benchmark.pedantic(in_process.request_pair, rounds=ROUNDS, iterations=1)
    finally:
        off()
    _compare(benchmark, level)


@pytest.mark.parametrize("level", OVER_HTTP)
@pytest.mark.benchmark(group="TaskFlow over HTTP")
def test_request_pairs_over_http(benchmark: BenchmarkFixture, served: ControlledServer, level: str) -> None:
    served.on(level)
    try:
        served.workload.run_slice(1)
        served.mark()
        benchmark.pedantic(served.workload.run_slice, args=(1,), rounds=ROUNDS, iterations=1)
    finally:
        figures = served.off()
    _compare(benchmark, level)
    benchmark.extra_info["server_cpu_seconds_a_request"] = figures["cpu_seconds"] / ROUNDS / REQUESTS_A_PAIR


def _compare(benchmark: BenchmarkFixture, level: str) -> None:
    """Keep the throughput in the JSON, and what it is of the untraced one, which comes first."""
    rate = REQUESTS_A_PAIR / benchmark.stats.stats.median
    if level == BASELINE:
        _untraced[benchmark.group] = rate
    benchmark.extra_info["requests_a_second"] = rate
    if benchmark.group in _untraced:
        benchmark.extra_info["of_untraced"] = rate / _untraced[benchmark.group]
