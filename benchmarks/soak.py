"""`make soak`: TaskFlow recorded under load for ten minutes; memory, file handles and threads must be flat.

The service runs as a user would run it, under `pyscope run` in flight mode with every probe, and is driven over HTTP;
beside it a second one runs without PyScope, driven alike. Each second a sample is taken of each process from outside.
After the first tenth of the time (a minute of ten) nothing may grow that does not grow without PyScope: the middle of
the last fifth is compared with the middle of the second fifth. TaskFlow itself grows a little for as long as its
database does: each of its connections keeps pages of it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from taskflow.data.database import Database
from taskflow.data.seeds import seed
from taskflow.load import LoadPlan, drive
from taskflow.process import ServerProcess
from taskflow.settings import Settings

SECONDS: Final = 600.0
PROJECTS: Final = 20
TASKS: Final = 2000
ROWS: Final = 10
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """The service at one moment: seconds since the begin, bytes of memory of its own, handles, threads."""

    at: float
    memory: int
    handles: int
    threads: int


@dataclass(frozen=True, slots=True)
class Growth:
    """How a figure has grown, what it may, and in which unit. `alone`: how it has grown without PyScope."""

    name: str
    before: float
    after: float
    allowed: float
    unit: str
    alone: float = 0.0

    @property
    def flat(self) -> bool:
        """Whether it has stayed where it was, but for what grows without PyScope too."""
        return self.after - self.before - max(0.0, self.alone) <= self.allowed


def soak(folder: Path, seconds: float, recorded: bool = True) -> tuple[list[Sample], int, int]:
    """Drives the service for `seconds`; its samples, the requests made, and those that failed."""
    url = f"sqlite:///{folder}/taskflow.db"
    asyncio.run(_fill(url))
    launcher = [sys.executable]
    if recorded:
        launcher += [
            "-m",
            "pyscope",
            "run",
            "--mode",
            "flight",
            "--modules",
            "taskflow.*",
            "--probes",
            "auto",
        ]
        launcher += ["--ring-mb", "16", "-o", str(folder / "soak.pyscope")]
    samples: list[Sample] = []
    # With a heap for each thread, glibc's habit, both services grow thrice as fast.
    environment = {"DATABASE_URL": url, "PYSCOPE_RING_DIR": str(folder), "MALLOC_ARENA_MAX": "1"}
    with ServerProcess(folder, environment, launcher, ready_seconds=120.0, stop_seconds=60.0) as server:
        process = psutil.Process(server.pid)
        ended = threading.Event()
        sampler = threading.Thread(target=_sample, args=(process, samples, ended))
        sampler.start()
        try:
            report = drive(LoadPlan(server.url, seconds=seconds, concurrency=4))
        finally:
            ended.set()
            sampler.join()
    return samples, report.requests, report.errors


async def _fill(url: str) -> None:
    database = Database(Settings(database_url=url))
    try:
        await seed(database, PROJECTS, TASKS)
    finally:
        await database.close()


def _sample(process: psutil.Process, samples: list[Sample], ended: threading.Event) -> None:
    began = time.monotonic()
    while not ended.wait(1.0):
        own = process.memory_info()
        # Shared memory is the ring, which is allocated in full at the start.
        memory = own.rss - own.shared
        samples.append(Sample(time.monotonic() - began, memory, process.num_fds(), process.num_threads()))


def growth(samples: Sequence[Sample], alone: Sequence[Sample] = ()) -> list[Growth]:
    """The second fifth of the time beside the last, and the same of the service `alone`; ValueError for fewer than ten
    samples."""
    found = []
    for name, unit, divisor, allowed in (
        ("memory", "MiB", MIB, lambda before: max(4.0, before * 0.05)),
        ("handles", "", 1, lambda _: 4),
        ("threads", "", 1, lambda _: 2),
    ):
        before, after = (middle / divisor for middle in _middles(samples, name))
        others = [middle / divisor for middle in _middles(alone, name)] if alone else [0.0, 0.0]
        found.append(Growth(name, before, after, allowed(before), unit, others[1] - others[0]))
    return found


def _middles(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    if len(samples) < 10:
        raise ValueError(f"{len(samples)} samples are too few to compare")
    fifth = len(samples) // 5
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]

    def middle(part: Sequence[Sample]) -> float:
        return statistics.median(getattr(sample, name) for sample in part)

    return middle(early), middle(late)


def _in_own_folder(seconds: float, recorded: bool) -> tuple[list[Sample], int, int]:
    with tempfile.TemporaryDirectory(prefix="pyscope-soak-") as folder:
        return soak(Path(folder), seconds, recorded)


def main(arguments: Sequence[str]) -> int:
    """Prints the samples and the verdict; the exit code is 1 if something grew or a request failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args(arguments)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(_in_own_folder, options.seconds, recorded) for recorded in (True, False)]
        (samples, requests, errors), (alone, other_requests, other_errors) = (
            each.result() for each in running
        )
    print(f"{'seconds':>8}{'memory MiB':>12}{'handles':>9}{'threads':>9}   without PyScope")
    step = max(1, len(samples) // ROWS)
    for sample, other in zip(samples[::step], alone[::step], strict=False):
        print(f"{sample.at:>8.0f}{_row(sample)}   {_row(other)}")
    print(f"{requests} and {other_requests} requests, {errors} and {other_errors} errors")
    grown = growth(samples, alone)
    for each in grown:
        verdict = "flat" if each.flat else "GROWN"
        print(
            f"{each.name:<8} {each.before:.1f} -> {each.after:.1f} {each.unit}, without PyScope {each.alone:+.1f} "
            f"(up to +{each.allowed:.1f} beyond that): {verdict}"
        )
    return 0 if errors + other_errors == 0 and all(each.flat for each in grown) else 1


def _row(sample: Sample) -> str:
    return f"{sample.memory / MIB:>12.1f}{sample.handles:>9}{sample.threads:>9}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
