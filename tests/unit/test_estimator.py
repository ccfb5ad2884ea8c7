"""The estimator finds a known ratio through noise, and says so when it cannot."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.estimator import (
    BASELINE,
    CONTROL,
    Interval,
    Samples,
    Verdict,
    at_least,
    at_most,
    difference,
    indistinguishable,
    interval,
    level,
    ratio,
    ratio_difference,
    run_rounds,
)


def noisy_samples(
    cost: float, *, noise: float, processes: int = 4, rounds: int = 60, seed: int = 1
) -> Samples:
    """Blocks on a machine whose speed drifts by far more than the cost, with `noise` on each block."""
    chance = random.Random(seed)

    def rows(speed: float) -> list[dict[str, float]]:
        result = []
        for _ in range(rounds):
            speed = min(2.0, max(0.5, speed * chance.gauss(1, 0.05)))
            base = {name: speed * chance.gauss(1, noise) for name in (BASELINE, CONTROL, "traced")}
            result.append({**base, "traced": base["traced"] * (1 + cost)})
        return result

    return Samples.of([rows(chance.uniform(0.8, 1.2)) for _ in range(4)])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cost", [0.0, 0.02, 0.5])
def test_the_interval_covers_a_known_ratio(cost: float, seed: int) -> None:
    found = ratio(noisy_samples(cost, noise=0.02, seed=seed), "traced")
    assert found.low - 0.004 <= 1 + cost <= found.high + 0.004
    assert found.half_width < 0.02


def test_about_95_of_100_intervals_cover_the_truth() -> None:
    covered = sum(
        ratio(noisy_samples(0.03, noise=0.05, rounds=20, seed=seed), "traced").contains(1.03)
        for seed in range(60)
    )
    assert covered >= 50


@pytest.mark.parametrize("seed", range(3))
def test_the_control_is_near_one(seed: int) -> None:
    found = ratio(noisy_samples(0.3, noise=0.02, seed=seed), CONTROL)
    assert found.farthest_from(1.0) < 0.015


def test_drift_between_rounds_does_not_widen_a_paired_interval() -> None:
    samples = noisy_samples(0.1, noise=0.001)
    assert level(samples, "traced").half_width > 10 * ratio(samples, "traced").half_width


def test_differences_are_paired_too() -> None:
    samples = Samples.of([[{BASELINE: 10.0 * k, "empty": 11.0 * k, "full": 13.0 * k} for k in (1, 2, 3)]] * 2)
    assert ratio_difference(samples, "full", "empty").median == pytest.approx(0.2)
    assert difference(samples, "full", "empty").median == pytest.approx(4.0)
    assert difference(samples, "full", "empty", BASELINE).median == pytest.approx(-16.0)


def test_a_process_that_differs_widens_the_interval() -> None:
    alike = [np.full(20, 1.0), np.full(20, 1.0), np.full(20, 1.0)]
    assert interval(alike).half_width == 0
    assert interval([*alike[:2], np.full(20, 1.2)]).high == pytest.approx(1.2)


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        interval([])


def test_every_round_runs_every_block_once_and_the_baseline_twice_in_changing_order() -> None:
    order: list[str] = []

    def block(name: str) -> Callable[[], float]:
        def run() -> float:
            order.append(name)
            return 1.0

        return run

    rows = run_rounds({name: block(name) for name in (BASELINE, "a", "b")}, 20, seed=3)
    assert [set(row) for row in rows] == [{BASELINE, CONTROL, "a", "b"}] * 20
    rounds = [tuple(order[i : i + 4]) for i in range(0, len(order), 4)]
    assert all(sorted(names) == sorted(["a", "b", BASELINE, BASELINE]) for names in rounds)
    assert len(set(rounds)) > 3


def test_a_block_may_return_several_costs() -> None:
    rows = run_rounds({BASELINE: lambda: {BASELINE: 1.0, "wall": 2.0}}, 2, seed=1)
    assert rows == [{BASELINE: 1.0, "wall": 2.0, f"{CONTROL} {BASELINE}": 1.0, f"{CONTROL} wall": 2.0}] * 2


@pytest.mark.parametrize(
    ("measured", "noise", "verdict"),
    [
        (Interval(1.005, 1.002, 1.008), 0.003, Verdict.REACHED),
        (Interval(1.02, 1.015, 1.03), 0.003, Verdict.MISSED),
        (Interval(1.008, 1.002, 1.015), 0.003, Verdict.SPANS),
        (Interval(1.005, 1.002, 1.008), 0.03, Verdict.NOISY),
        (Interval(1.03, 1.02, 1.04), 0.03, Verdict.NOISY),
        (Interval(1.2, 1.15, 1.3), 0.03, Verdict.MISSED),
    ],
)
def test_a_bound_is_judged_only_where_the_control_allows(
    measured: Interval, noise: float, verdict: Verdict
) -> None:
    assert at_most(measured, 1.01, noise=noise, room=0.01) is verdict


def test_at_least_mirrors_at_most() -> None:
    assert at_least(Interval(200, 190, 210), 160) is Verdict.REACHED
    assert at_least(Interval(100, 90, 110), 160) is Verdict.MISSED
    assert at_least(Interval(160, 150, 170), 160) is Verdict.SPANS


@pytest.mark.parametrize(
    ("measured", "noise", "verdict"),
    [
        (Interval(1.001, 0.996, 1.004), 0.004, Verdict.REACHED),
        (Interval(1.03, 1.02, 1.04), 0.004, Verdict.MISSED),
        (Interval(1.00, 0.95, 1.05), 0.004, Verdict.NOISY),
        (Interval(1.001, 0.996, 1.004), 0.04, Verdict.NOISY),
    ],
)
def test_sameness_needs_a_narrow_interval(measured: Interval, noise: float, verdict: Verdict) -> None:
    assert indistinguishable(measured, noise=noise, room=0.01) is verdict
