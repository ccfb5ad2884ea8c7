"""Throughput of TaskFlow traced and untraced, by pytest-benchmark: `pytest benchmarks`.

For a person who looks at one level by itself; the comparison with intervals is `python -m benchmarks`,
because the levels run here one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import variants
from benchmarks.estimator import BASELINE
from benchmarks.workload import REQUESTS_A_PAIR, InProcessWorkload, ServedWorkload

# pytest-benchmark takes profile functions out while it measures: no level here needs one.
LEVELS = [BASELINE, "own modules", "everything", "everything, flight"]
ROUNDS = 30


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessWorkload]:
    """TaskFlow in this process, warm."""
    with InProcessWorkload(tmp_path_factory.mktemp("taskflow")) as workload:
        workload.request_pairs(5)
        yield workload


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
    benchmark.extra_info["requests_a_second"] = REQUESTS_A_PAIR / benchmark.stats.stats.median


@pytest.mark.parametrize("recorded", [False, True], ids=["untraced", "own modules"])
@pytest.mark.benchmark(group="TaskFlow over HTTP")
def test_request_pairs_over_http(benchmark: BenchmarkFixture, tmp_path: Path, recorded: bool) -> None:
    """The service records itself, by its own setting."""
    environment = {"TASKFLOW_PYSCOPE": str(tmp_path / "run.pyscope")} if recorded else {}
    with ServedWorkload(tmp_path, environment=environment) as workload:
        workload.run_slice(5)
        benchmark.pedantic(workload.run_slice, args=(1,), rounds=ROUNDS, iterations=1)
    benchmark.extra_info["requests_a_second"] = REQUESTS_A_PAIR / benchmark.stats.stats.median
