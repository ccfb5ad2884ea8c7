"""What recording costs TaskFlow, by level, beside empty hooks and beside other tools."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from benchmarks import estimator, peers, variants
from benchmarks.effort import Effort, samples
from benchmarks.estimator import CONTROL, Samples
from benchmarks.figure import Figure, percent
from benchmarks.interpreters import Interpreter
from benchmarks.levels import Levels
from benchmarks.variants import EMPTY, EVERYTHING, OWN

OWN_BOUND: Final = {"3.11": 0.04, "3.12": 0.01, "3.13": 0.01}
PROBES_BOUND: Final = 0.03
EVERYTHING_BOUND: Final = 0.05
EVERYTHING_POINTS: Final = 0.02
PEER_SHARE: Final = 1 / 3
SAME: Final = 0.01  # closer than this, two programs count as equal
PAIRS: Final = 6  # of requests in a block: half of the time goes into switching and warming up
BUDGET: Final = 0.03  # of the duty cycle
BUDGET_SECONDS, SETTLING_SECONDS = 3.0, 4.0  # of a block; until the governor has found what to quiet
OVER_HTTP: Final = ("served", "TaskFlow over HTTP")
IN_PROCESS: Final = ("in_process", "TaskFlow in process")
SYNCHRONOUS: Final = ("synchronous", "TaskFlow's data layer, synchronous")
FEW_PROCESSES: Final = 2


def _measured(
    interpreter: Interpreter, effort: Effort, work: tuple[str, str], names: list[str], **more: Any
) -> Levels:
    function, title = work
    arguments = {"names": names, "pairs": PAIRS} | more
    found = samples(interpreter, f"service:{function}", effort, **arguments)
    return Levels(title, interpreter.version, found)


def own(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """The service's own modules."""
    bound = OWN_BOUND.get(interpreter.version, 0.01)
    levels = _measured(interpreter, effort, OVER_HTTP, [OWN])
    yield levels.row(OWN, at_most=bound)
    yield levels.lost_events([OWN])


def probes(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """All probes beside the service's own modules, in stream and in flight mode."""
    levels = _measured(interpreter, effort, OVER_HTTP, [variants.ALL_PROBES, variants.PROBES_IN_FLIGHT])
    yield levels.row(variants.PROBES_IN_FLIGHT, at_most=PROBES_BOUND)
    yield levels.row(variants.ALL_PROBES, at_most=PROBES_BOUND)
    yield levels.lost_events([variants.ALL_PROBES])


def everything(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Every Python call of the process, above the floor of empty hooks."""
    empty = _empty_hooks(interpreter)
    levels = _measured(interpreter, effort, OVER_HTTP, [EVERYTHING, variants.IN_FLIGHT, *empty])
    yield levels.row(EVERYTHING, "every Python call", at_most=EVERYTHING_BOUND)
    yield levels.above(EVERYTHING, levels.cheapest(empty), "every Python call", EVERYTHING_POINTS)
    yield levels.row(variants.IN_FLIGHT, "every Python call, flight", at_most=EVERYTHING_BOUND)
    yield levels.above(
        variants.IN_FLIGHT, levels.cheapest(empty), "every Python call, flight", EVERYTHING_POINTS
    )
    for name in empty:
        yield levels.row(name, f"{name} hook")
    yield levels.lost_events([EVERYTHING])


def budgeted(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Every Python call of the process within a budget: what it does not hold is estimated, and told."""
    levels = _measured(
        interpreter, effort, OVER_HTTP, [variants.BUDGETED], pairs=1,
        block_seconds=BUDGET_SECONDS, settling_seconds=SETTLING_SECONDS,
    )  # fmt: skip
    yield levels.row(variants.BUDGETED, 'every Python call, budget="5%"', at_most=EVERYTHING_BOUND)
    yield levels.lost_events([variants.BUDGETED])


def duty_cycle(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """C calls as well, in windows; a block holds two of them."""
    levels = _measured(
        interpreter, effort, OVER_HTTP, [variants.DUTY_CYCLE], pairs=1, block_seconds=_two_windows()
    )
    yield levels.row(variants.DUTY_CYCLE, at_most=EVERYTHING_BOUND)
    yield levels.lost_events([variants.DUTY_CYCLE])


def beside(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Other tools over HTTP."""
    yield from _beside(interpreter, effort, OVER_HTTP)


def in_process_beside(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Other tools without a network."""
    yield from _beside(interpreter, effort, IN_PROCESS)


def _beside(interpreter: Interpreter, effort: Effort, work: tuple[str, str]) -> Iterator[Figure]:
    names = [
        EVERYTHING,
        variants.ALL_C_CALLS,
        f"{EMPTY}setprofile",
        peers.VIZTRACER,
        "cProfile",
        "yappi",
        "pyinstrument",
        peers.OPENTELEMETRY,
    ]
    found = _measured(interpreter, effort, work, names)
    for name in filter(found.has, names):
        label = {EVERYTHING: "every Python call, beside other tools"}.get(name, name)
        yield found.row(name, label)


def viztracer(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """A third of what VizTracer costs, on work that it can follow: it stops at the first switch of greenlets."""
    theirs = [peers.VIZTRACER, peers.VIZTRACER_NO_C]
    if not variants.available(peers.VIZTRACER):
        return
    levels = _measured(interpreter, effort, SYNCHRONOUS, [EVERYTHING, *theirs], pairs=2 * PAIRS)
    for peer in theirs:
        yield levels.share_of_peer(EVERYTHING, peer, "every Python call", PEER_SHARE)
    for name in (EVERYTHING, *theirs):
        yield levels.row(name, "every Python call" if name == EVERYTHING else name)


def in_process(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Every level without a network."""
    empty = _empty_hooks(interpreter)
    names = [OWN, variants.ALL_PROBES, variants.PROBES_IN_FLIGHT, EVERYTHING, variants.IN_FLIGHT, *empty]
    levels = _measured(interpreter, effort, IN_PROCESS, names)
    yield levels.row(OWN, at_most=OWN_BOUND.get(interpreter.version, 0.01))
    yield levels.row(variants.PROBES_IN_FLIGHT, at_most=PROBES_BOUND)
    yield levels.row(variants.ALL_PROBES, at_most=PROBES_BOUND)
    yield levels.row(EVERYTHING, "every Python call", at_most=EVERYTHING_BOUND)
    yield levels.above(EVERYTHING, levels.cheapest(empty), "every Python call", EVERYTHING_POINTS)
    yield levels.row(variants.IN_FLIGHT, "every Python call, flight", at_most=EVERYTHING_BOUND)
    for name in empty:
        yield levels.row(name, f"{name} hook")


def each_probe(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """The share of each probe."""
    each = variants.with_each_probe()
    few = Effort(effort.seconds, effort.factor, FEW_PROCESSES)
    levels = _measured(interpreter, few, OVER_HTTP, [OWN, *each], pairs=3)
    for name in each:
        yield levels.share(name, OWN)


def installed(interpreter: Interpreter, effort: Effort) -> Iterator[Figure]:
    """Installed and not started, against not installed; each block is a process."""
    alone = Effort(effort.seconds, effort.factor, processes=1)
    found: Samples = samples(interpreter, "service:installed", alone, executable=interpreter.path, pairs=11)
    control = estimator.ratio(found, CONTROL)
    noise = control.farthest_from(1.0)
    for name, label in (
        ("installed", "installed, not started"),
        ("stopped", "stopped after a recording"),
    ):
        ratio = estimator.ratio(found, name)
        verdict = estimator.indistinguishable(ratio, noise=noise, room=SAME)
        yield Figure(
            f"TaskFlow: {label}", interpreter.version, "as not installed", percent(ratio), percent(control),
            verdict, ratio,
        )  # fmt: skip


def _empty_hooks(interpreter: Interpreter) -> list[str]:
    return [f"{EMPTY}{backend}" for backend in interpreter.backends if backend != "setprofile"]


def _two_windows() -> float:
    from pyscope import c_windows, governor

    return 2 * c_windows.OPEN_NS * c_windows.ASSUMED_SHARE / (BUDGET * governor.C_CALLS) / 1e9
