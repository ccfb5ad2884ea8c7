"""The groups of figures: each runs its measurements and turns the samples into rows with verdicts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks import estimator, instructions, variants, worker
from benchmarks.estimator import BASELINE, CONTROL, Interval, Samples, Verdict
from benchmarks.figure import Figure, percent, points, quantity
from benchmarks.interpreters import Interpreter
from benchmarks.variants import DUTY_CYCLE, EMPTY

HOOK_NS: Final = 6.0  # what a recorder may add to a clock reading
OWN_BOUND: Final = {"3.11": 0.04, "3.12": 0.01, "3.13": 0.01}
EVERYTHING_BOUND: Final = 0.05
PROBES_BOUND: Final = 0.05
EVERYTHING_POINTS: Final = 0.02
SAME: Final = 0.01  # closer than this, two programs count as equal
BYTES_ON_DISK: Final = 4.0
NAIVE_SHARE: Final = 1 / 3
REPORT_SECONDS, REPORT_GIGABYTES = 2.0, 1.5
MEMORY_MB, MEMORY_DRIFT_MB = 64.0, 1.0
PEERS: Final = ("VizTracer", "cProfile")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    processes: int
    rounds: int
    pairs: int  # of requests in a block
    turns: int  # of a tight loop in a block
    memory_events: int
    window_rounds: int  # rounds of blocks long enough for a duty cycle


QUICK: Final = Effort(2, 8, 1, 100_000, 10_000_000, 4)
FULL: Final = Effort(4, 30, 1, 150_000, 100_000_000, 10)

Group = Callable[[Interpreter, Effort], Iterator[Figure]]


def _samples(interpreter: Interpreter, function: str, effort: Effort, **arguments: Any) -> Samples:
    chance = random.Random(str(arguments))
    return Samples.of(
        [
            worker.run(
                interpreter.path, f"benchmarks.{function}", seed=chance.randrange(1 << 30), **arguments
            )
            for _ in range(effort.processes)
        ]
    )


# --- an event ------------------------------------------------------------------------------------


def event(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """The recorder's own cost an event, above an empty hook of the same backend."""
    for backend in interpreter.backends:
        shapes = ["calls", "generator resumes", *(["C calls"] if backend == "setprofile" else [])]
        for shape in shapes:
            samples = _samples(
                interpreter, "event_cost:samples", effort,
                backend=backend, shape=shape, turns=effort.turns, rounds=effort.rounds,
            )  # fmt: skip
            yield from _event_rows(interpreter, backend, shape, samples)


def _event_rows(interpreter: Interpreter, backend: str, shape: str, samples: Samples) -> Iterator[Figure]:
    clock = estimator.level(samples, "clock")
    control = estimator.difference(samples, f"{CONTROL} empty", "empty")
    for column, base, label in (
        ("recorded", "empty", "event"),
        ("recorded, drain included", "empty, process", "event, drain thread included"),
    ):
        own = estimator.difference(samples, column, base)
        above_clock = estimator.difference(samples, column, base, "clock")
        verdict = estimator.at_most(above_clock, HOOK_NS, noise=control.farthest_from(0.0), room=HOOK_NS)
        yield Figure(
            f"{label}: {backend}, {shape}", interpreter.version,
            f"≤ clock + {HOOK_NS:g} = {clock.median + HOOK_NS:.1f} ns",
            quantity("ns")(own), quantity("ns")(control), verdict, own,
        )  # fmt: skip
    empty = estimator.difference(samples, "empty", "bare")
    yield Figure(
        f"floor: empty {backend} hook, {shape}", interpreter.version, "", quantity("ns")(empty), "",
        Verdict.INFORMATION, empty,
    )  # fmt: skip


# --- TaskFlow ------------------------------------------------------------------------------------


def http(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """CPU time a request of a uvicorn process."""
    yield from _service(interpreter, effort, "served", "TaskFlow over HTTP")


def in_process(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """The same without a network."""
    yield from _service(interpreter, effort, "in_process", "TaskFlow in process")


def _service(interpreter: Interpreter, effort: Effort, function: str, title: str) -> Iterator[Figure]:
    """What was asked first, each with the variants that it is compared with; then what it is set beside."""

    def measured(names: list[str], rounds: int, pairs: int = effort.pairs, **more: float) -> _Levels:
        samples = _samples(
            interpreter, f"service:{function}", effort, names=names, rounds=rounds, pairs=pairs, **more
        )
        return _Levels(title, interpreter.version, samples)

    own = OWN_BOUND.get(interpreter.version, 0.01)
    yield measured(["own modules"], 2 * effort.rounds, 1).row("own modules", at_most=own)

    empty = [f"{EMPTY}{backend}" for backend in interpreter.backends if backend != "setprofile"]
    levels = measured(["everything", *empty], effort.rounds)
    yield levels.row("everything", "every Python call", at_most=EVERYTHING_BOUND)
    yield levels.above("everything", levels.cheapest(empty), "every Python call", EVERYTHING_POINTS)
    for name in empty:
        yield levels.row(name, f"{name} hook")

    yield measured([DUTY_CYCLE], effort.window_rounds, 1, seconds=_two_windows()).row(
        DUTY_CYCLE, at_most=EVERYTHING_BOUND
    )

    beside = ["everything, flight", "everything + C calls", f"{EMPTY}setprofile", *PEERS]
    levels = measured(beside, max(2, effort.rounds // 3))
    for name in filter(levels.has, beside):
        yield levels.row(name)


def probes(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """All probes at once, and the share of each: CPU time a request over HTTP."""
    each = variants.with_each_probe()
    names = [variants.ALL_PROBES, variants.OWN]
    samples = _samples(
        interpreter, "service:served", effort, names=names, rounds=effort.rounds, pairs=effort.pairs
    )
    levels = _Levels("TaskFlow over HTTP", interpreter.version, samples)
    yield levels.row(variants.ALL_PROBES, at_most=PROBES_BOUND)
    yield levels.share(variants.ALL_PROBES, variants.OWN)
    samples = _samples(
        interpreter,
        "service:served",
        effort,
        names=[variants.OWN, *each],
        rounds=max(2, effort.rounds // 3),
        pairs=1,
    )
    levels = _Levels("TaskFlow over HTTP", interpreter.version, samples)
    for name in each:
        yield levels.share(name, variants.OWN)


class _Levels:
    """Rows of one set of samples, with its control."""

    def __init__(self, title: str, version: str, samples: Samples) -> None:
        self._title = title
        self._version = version
        self._samples = samples
        control = estimator.ratio(samples, CONTROL)
        self._control = percent(control)
        self._noise = control.farthest_from(1.0)

    def has(self, name: str) -> bool:
        """Whether the variant could be run."""
        return all(name in row for rows in self._samples.processes for row in rows)

    def cheapest(self, names: list[str]) -> str:
        """Of several variants the one with the smallest ratio."""
        return min(names, key=lambda name: estimator.ratio(self._samples, name).median)

    def row(self, name: str, label: str = "", at_most: float | None = None) -> Figure:
        """The ratio of a variant to the untraced work."""
        found = estimator.ratio(self._samples, name)
        asked, verdict = "", Verdict.INFORMATION
        if at_most is not None:
            asked = f"≤ {at_most:.0%}"
            verdict = estimator.at_most(found, 1 + at_most, noise=self._noise, room=at_most)
        title = f"{self._title}: {label or name}"
        return Figure(title, self._version, asked, percent(found), self._control, verdict, found)

    def share(self, name: str, base: str) -> Figure:
        """What a probe adds to recording without it."""
        found = estimator.ratio_difference(self._samples, name, base)
        title = f"{self._title}: {name}, its share"
        return Figure(title, self._version, "", points(found), self._control, Verdict.INFORMATION, found)

    def above(self, name: str, floor: str, label: str, at_most: float) -> Figure:
        """How much more a variant adds than another."""
        found = estimator.ratio_difference(self._samples, name, floor)
        verdict = estimator.at_most(found, at_most, noise=self._noise, room=at_most)
        title = f"{self._title}: {label}, above the {floor} hook"
        asked = f"≤ {at_most * 100:g} points, or the row above"
        return Figure(title, self._version, asked, points(found), self._control, verdict, found)


def _two_windows() -> float:
    from pyscope import recorder

    return 2 * recorder.C_CALL_WINDOW_MS * recorder.ARMED_COST / 0.03 / 1000


def installed(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Installed and not started, against not installed."""
    rounds = max(4, effort.processes * effort.rounds // 4)
    samples = Samples.of(
        [
            worker.run(
                interpreter.path, "benchmarks.service:installed",
                interpreter=interpreter.path, rounds=rounds, seed=1, pairs=10 * effort.pairs + 1,
            )
        ]
    )  # fmt: skip
    control = estimator.ratio(samples, CONTROL)
    noise = control.farthest_from(1.0)
    for name, label, asked in (
        ("installed", "installed, not started", "as not installed"),
        ("stopped", "stopped after a recording", "as not installed"),
    ):
        found = estimator.ratio(samples, name)
        verdict = estimator.indistinguishable(found, noise=noise, room=SAME)
        yield Figure(
            f"TaskFlow: {label}", interpreter.version, asked, percent(found), percent(control), verdict, found
        )


# --- memory and size -----------------------------------------------------------------------------


def memory(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """The recorder's memory, flat over many events."""
    found = worker.run(interpreter.path, "benchmarks.recording_size:memory", events=effort.memory_events)
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


# --- reading -------------------------------------------------------------------------------------


def decode(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Decode and pairing, against a naive loop over the same events."""
    for program, size in ("tree", 10_000_000), ("service", 50):
        samples = _samples(
            interpreter, "reading:decoding", effort,
            program=program, size=size, rounds=max(4, effort.rounds // 4),
        )  # fmt: skip
        for name, label in ("decode", "decode into columns"), ("pair", "call pairing"):
            yield from _decode_rows(interpreter, samples, name, f"{label}: {program}")


def _decode_rows(interpreter: Interpreter, samples: Samples, name: str, label: str) -> Iterator[Figure]:
    control = estimator.ratio(samples, f"{CONTROL} naive {name}", f"naive {name}")
    noise = control.farthest_from(1.0) * NAIVE_SHARE
    for yardstick, asked in ("naive", "≥ 1/3 of a naive loop"), ("cold", ""):
        share = estimator.ratio(samples, name, f"{yardstick} {name}")
        rate, base = (estimator.level(samples, key).median for key in (name, f"{yardstick} {name}"))
        verdict = estimator.at_least(share, NAIVE_SHARE, noise=noise, room=0.1)
        yield Figure(
            label if asked else f"{label}, of a naive loop into fresh memory", interpreter.version, asked,
            f"{share.median:.2f} [{share.low:.2f}, {share.high:.2f}]: {rate:.0f} of {base:.0f} million/s",
            percent(control), verdict if asked else Verdict.INFORMATION, share,
        )  # fmt: skip


def report(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """From a recording of ten million calls to its report, printed."""
    rows = worker.run(
        interpreter.path, "benchmarks.reading:reports", calls=10_000_000, rounds=max(3, effort.rounds // 3)
    )
    crowding = estimator.interval([np.array([row["crowding"] for row in rows])])
    for name, unit, bound in (
        ("seconds", "s", REPORT_SECONDS),
        ("CPU seconds", "s", None),
        ("gigabytes", "GB", REPORT_GIGABYTES),
    ):
        found = estimator.interval([np.array([row[name] for row in rows])])
        calls = f"{rows[0]['calls'] / 1e6:.1f} million calls"
        # Time on the wall is also the time of others: judged by what the machine left to a busy loop.
        noise = bound * crowding.farthest_from(1.0) if bound and name == "seconds" else 0.0
        verdict = estimator.at_most(found, bound, noise=noise, room=0.2) if bound else Verdict.INFORMATION
        control = f"busy loop: {percent(crowding)}" if name == "seconds" else ""
        label = {"seconds": "wall time", "CPU seconds": "CPU time", "gigabytes": "peak memory"}[name]
        yield Figure(
            f"recording → report printed: {label}", interpreter.version,
            "" if bound is None else f"≤ {bound:g} {unit}", quantity(unit, 2)(found), control,
            verdict, found, calls,
        )  # fmt: skip


def counted(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Instructions an event."""
    if not instructions.available():
        return
    version = interpreter.version
    for backend in interpreter.backends:
        found = worker.run(interpreter.path, "benchmarks.instructions:of_an_event", backend=backend)
        for label, value in (
            (f"{backend}, above the empty hook", found["recorded"] - found["empty"]),
            (f"empty {backend} hook", found["empty"] - found[BASELINE]),
            (f"drain thread, {backend}", found["drain"]),
        ):
            name, measured = f"instructions an event: {label}", Interval(value, value, value)
            yield Figure(name, version, "", f"{value:.1f}", "", Verdict.INFORMATION, measured)


GROUPS: Final[dict[str, Group]] = {
    "event": event,
    "http": http,
    "in-process": in_process,
    "probes": probes,
    "installed": installed,
    "memory": memory,
    "size": size,
    "decode": decode,
    "report": report,
    "instructions": counted,
}
FIRST_INTERPRETER_ONLY: Final = {"decode", "report", "instructions"}  # they hardly depend on it
