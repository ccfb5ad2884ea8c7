"""The reader of living recordings: it sees each event once, and everything that a reader of the whole file sees."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from recorded import Recorded

import pyscope
from pyscope.codec import preferred
from pyscope.errors import NotARecording, VersionMismatch
from pyscope.events.scope import SCOPE_BEGIN, SCOPE_END
from pyscope.events.sql import STATEMENT
from pyscope.live import file_tail
from pyscope.live.follow import Follower
from pyscope.live.ring_pages import RingPages
from pyscope.live.slices import Slicer
from pyscope.live.window import Window

DEADLINE = 60.0


class Reading:
    """Follows a recording as the dashboard does, and counts what it is told."""

    def __init__(self, path: Path | str, *, ring: bool = False, history: int = 16 << 20) -> None:
        codec = preferred()
        self.follower = Follower(str(path), codec, ring=ring, history=history)
        self.window = Window(codec)
        self._slicer = Slicer(codec)
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.statements: Counter[int] = Counter()
        self.names: set[str] = set()
        self.places: set[str] = set()
        self.events = self.calls = 0

    def look(self) -> None:
        changed = {}
        for process in self.follower.look():
            chunks, process.fresh = list(process.fresh.values()), {}
            changed[process.number] = chunks
            self.window.take(process, chunks, time.time_ns())
        news = self._slicer.slice(self.follower.processes, changed)
        self.events += news.events
        self.calls += news.calls
        for event in news.probe_events(SCOPE_BEGIN).records():
            self.begun[event.id] += 1
            self.names.add(event.name)
        self.ended.update(event.id for event in news.probe_events(SCOPE_END).records())
        for event in news.probe_events(STATEMENT).records():
            self.statements[event.number] += 1
            self.places.update(location.function for location in event.stack)

    def look_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            told = f"{len(self.ended)} scopes and {self.events} events were seen"
            assert time.monotonic() < end, f"this did not come to be seen; {told}"
            self.look()
            time.sleep(random.uniform(0, 0.01))
        self.look()

    def close(self) -> None:
        self.follower.close()


def test_each_event_is_seen_once_while_threads_fill_pages_and_the_file_takes_them_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path, ring_mb=2)  # a busy machine may keep the drain waiting: nothing is to be lost
        reading = Reading(path)
        for _ in range(6):
            program.tell("threading.Thread(target=requests, args=(300, 3)).start()")
            reading.look()
        reading.look_until(lambda: len(reading.ended) == 6 * 3 * 300)
        program.end()
        reading.look_until(lambda: not reading.follower.alive)
    trace = pyscope.load(path)
    assert not [loss for loss in trace.losses if loss.reason == "ring_full"]
    assert set(reading.begun.values()) == set(reading.ended.values()) == {1}
    assert set(reading.ended) == set(trace.probe_events(SCOPE_END)["id"].tolist())
    assert sorted(reading.statements) == sorted(trace.probe_events(STATEMENT)["number"].tolist())
    assert set(reading.statements.values()) == {1}
    assert reading.names == {"GET /things"}
    assert "one_request" in reading.places
    assert reading.events == sum(process.events for process in trace.processes)
    assert reading.calls == len(trace.calls)
    assert reading.follower.processes[0].state == "stopped"
    reading.close()


def test_a_flight_recorder_is_followed_in_its_ring_until_it_stops(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(None, mode="flight", ring_mb=8)
        ring = program.tell("pyscope.recorder.active().ring_path")
        reading = Reading(ring, ring=True)
        for _ in range(5):
            program.tell("requests(100, 2)")
            reading.look()
        reading.look_until(lambda: len(reading.ended) == 1000)
        assert set(reading.ended.values()) == {1}
        program.tell("pyscope.stop()")
        reading.look_until(lambda: not reading.follower.alive)
        assert reading.follower.processes[0].state == "stopped"
    reading.close()


def test_a_killed_process_is_followed_to_its_last_event(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        reading = Reading(path)
        program.tell("requests(50, 1)")
        reading.look()
        last = program.tell("one_request('GET /last')")
        program.kill()
        reading.look_until(lambda: not reading.follower.alive)
        assert reading.ended[int(last)] == 1
        assert len(reading.ended) == 51
        assert reading.follower.processes[0].state == "killed"
    reading.close()


def test_children_are_followed_while_they_run_and_once_their_parts_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        reading = Reading(path)
        program.tell("one_request()")
        program.tell("fork_and_work(200)")
        reading.look_until(lambda: len(reading.ended) == 201)
        program.end()
        reading.look_until(lambda: not reading.follower.alive)
        for _ in range(20):
            reading.look()  # the part is in the file now, and gone
    assert not list(tmp_path.glob("*.part"))
    assert set(reading.ended.values()) == {1}
    assert len(reading.follower.processes) == 2
    assert reading.names == {"GET /things", "GET /child"}
    reading.close()


def test_parts_of_another_recording_and_pipes_are_no_children(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with pyscope.record(tmp_path / "other.pyscope", modules=[__name__]):
        pass
    with Recorded(tmp_path) as program:
        program.record(path)
        (tmp_path / "other.pyscope").rename(tmp_path / "run.pyscope.4711.part")
        os.mkfifo(tmp_path / "run.pyscope.4712.part")
        reading = Reading(path)
        program.tell("one_request()")
        reading.look_until(lambda: len(reading.ended) == 1)
        assert len(reading.follower.processes) == 1
    reading.close()


def test_a_pipe_among_the_rings_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pyscope-0-1-a.ring")
    with pytest.raises(OSError, match="Illegal seek"):
        RingPages(str(tmp_path / "pyscope-0-1-a.ring"), preferred())


def test_the_window_makes_the_trace_that_the_file_makes(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        reading = Reading(path)
        program.tell("requests(40, 2)")
        program.tell("pyscope.stop()")
        reading.look_until(lambda: not reading.follower.alive)
        kept = reading.window.snapshot(str(path), reading.follower.processes).trace()
        saved = pyscope.load(path)
        assert len(kept.calls) == len(saved.calls)
        assert kept.scopes["id"].tolist() == saved.scopes["id"].tolist()
        assert {(f.qualname, f.calls) for f in kept.functions} == {
            (f.qualname, f.calls) for f in saved.functions
        }
    reading.close()


def test_the_window_is_bounded_and_its_trace_says_nothing_of_missing_pages(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        reading = Reading(path)
        reading.window = Window(preferred(), most_bytes=100_000)
        for _ in range(10):
            program.tell("requests(300, 2)")
            reading.look()
        snapshot = reading.window.snapshot(str(path), reading.follower.processes)
        assert sum(len(chunk.data) for _, chunks in snapshot.records for chunk in chunks) <= 100_000
        trace = snapshot.trace()
        assert 0 < len(trace.scopes) < 6000
        assert trace.start_ns < snapshot.since_ns <= trace.scopes["start_ns"].max()
        assert not [loss.reason for loss in trace.losses if loss.reason == "missing_pages"]
    reading.close()


def test_of_a_long_recording_the_begin_and_the_end_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_tail, "_STEP", 20_000)
    monkeypatch.setattr(file_tail, "_HEAD_BYTES", 30_000)
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        first = int(program.tell("one_request('GET /first')"))
        for _ in range(8):
            program.tell("[work(900) for _ in range(60)] and None")
            time.sleep(0.1)  # a segment each
        last = int(program.tell("one_request('GET /last')"))
        program.end()
    part = Reading(path, history=50_000)
    whole = Reading(path)
    for reading in (part, whole):
        reading.look()
        assert reading.ended[first] == reading.ended[last] == 1
        kept = reading.window.snapshot(str(path), reading.follower.processes)
        assert (kept.since_ns > 0) == (reading is part)
        reading.close()
    assert part.events < whole.events


def test_names_that_came_after_the_table_began_anew_are_found(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path, ring_mb=1)
        reading = Reading(path)
        # The ring's table has room for some 540 of these: it begins anew twice.
        for block in range(12):
            program.tell(
                f"[one_request('GET /name/{block}/' + 'x' * 200 + str(n)) for n in range(100)] and None"
            )
            reading.look()
            time.sleep(0.08)
        reading.look_until(lambda: len(reading.ended) == 12 * 100)
    saved = {event.name for event in pyscope.load(path).probe_events(SCOPE_BEGIN).records()}
    assert reading.names == saved
    assert len(saved) > 800
    reading.close()


def test_a_file_that_is_none_or_of_another_version_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "text.pyscope").write_text("this is not it")
    with pytest.raises(NotARecording, match="is not a recording"):
        Follower(str(tmp_path / "text.pyscope"), preferred(), ring=False)
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        program.end()
    data = bytearray((tmp_path / "run.pyscope").read_bytes())
    data[6] = 99
    (tmp_path / "later.pyscope").write_bytes(data)
    with pytest.raises(VersionMismatch, match="version 99"):
        Follower(str(tmp_path / "later.pyscope"), preferred(), ring=False)


def test_a_file_that_grows_in_pieces_of_any_size_is_read_as_a_whole(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        program.tell("requests(400, 2)")
        program.end()
    data = (tmp_path / "run.pyscope").read_bytes()
    growing = tmp_path / "growing.pyscope"
    growing.write_bytes(data[:8192])
    reading = Reading(growing)
    with growing.open("ab") as file:
        at = 8192
        while at < len(data):
            step = random.choice((1, 7, 100, 5000, 60_000))
            file.write(data[at : at + step])
            file.flush()
            at += step
            reading.look()
    reading.look()
    assert len(reading.ended) == 800
    assert set(reading.ended.values()) == {1}
    reading.close()


def test_a_block_that_comes_very_slowly_is_read_as_long_as_it_grows(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(tmp_path / "run.pyscope")
        program.tell("requests(40, 2)")
        program.end()
    data = (tmp_path / "run.pyscope").read_bytes()
    growing = tmp_path / "growing.pyscope"
    slowly = len(data) - 200  # of the last block, a byte a look
    growing.write_bytes(data[:slowly])
    reading = Reading(growing)
    with growing.open("ab") as file:
        for at in range(slowly, len(data)):
            file.write(data[at : at + 1])
            file.flush()
            reading.look()
    assert len(reading.ended) == 80
    reading.close()


def test_the_traced_process_opens_nothing_and_notices_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.pyscope"
    with Recorded(tmp_path) as program:
        program.record(path)
        before = program.tell("sorted(os.listdir('/proc/self/fd')), threading.active_count()")
        reading = Reading(path)
        reading.look()
        after = program.tell("sorted(os.listdir('/proc/self/fd')), threading.active_count()")
        assert before == after
    reading.close()


def test_what_is_read_lies_where_the_process_put_it_and_stays(tmp_path: Path) -> None:
    with Recorded(tmp_path) as program:
        program.record(None, mode="flight")
        ring = program.tell("pyscope.recorder.active().ring_path")
        copy = tmp_path / os.path.basename(ring)
        shutil.copy(ring, copy)
        reading = Reading(ring, ring=True)
        reading.look()
        reading.close()
        assert os.path.exists(ring)
        assert copy.stat().st_size == os.path.getsize(ring)
