"""TaskFlow under load, recorded and not: throughput of a saturated server, latencies of a thousand clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from benchmarks import estimator, variants
from benchmarks.effort import Effort, samples
from benchmarks.estimator import BASELINE, CONTROL, Samples, Verdict
from benchmarks.figure import Figure, lost, percent, quantity
from benchmarks.groups.service import EVERYTHING_BOUND, FEW_PROCESSES, OWN_BOUND, PROBES_BOUND
from benchmarks.interpreters import Interpreter
from benchmarks.levels import Levels, count_row
from benchmarks.variants import EVERYTHING, OWN

CONNECTIONS: Final = 8
PAIRS: Final = 2  # of each connection in a block
CROWD: Final = 1024
CROWD_REQUESTS: Final = 2  # of each client in a block
HANDFUL: Final = 16  # that send the crowd's requests between them: whether it is the crowd that costs
CROWDS_TIME: Final = 0.75  # the share of the crowd itself
LATENCY_BOUND: Final = 0.05


def throughput(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Requests a second that are lost."""
    bounds = {
        OWN: OWN_BOUND.get(interpreter.version, 0.01),
        variants.PROBES_IN_FLIGHT: PROBES_BOUND,
        EVERYTHING: EVERYTHING_BOUND,
    }
    found = samples(
        interpreter, "load:throughput", effort, names=list(bounds), connections=CONNECTIONS, pairs=PAIRS
    )
    control = estimator.loss(found, CONTROL)
    rate = estimator.rate(found, BASELINE)
    title = f"requests a second, {CONNECTIONS} connections"
    yield Figure(
        f"{title}: untraced", interpreter.version, "", quantity("a second")(rate), lost(control),
        Verdict.INFORMATION, rate,
    )  # fmt: skip
    for name, bound in bounds.items():
        loss = estimator.loss(found, name)
        verdict = estimator.at_most(loss, bound, noise=control.farthest_from(0.0), room=bound)
        yield Figure(
            f"{title}: {name}", interpreter.version, f"≤ {bound:.0%} lost", lost(loss), lost(control),
            verdict, loss,
        )  # fmt: skip
    yield from _failures(found, interpreter, title, list(bounds))


def crowd(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """A thousand clients at once, and the CPU time of the same requests from a handful of clients."""
    names = [OWN, variants.ALL_PROBES, EVERYTHING]
    few = Effort(effort.seconds * CROWDS_TIME, effort.factor, FEW_PROCESSES)
    found = samples(interpreter, "load:crowd", few, names=names, connections=CROWD, requests=CROWD_REQUESTS)
    title = f"{CROWD:,} concurrent requests"
    untraced = estimator.level(found, BASELINE)
    yield Figure(
        f"{title}: p99 latency, untraced", interpreter.version, "", quantity("s", 2)(untraced),
        percent(estimator.ratio(found, CONTROL)), Verdict.INFORMATION, untraced,
    )  # fmt: skip
    levels = Levels(f"{title}: p99 latency", interpreter.version, found)
    for name in names:
        yield levels.row(name, at_most=LATENCY_BOUND)
    yield from _cpu(found, interpreter, title, names)
    yield from _failures(found, interpreter, title, names)
    yield Levels(title, interpreter.version, found).lost_events(names)
    few = Effort(effort.seconds * (1 - CROWDS_TIME), effort.factor, 1)
    each = CROWD * CROWD_REQUESTS // HANDFUL
    found = samples(interpreter, "load:crowd", few, names=names, connections=HANDFUL, requests=each)
    yield from _cpu(found, interpreter, f"the same requests, {HANDFUL} at a time", names)


def _cpu(found: Samples, interpreter: Interpreter, title: str, names: Sequence[str]) -> Iterator[Figure]:
    """CPU time of a request: that of the variants over the untraced."""
    title = f"{title}: CPU time of a request"
    untraced = estimator.level(found, f"{BASELINE}: CPU")
    control = percent(estimator.ratio(found, f"{CONTROL}: CPU", f"{BASELINE}: CPU"))
    yield Figure(
        f"{title}, untraced", interpreter.version, "", quantity("ms", 2)(untraced.scaled(1e3)), control,
        Verdict.INFORMATION, untraced,
    )  # fmt: skip
    for name in names:
        cost = estimator.ratio(found, f"{name}: CPU", f"{BASELINE}: CPU")
        yield Figure(
            f"{title}: {name}", interpreter.version, "", percent(cost), control, Verdict.INFORMATION, cost
        )


def _failures(found: Samples, interpreter: Interpreter, title: str, names: Sequence[str]) -> Iterator[Figure]:
    """What failed while recording; what failed without it is no fault of the recorder's."""
    for label, variants_of, verdict in (
        ("untraced", (BASELINE, CONTROL), Verdict.INFORMATION),
        ("recorded", names, None),
    ):
        failed, sent = (
            sum(
                row.get(f"{name}: {what}", 0.0)
                for rows in found.processes
                for row in rows
                for name in variants_of
            )
            for what in ("failed", "requests")
        )
        row = count_row(f"{title}: failed requests, {label}", interpreter.version, failed, sent, "requests")
        yield row if verdict is None else replace(row, asked="", verdict=verdict)
