"""The fixture that every test of robustness uses."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import Programs


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    rings = Path(
        tempfile.mkdtemp(prefix="pyscope-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    )
    yield Programs(tmp_path, rings)
    shutil.rmtree(rings, ignore_errors=True)
