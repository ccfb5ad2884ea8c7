"""What recording costs by itself: an event in time, bytes and instructions; the recorder's memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from benchmarks import estimator, instructions, worker
from benchmarks.effort import Effort, samples
from benchmarks.estimator import BASELINE, CONTROL, Interval, Samples, Verdict
from benchmarks.figure import Figure, quantity
from benchmarks.interpreters import Interpreter
from benchmarks.variants import ALL_PROBES, EVERYTHING, OWN

HOOK_NS: Final = 6.0  # what a recorder may add to a clock reading
TURNS: Final = 100_000  # of a tight loop in a block
BYTES_ON_DISK: Final = 4.0
SHAPES: Final = ("calls", "generator resumes")
REQUEST_PAIRS: Final = 10
MEMORY_EVENTS: Final = 100_000_000
MEMORY_MB, MEMORY_DRIFT_MB = 64.0, 1.0


def event(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """The recorder's own cost an event, above an empty hook of the same backend."""
    loops = [(backend, shape) for backend in interpreter.backends for shape in SHAPES]
    loops.append(("setprofile", "C calls"))
    for backend, shape in loops:
        found = samples(
            interpreter, "event_cost:samples", effort.part(1 / len(loops)),
            backend=backend, shape=shape, turns=TURNS,
        )  # fmt: skip
        yield from _event_rows(interpreter, backend, shape, found)


def _event_rows(interpreter: Interpreter, backend: str, shape: str, found: Samples) -> Iterator[Figure]:
    clock = estimator.level(found, "clock")
    control = estimator.difference(found, f"{CONTROL} empty", "empty")
    for column, base, label in (
        ("recorded", "empty", "event"),
        ("recorded, drain included", "empty, process", "event, drain thread included"),
    ):
        own = estimator.difference(found, column, base)
        above_clock = estimator.difference(found, column, base, "clock")
        verdict = estimator.at_most(above_clock, HOOK_NS, noise=control.farthest_from(0.0), room=HOOK_NS)
        yield Figure(
            f"{label}: {backend}, {shape}", interpreter.version,
            f"≤ clock + {HOOK_NS:g} = {clock.median + HOOK_NS:.1f} ns",
            quantity("ns")(own), quantity("ns")(control), verdict, own,
        )  # fmt: skip
    empty = estimator.difference(found, "empty", "bare")
    yield Figure(
        f"floor: empty {backend} hook, {shape}", interpreter.version, "", quantity("ns")(empty), "",
        Verdict.INFORMATION, empty,
    )  # fmt: skip


def memory(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """The recorder's memory, flat over many events."""
    found = worker.run(
        interpreter.path, "benchmarks.recording_size:memory", events=effort.sized(MEMORY_EVENTS, 1_000_000)
    )
    readings = found["readings"]
    most, ring = max(readings), found["ring"]
    drift = max(readings[len(readings) // 10 :]) - readings[len(readings) // 10]
    count = f"{found['events'] / 1e6:.0f} million events, {found['dropped']:.0f} dropped"
    for label, value, bound in (
        ("resident memory added, ring included", most, MEMORY_MB),
        ("growth after the first tenth", drift, MEMORY_DRIFT_MB),
    ):
        measured = Interval(value, value, value)
        yield Figure(
            f"memory: {label}", interpreter.version, f"≤ {bound:g} MiB", f"{value:.1f} MiB (ring {ring:.1f})",
            "", estimator.at_most(measured, bound, noise=0, room=1), measured, count,
        )  # fmt: skip


def size(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Bytes an event for real service code."""
    for modules, label in (["*"], "every Python call"), (["taskflow.*"], "own modules"):
        pairs = 25 if modules == ["*"] else 200
        found = worker.run(
            interpreter.path, "benchmarks.recording_size:bytes_an_event", modules=modules, pairs=pairs
        )
        note = f"{found['events'] / 1e3:.0f} thousand events"
        ring, disk = (Interval(found[name], found[name], found[name]) for name in ("ring", "disk"))
        yield Figure(
            f"an event in the ring: {label}", interpreter.version, "8 bytes a word",
            f"{ring.median:.2f} bytes", "", Verdict.INFORMATION, ring, note,
        )  # fmt: skip
        yield Figure(
            f"an event on disk: {label}", interpreter.version, f"≤ {BYTES_ON_DISK:g} bytes",
            f"{disk.median:.2f} bytes", "",
            estimator.at_most(disk, BYTES_ON_DISK, noise=0, room=1), disk, note,
        )  # fmt: skip


def counted(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Instructions an event, and what each level adds to those of TaskFlow's requests."""
    if not instructions.available():
        return
    yield from _instructions_an_event(interpreter)
    yield from _instructions_a_request(interpreter, effort)


def _instructions_an_event(interpreter: Interpreter) -> Iterator[Figure]:
    version = interpreter.version
    backends = interpreter.backends
    counts = worker.run(interpreter.path, "benchmarks.instructions:of_an_event", backends=backends)
    for backend, found in counts.items():
        for label, value in (
            (f"{backend}, above the empty hook", found["recorded"] - found["empty"]),
            (f"empty {backend} hook", found["empty"] - found[BASELINE]),
            (f"drain thread, {backend}", found["drain"]),
        ):
            name, measured = f"instructions an event: {label}", Interval(value, value, value)
            yield Figure(name, version, "", f"{value:.1f}", "", Verdict.INFORMATION, measured)


def _instructions_a_request(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Each level between counts without it, all in one process."""
    levels = [CONTROL, OWN, OWN, ALL_PROBES, ALL_PROBES, EVERYTHING]
    turns = [BASELINE, *(name for level in levels for name in (level, BASELINE))]
    counts = worker.run(
        interpreter.path,
        "benchmarks.instructions:of_requests",
        names=turns,
        pairs=effort.sized(REQUEST_PAIRS),
    )
    bases = counts[::2]
    added: dict[str, list[float]] = {}
    for level, count, before, after in zip(levels, counts[1::2], bases[:-1], bases[1:], strict=True):
        added.setdefault(level, []).append(count / ((before + after) / 2) - 1)
    added["stopped after a recording"] = [count / bases[0] - 1 for count in bases[2:]]
    control = f"{added.pop(CONTROL)[0]:+.1%}"
    for label, found in added.items():
        mean = sum(found) / len(found)
        ratio = Interval(1 + mean, 1 + min(found), 1 + max(found))
        yield Figure(
            f"TaskFlow in process, instructions of the main thread: {label}", interpreter.version, "",
            f"{mean:+.1%}, of {len(found)} counts {min(found):+.1%} to {max(found):+.1%}", control,
            Verdict.INFORMATION, ratio,
        )  # fmt: skip
