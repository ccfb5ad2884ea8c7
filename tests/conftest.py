"""Shared by all tests: nothing of the developer's own surroundings reaches them."""

from __future__ import annotations

import os

import pytest

from pyscope import children


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """PYSCOPE_* variables of the shell would change what the tests record; one is set by a fixture's own recording."""
    for name in list(os.environ):
        if name.startswith("PYSCOPE_") and name != children.VARIABLE:
            monkeypatch.delenv(name)
