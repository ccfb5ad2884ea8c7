"""The resources probe: series and peaks of memory, CPU and mailboxes, at little cost and with nothing left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pykka
import pytest

import pyscope
from pyscope import probes
from pyscope.analysis import resources as analysis
from pyscope.analysis.ranking import rank
from pyscope.findings import ResourceMetrics
from pyscope.probes import resources
from tests.unit.watching import until, watching

pytestmark = pytest.mark.filterwarnings("ignore:modules=")

MB = 1024 * 1024


def burn(until_ns: int) -> int:
    """Uses CPU time of the thread, however busy the machine is."""
    number = 0
    end = time.thread_time_ns() + until_ns
    while time.thread_time_ns() < end:
        number += sum(range(100))
    return number


def samples(watch: Any) -> int:
    count: int = watch.probe("resources")._count
    return count


def test_memory_that_came_and_went_between_two_samples_is_in_the_peak(tmp_path: Path) -> None:
    np.ones(200 * MB, np.uint8)  # an earlier peak that is not to count
    gc.collect()
    with watching(tmp_path, "resources") as watch:
        sampling = watch.probe("resources")._sampling
        with sampling:  # so that no sample falls between
            block = np.ones(64 * MB, np.uint8)
            del block
    metrics = analysis.find(watch.trace)
    mine = metrics.by_process[os.getpid()]
    assert mine.peak_is_exact
    highest = max(sample.value for sample in mine.memory_samples)
    assert highest + 40 * MB < mine.peak_memory < highest + 150 * MB
    assert metrics.peak_memory >= mine.peak_memory


def test_a_peak_that_cannot_be_reset_is_the_highest_sample_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.ones(200 * MB, np.uint8)
    monkeypatch.setattr(resources, "_reset_peak", lambda: False)
    with watching(tmp_path, "resources") as watch:
        before = samples(watch)
        until(lambda: samples(watch) > before + 2, "samples")
    metrics = analysis.find(watch.trace)
    mine = metrics.by_process[os.getpid()]
    assert not mine.peak_is_exact
    assert mine.peak_memory == max(sample.value for sample in mine.memory_samples)


def test_a_second_of_work_has_more_than_ten_samples_and_its_cpu_time_is_seen(tmp_path: Path) -> None:
    with watching(tmp_path, "resources") as watch:
        watch.probe("resources").children = False  # another test's browser has hundreds of threads to look at
        begun = time.process_time_ns()
        burn(1_000_000_000)
        used = time.process_time_ns() - begun
    metrics = analysis.find(watch.trace)
    assert len(metrics.cpu_usage_samples) > 10
    assert len(metrics.memory_samples) == len(metrics.cpu_usage_samples)
    times = [sample.time_ns for sample in metrics.cpu_usage_samples]
    assert times == sorted(times)
    events = watch.trace.probe_events(resources.PROCESS_SAMPLE)
    seen = int(events["cpu_ns"].sum())
    assert used * 0.8 <= seen
    assert max(sample.value for sample in metrics.cpu_usage_samples) > 5
    mine = metrics.by_process[os.getpid()]
    assert (
        max(mine.cpu_by_thread, key=lambda name: mine.cpu_by_thread[name]) == threading.current_thread().name
    )


def grow(megabytes: int, connection: Any) -> None:
    block = np.ones(megabytes * MB, np.uint8)
    connection.send(int(block[0]))
    connection.recv()


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_child_processes_are_sampled_and_leave_their_peaks(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    with watching(tmp_path, "resources") as watch:
        probe = watch.probe("resources")
        child = multiprocessing.get_context("spawn").Process(target=grow, args=(96, there))
        child.start()
        assert here.recv() == 1
        until(lambda: child.pid in probe._processes, "the child's discovery")
        before = samples(watch)
        until(lambda: samples(watch) > before + 2, "samples of the child")
        here.send(None)
        child.join()
        until(lambda: child.pid not in probe._processes, "the end of the child's samples")
        assert probe.faults == 0
    assert child.pid is not None
    found = analysis.find(watch.trace).by_process[child.pid]
    assert found.peak_memory > 96 * MB
    assert found.memory_samples
    assert "python" in found.name
    ranking = rank(watch.trace)
    assert ranking is not None
    assert ranking.processes >= 2


def test_children_can_be_left_out_and_a_process_id_be_asked_for(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with watching(tmp_path, "resources") as watch:
            probe = watch.probe("resources")
            probe.children = False
            before = samples(watch)
            until(lambda: samples(watch) > before + resources.SLOW + 1, "a look at the children")
            known = set(probe._processes)
            probe.watch(child.pid)
            until(lambda: child.pid in probe._processes, "the declared process")
            before = samples(watch)
            until(lambda: samples(watch) > before + 2, "samples of it")
            with pytest.raises(ProcessLookupError):
                probe.watch(2**30)
        assert os.getpid() in known
        assert child.pid in analysis.find(watch.trace).by_process
    finally:
        child.communicate(b"\n")


def test_mailboxes_of_actors_and_queues_are_measured(tmp_path: Path) -> None:
    gate = threading.Event()

    class Slow(pykka.ThreadingActor):
        def on_receive(self, message: object) -> None:
            assert gate.wait(30)

    class Hostile:
        @property
        def message_queue_length(self) -> int:
            raise RuntimeError("mine")

    slow = Slow.start()
    waiting: queue.Queue[int] = queue.Queue()
    hostile = Hostile()
    try:
        with watching(tmp_path, "resources") as watch:
            probe = watch.probe("resources")
            for target in (slow.proxy(), waiting, hostile, object(), Slow):
                probe.watch(target)
            for number in range(5):
                slow.tell(number)
                waiting.put(number)
            before = samples(watch)
            until(lambda: samples(watch) > before + 2, "samples")
            assert probe.faults == 0
    finally:
        gate.set()
        slow.stop()
    metrics = analysis.find(watch.trace)
    assert {key for key in metrics.by_process if isinstance(key, str)} == {"Slow", "Queue"}
    lengths = [sample.value for sample in metrics.by_process["Slow"].message_queue_length_samples]
    assert max(lengths) in (4, 5)
    assert max(sample.value for sample in metrics.by_process["Queue"].message_queue_length_samples) == 5
    assert max(sample.value for sample in metrics.message_queue_length_samples) == 5


def test_what_was_sampled_before_does_not_count(tmp_path: Path) -> None:
    with watching(tmp_path, "resources") as watch:
        before = samples(watch)
        until(lambda: samples(watch) > before + 2, "samples")
        since = time.time_ns()
        before = samples(watch)
        until(lambda: samples(watch) > before + 2, "samples")
    later = analysis.find(watch.trace, since=since)
    whole = analysis.find(watch.trace)
    assert 0 < len(later.cpu_usage_samples) < len(whole.cpu_usage_samples)


def test_a_trace_without_samples_has_empty_metrics(tmp_path: Path) -> None:
    with pyscope.record(tmp_path / "run.pyscope", modules=["tests.nothing"], ring_mb=8):
        pass
    metrics = analysis.find(pyscope.load(tmp_path / "run.pyscope"))
    assert metrics == ResourceMetrics(0, False, [], [], [], {})


def test_removal_ends_the_thread_and_closes_every_file() -> None:
    before = set(os.listdir("/proc/self/fd"))
    held = probes.acquire(["resources"])
    probe: Any = probes.installed("resources")
    thread = probe._thread
    assert thread.alive
    probes.release(held)
    assert not thread.alive
    assert set(os.listdir("/proc/self/fd")) <= before
