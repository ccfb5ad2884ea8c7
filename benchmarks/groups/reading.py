"""What reading a recording costs: decoding, the report, and saving and loading beside VizTracer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from benchmarks import estimator, peers, saving, worker
from benchmarks.effort import Effort, samples
from benchmarks.estimator import CONTROL, Samples, Verdict
from benchmarks.figure import Figure, percent, quantity
from benchmarks.interpreters import Interpreter

NAIVE_SHARE: Final = 1 / 3
REPORT_SECONDS, REPORT_GIGABYTES = 2.0, 1.5
REPORTED_CALLS: Final = 10_000_000
SERVICE_PAIRS: Final = 50
REPORTS: Final = 8
SAVED_CALLS: Final = 1_600_000


def decode(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Decode and pairing, against a naive loop over the same events."""
    for program, size in ("tree", effort.sized(REPORTED_CALLS, 100_000)), ("service", SERVICE_PAIRS):
        found = samples(interpreter, "reading:decoding", effort.part(1 / 2), program=program, size=size)
        for name, label in ("decode", "decode into columns"), ("pair", "call pairing"):
            yield from _decode_rows(interpreter, found, name, f"{label}: {program}")


def _decode_rows(interpreter: Interpreter, found: Samples, name: str, label: str) -> Iterator[Figure]:
    control = estimator.ratio(found, f"{CONTROL} naive {name}", f"naive {name}")
    noise = control.farthest_from(1.0) * NAIVE_SHARE
    for yardstick, asked in ("naive", "≥ 1/3 of a naive loop"), ("cold", ""):
        share = estimator.ratio(found, name, f"{yardstick} {name}")
        rate, base = (estimator.level(found, key).median for key in (name, f"{yardstick} {name}"))
        verdict = estimator.at_least(share, NAIVE_SHARE, noise=noise, room=0.1)
        yield Figure(
            label if asked else f"{label}, of a naive loop into fresh memory", interpreter.version, asked,
            f"{share.median:.2f} [{share.low:.2f}, {share.high:.2f}]: {rate:.0f} of {base:.0f} million/s",
            percent(control), verdict if asked else Verdict.INFORMATION, share,
        )  # fmt: skip


def report(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """From a recording of ten million calls to its report, printed."""
    calls, rounds = effort.sized(REPORTED_CALLS, 100_000), effort.sized(REPORTS, 2)
    rows = worker.run(interpreter.path, "benchmarks.reading:reports", calls=calls, rounds=rounds)
    crowding = estimator.interval([np.array([row["crowding"] for row in rows])])
    for name, unit, bound in (
        ("seconds", "s", REPORT_SECONDS),
        ("CPU seconds", "s", None),
        ("gigabytes", "GB", REPORT_GIGABYTES),
    ):
        found = estimator.interval([np.array([row[name] for row in rows])])
        note = f"{rows[0]['calls'] / 1e6:.1f} million calls"
        # Time on the wall is also the time of others: judged by what the machine left to a busy loop.
        noise = bound * crowding.farthest_from(1.0) if bound and name == "seconds" else 0.0
        verdict = estimator.at_most(found, bound, noise=noise, room=0.2) if bound else Verdict.INFORMATION
        control = f"busy loop: {percent(crowding)}" if name == "seconds" else ""
        label = {"seconds": "wall time", "CPU seconds": "CPU time", "gigabytes": "peak memory"}[name]
        yield Figure(
            f"recording → report printed: {label}", interpreter.version,
            "" if bound is None else f"≤ {bound:g} {unit}", quantity(unit, 2)(found), control,
            verdict, found, note,
        )  # fmt: skip


def save(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Saving, loading and reporting the same calls, beside VizTracer."""
    tools = [tool for tool in saving.TOOLS if tool != peers.VIZTRACER or peers.available(tool)]
    calls = effort.sized(SAVED_CALLS, 50_000)
    alone = Effort(effort.seconds, effort.factor, processes=1)
    found = samples(
        interpreter, "saving:rounds", alone, executable=interpreter.path, tools=tools, calls=calls
    )
    note = f"{calls / 1e6:.1f} million calls"
    for what, label, unit in (
        ("save", "recording → file", "s"),
        ("load", "file → calls in memory", "s"),
        ("report", "file → report", "s"),
        ("bytes", "a call on disk", "bytes"),
    ):
        for tool in tools:
            level = estimator.level(found, f"{tool}: {what}")
            yield Figure(
                f"{label}: {tool}", interpreter.version, "", quantity(unit, 2)(level), "",
                Verdict.INFORMATION, level, note,
            )  # fmt: skip
