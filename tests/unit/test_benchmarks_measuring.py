"""What the benchmarks measure with: connections to a real server, other tools, points of the scaling curves."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyscope
from benchmarks import draining, peers, saving, scaling, worker
from benchmarks.connections import Connections, request
from benchmarks.estimator import BASELINE, Samples, excess_share, loss, rate, run_rounds
from benchmarks.workload import InProcessWorkload, SynchronousWorkload

# --- rounds --------------------------------------------------------------------------------------


def test_rounds_end_with_the_time_but_never_before_the_second() -> None:
    def block() -> float:
        time.sleep(0.01)
        return 1.0

    assert len(run_rounds({BASELINE: block}, seed=1, until=time.monotonic() - 1)) == 2
    began = time.monotonic()
    found = run_rounds({BASELINE: block}, seed=1, until=began + 0.3)
    assert len(found) > 2
    assert len(run_rounds({BASELINE: block}, 3, seed=1)) == 3


def test_a_loss_is_of_the_rate_and_not_of_the_time() -> None:
    samples = Samples.of([[{BASELINE: 0.1, "traced": 0.2}] * 3] * 2)
    assert loss(samples, "traced").median == pytest.approx(0.5)
    assert rate(samples, BASELINE).median == pytest.approx(10.0)


def test_a_share_of_a_peers_loss_is_paired_by_round() -> None:
    rows = [{BASELINE: k, "ours": 1.1 * k, "theirs": 1.6 * k} for k in (1.0, 2.0, 5.0)]
    assert excess_share(Samples.of([rows]), "ours", "theirs", 1 / 3).high == pytest.approx(-0.1)
    assert excess_share(Samples.of([rows]), "ours", "theirs", 1 / 12).low == pytest.approx(0.05)


# --- the drain thread -----------------------------------------------------------------------------


def leaf() -> None:
    """Recorded."""


def test_what_the_drain_has_yet_to_do_is_done_and_counted_at_once(tmp_path: Path) -> None:
    assert draining.catch_up() == 0  # nobody records
    with pyscope.record(tmp_path / "run", modules=[__name__], children=False) as recording:
        for _ in range(20_000):
            leaf()
        cpu_ns = draining.catch_up()
        assert recording.figures["events_saved"] > 30_000  # all but the page in hand
        for _ in range(20_000):
            leaf()
        cpu_ns += draining.catch_up()
        assert recording.figures["events_saved"] > 70_000
        assert cpu_ns > 0
    assert draining.catch_up() == 0


# --- connections ---------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[str]:
    """The address of an HTTP server whose paths are the statuses it answers with; /close hangs up."""
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                break
            length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
            body = await reader.readexactly(length)
            path = head.split(" ")[1]
            if path == "/close":
                break
            writer.write(
                f"HTTP/1.1 {path[1:]} Whatever\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
        writer.close()

    started = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{started.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    started.close()
    loop.close()


def test_every_connection_sends_its_requests_and_every_latency_counts(server: str) -> None:
    work = [[request("GET", "/200"), request("POST", "/201", {"a": "b" * 5000})]] * 150
    with Connections(server, 150) as clients:
        answers = clients.send(work)
        again = clients.send(work)
    assert (len(answers.latencies), answers.failed) == (300, 0)
    assert (len(again.latencies), again.failed) == (300, 0)
    assert max(answers.latencies) <= answers.seconds


def test_refusals_and_closed_connections_count_as_failed(server: str) -> None:
    good, refused, closed = request("GET", "/200"), request("GET", "/503"), request("GET", "/close")
    with Connections(server, 3) as clients:
        answers = clients.send([[good, good], [good, refused], [closed, good]])
    assert answers.failed == 3
    assert len(answers.latencies) == 4


def test_a_server_that_is_away_is_an_error_and_not_a_figure() -> None:
    with pytest.raises(OSError), Connections("http://127.0.0.1:9", 1):
        pass


# --- other tools ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in peers.SWITCHES if name != peers.OPENTELEMETRY])
def test_a_peer_leaves_the_process_as_it_was(name: str, tmp_path: Path) -> None:
    peers.SWITCHES[name]()()  # what its import changes is not meant
    found = _state()
    with SynchronousWorkload(tmp_path) as workload:
        off = peers.SWITCHES[name]()
        workload.request_pairs(1)
        figures = off()
    assert figures.get("stopped by itself", 0.0) == 0.0
    assert _state() == found


def _state() -> tuple[object, ...]:
    return sys.getprofile(), threading._profile_hook, warnings.filters[:], warnings.showwarning  # type: ignore[attr-defined]


def test_viztracers_stop_at_a_greenlet_is_noticed(tmp_path: Path) -> None:
    with InProcessWorkload(tmp_path) as workload:
        workload.request_pair()
        off = peers.SWITCHES[peers.VIZTRACER]()
        workload.request_pair()
        assert off() == {"stopped by itself": 1.0}


def test_opentelemetry_sees_requests_and_statements_while_it_is_on(tmp_path: Path) -> None:
    with InProcessWorkload(tmp_path) as workload:
        app = workload.app
        build = app.build_middleware_stack
        counts = []
        for _ in range(2):
            off = peers.SWITCHES[peers.OPENTELEMETRY]()
            workload.request_pair()
            workload.request_pair()
            counts.append(off()["events"])
            workload.request_pair()
        assert app.build_middleware_stack == build
    # Twice two pairs of requests and their statements; those of the pair between, unseen, would be half as many.
    assert min(counts) > 100
    assert max(counts) < 1.3 * min(counts)


# --- scaling and saving --------------------------------------------------------------------------


def test_a_point_of_a_curve_records_all_of_its_events() -> None:
    found = worker.run(
        sys.executable, "benchmarks.scaling:point", axis="code objects", size=1000, until=time.monotonic()
    )
    assert len(found["costs"]) == 2
    assert found["events"] + found["dropped"] == pytest.approx(2 * scaling.GENERATED_CALLS, rel=0.01)
    assert found["calls"] == pytest.approx(scaling.GENERATED_CALLS, rel=0.01)
    assert found["memory"] > 0
    assert found["load"] > 0
    assert 0 < found["bytes"] < 16


def test_both_tools_save_and_load_every_call() -> None:
    for tool in saving.TOOLS:
        found = worker.run(sys.executable, "benchmarks.saving:one", tool=tool, calls=5_000)
        assert set(found) == {"save", "load", "report", "bytes"}
        assert all(value > 0 for value in found.values())


def test_a_measurement_that_fails_says_what_it_wrote() -> None:
    with pytest.raises(worker.WorkerFailed, match="no_such_axis"):
        worker.run(sys.executable, "benchmarks.scaling:point", axis="no_such_axis", size=1, until=0.0)
