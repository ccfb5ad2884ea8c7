"""The soak's verdict, and a short soak: `make soak` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import MIB, Sample, growth, soak


def samples(*memory: float, handles: int = 20, threads: int = 8) -> list[Sample]:
    return [Sample(float(at), int(each * MIB), handles, threads) for at, each in enumerate(memory)]


def test_what_stays_is_flat_and_what_leaks_is_not() -> None:
    steady = [50.0] * 5 + [90.0, 91.0] * 20
    assert all(each.flat for each in growth(samples(*steady)))
    leaking = [90.0 + at * 0.5 for at in range(60)]
    assert [each.name for each in growth(samples(*leaking)) if not each.flat] == ["memory"]
    two = samples(*steady[:20]) + samples(*steady[20:], handles=40, threads=20)
    assert [each.name for each in growth(two) if not each.flat] == ["handles", "threads"]
    alone = samples(*(60.0 + at * 0.5 for at in range(60)))
    assert all(each.flat for each in growth(samples(*leaking), alone))
    assert [
        each.name for each in growth(samples(*(90.0 + at for at in range(60))), alone) if not each.flat
    ] == ["memory"]
    with pytest.raises(ValueError, match="too few"):
        growth(samples(1.0, 2.0))


@pytest.mark.slow
def test_the_recorded_service_answers_every_request_while_it_is_watched(tmp_path: Path) -> None:
    taken, requests, errors = soak(tmp_path, 6.0)
    assert errors == 0
    assert requests > 0
    assert len(taken) > 3
    assert max(sample.handles for sample in taken) < 200
    assert max(sample.threads for sample in taken) < 100
    assert not list(tmp_path.glob("*.ring"))
