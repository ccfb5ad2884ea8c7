"""What a recording takes: bytes an event in the ring and on disk, memory over a hundred million events."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

import pyscope
from benchmarks import call_tree
from benchmarks.workload import InProcessWorkload
from pyscope.format import OPERANDS

STEPS: Final = 20  # readings of the memory
WORD_BYTES: Final = 8


def bytes_an_event(*, modules: list[str], pairs: int) -> dict[str, float]:
    """Bytes an event of `pairs` pairs of requests: on disk, names and headers included; in the ring."""
    with (
        tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder,
        InProcessWorkload(Path(folder)) as workload,
    ):
        path = Path(folder) / "run.pyscope"
        workload.request_pairs(2)
        with pyscope.record(path, modules=modules, children=False) as recording:
            workload.request_pairs(pairs)
        figures = recording.figures
        trace: Any = pyscope.load(path)
        kinds = np.bincount(trace.events["kind"], minlength=len(OPERANDS))
    words = kinds + kinds * np.array(OPERANDS)
    return {
        "events": float(figures["events"]),
        "dropped": float(figures["dropped"]),
        "disk": figures["bytes"] / figures["events"],
        "ring": float(words.sum()) * WORD_BYTES / float(kinds.sum()),
    }


def memory(*, events: int) -> dict[str, Any]:
    """Growth of the resident memory (ring included) while `events` events are recorded, in MiB."""
    process = psutil.Process()
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as folder:
        call_tree.grow(events // STEPS // 2)
        before = process.memory_info().rss
        with pyscope.record(
            Path(folder) / "run.pyscope", modules=["benchmarks.call_tree"], children=False
        ) as recording:
            at_start = process.memory_info().rss
            readings = []
            for _ in range(STEPS):
                call_tree.grow(events // STEPS // 2)
                readings.append((process.memory_info().rss - before) / 2**20)
            ring = recording.figures["ring_bytes"] / 2**20
        after = process.memory_info().rss
    figures = recording.figures
    return {
        "events": figures["events"],
        "dropped": figures["dropped"],
        "ring": ring,
        "at start": (at_start - before) / 2**20,
        "readings": readings,
        "after the stop": (after - before) / 2**20,
    }
