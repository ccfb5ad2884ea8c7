"""What is said of calls to other services fits what happened to them."""

from __future__ import annotations

import pytest

from pyscope.analysis.external_advice import Trouble, advice, trouble
from pyscope.findings import Attempt, ExternalCall
from pyscope.rows import Location


def http(*statuses: int) -> ExternalCall:
    """A call whose attempts were answered with these; 0: with nothing."""
    attempts = tuple(
        Attempt(0, 1, "succeeded" if 200 <= status < 400 else "failed", f"HTTP {status}", 0, status)
        for status in statuses
    )
    last = attempts[-1].outcome
    here = Location("shop.py", 1, "pay")
    return ExternalCall(
        "http",
        "POST /pay",
        "127.0.0.1:1",
        attempts,
        False,
        len(statuses) - 1,
        last,
        0,
        1,
        "httpx",
        "",
        here,
        (),
    )


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ((0,), Trouble.AWAY),
        ((408,), Trouble.AWAY),
        ((502,), Trouble.AWAY),
        ((503, 504), Trouble.AWAY),
        ((500,), Trouble.BROKEN),
        ((501, 500), Trouble.BROKEN),
        ((0, 500), Trouble.BROKEN),
        ((404,), Trouble.REFUSED),
        ((429,), Trouble.REFUSED),
        ((500, 200), Trouble.BROKEN),
        ((0, 500, 200), Trouble.AWAY),
        ((200,), Trouble.NONE),
    ],
)
def test_an_answer_tells_what_is_wrong(statuses: tuple[int, ...], kind: Trouble) -> None:
    assert trouble(http(*statuses)) is kind


def test_who_is_answered_that_the_service_has_failed_is_not_advised_to_wait_less() -> None:
    assert "its own log" in advice(Trouble.BROKEN, "http", failed=True)
    assert "timeout" not in advice(Trouble.BROKEN, "http", failed=True)
    assert "timeout" in advice(Trouble.AWAY, "http", failed=True)
    assert "came through" in advice(Trouble.BROKEN, "http", failed=False)
