"""The plan of a full run: every group in order of worth, with its share of time, in little more than an hour.

What the targets are judged by comes first, so that a run that is cut short has it. Python 3.12, or else
the newest interpreter, is measured in full; on the others the levels that have targets are.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.curve import Curve
from benchmarks.effort import Effort
from benchmarks.figure import Figure
from benchmarks.groups import load, reading, recording, scaling, service
from benchmarks.interpreters import Interpreter

Measure = Callable[[Interpreter, Effort], Iterator[Figure] | Iterator[Figure | Curve]]

PREFERRED: Final = "3.12"
ASKED: Final = ("3.11", "3.12", "3.13")  # what the document is about, whatever this machine has
MOST_MINUTES: Final = 70


class On(enum.Enum):
    """The interpreters that a step is for."""

    FIRST = enum.auto()
    OTHERS = enum.auto()
    ALL = enum.auto()


@dataclass(frozen=True, slots=True)
class Step:
    """A group on some interpreters; `seconds` is its share on each of them."""

    group: str
    on: On
    seconds: float


@dataclass(frozen=True, slots=True)
class Group:
    """A group of figures, the section of the document in which it stands, and what it measures."""

    measure: Measure
    section: str
    long: bool = False  # not part of a full run


SERVICE: Final = "TaskFlow over HTTP"
IN_PROCESS: Final = "TaskFlow in process"
LOAD: Final = "TaskFlow under load"
EVENT: Final = "An event"
PEERS: Final = "Beside other tools"
READING: Final = "Reading a recording"
SCALING: Final = "Scaling"

GROUPS: Final[dict[str, Group]] = {
    "own": Group(service.own, SERVICE),
    "probes": Group(service.probes, SERVICE),
    "everything": Group(service.everything, SERVICE),
    "budget": Group(service.budgeted, SERVICE),
    "duty-cycle": Group(service.duty_cycle, SERVICE),
    "installed": Group(service.installed, SERVICE),
    "each-probe": Group(service.each_probe, SERVICE),
    "in-process": Group(service.in_process, IN_PROCESS),
    "throughput": Group(load.throughput, LOAD),
    "crowd": Group(load.crowd, LOAD),
    "viztracer": Group(service.viztracer, PEERS),
    "peers": Group(service.beside, PEERS),
    "peers-in-process": Group(service.in_process_beside, PEERS),
    "save": Group(reading.save, PEERS),
    "event": Group(recording.event, EVENT),
    "instructions": Group(recording.counted, EVENT),
    "size": Group(recording.size, EVENT),
    "memory": Group(recording.memory, EVENT),
    "decode": Group(reading.decode, READING),
    "report": Group(reading.report, READING),
    "scaling": Group(scaling.scaling, SCALING),
    "scaling-long": Group(scaling.long_scaling, SCALING, long=True),
}

PLAN: Final = (
    Step("own", On.FIRST, 240),
    Step("probes", On.FIRST, 360),
    Step("everything", On.FIRST, 220),
    Step("duty-cycle", On.FIRST, 200),
    Step("own", On.OTHERS, 190),
    Step("everything", On.OTHERS, 120),
    Step("event", On.ALL, 65),
    Step("viztracer", On.FIRST, 80),
    Step("budget", On.FIRST, 160),
    Step("crowd", On.FIRST, 320),
    Step("throughput", On.FIRST, 110),
    Step("peers", On.FIRST, 130),
    Step("installed", On.FIRST, 120),
    Step("installed", On.OTHERS, 60),
    Step("save", On.FIRST, 60),
    Step("scaling", On.FIRST, 110),
    Step("memory", On.FIRST, 40),
    Step("report", On.FIRST, 40),
    Step("in-process", On.FIRST, 120),
    Step("decode", On.FIRST, 80),
    Step("size", On.FIRST, 30),
    Step("instructions", On.FIRST, 210),
    Step("peers-in-process", On.FIRST, 80),
    Step("each-probe", On.FIRST, 90),
    Step("scaling-long", On.FIRST, 300),
)


def schedule(
    versions: Sequence[str], only: Sequence[str] = (), *, long: bool = False
) -> Iterator[tuple[Step, str]]:
    """The steps in order with the Python version of each; `only` these groups, with `long` also the long ones."""
    first, others = _roles(versions)
    chosen = {On.FIRST: [first], On.OTHERS: others, On.ALL: [first, *others]}
    for on, steps in itertools.groupby(PLAN, key=lambda step: step.on):
        wanted = [step for step in steps if _wanted(step, only, long)]
        for version in chosen[on]:
            for step in wanted:
                yield step, version


def _wanted(step: Step, only: Sequence[str], long: bool) -> bool:
    return step.group in only if only else long or not GROUPS[step.group].long


def _roles(versions: Sequence[str]) -> tuple[str, list[str]]:
    newest_first = sorted(versions, key=lambda version: int(version.split(".")[1]), reverse=True)
    first = PREFERRED if PREFERRED in newest_first else newest_first[0]
    return first, [version for version in newest_first if version != first]
