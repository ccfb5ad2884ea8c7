"""What probes emit comes out of the trace as it went in, with the place, call and scope that it belongs to."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyscope
from pyscope import emitter
from pyscope.events import EventType
from pyscope.fallback import codec as twin
from pyscope.recording import open_recording
from pyscope.trace import Trace

BACKENDS = ["frame", "setprofile", "python"] + (["monitoring"] if sys.version_info >= (3, 12) else [])
NOTE = EventType(60001, "note", "number name:string stack:stack first:text second:text")
OWN = [__name__]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def note(number: int = 0, first: str = "", second: str = "") -> None:
    emitter.emit(NOTE.kind, number, emitter.intern(f"name {number}"), emitter.stack(), first, second)


def outer(number: int) -> None:
    note(number)


def record(path: Path, backend: str, body: object) -> Trace:
    with pyscope.record(path, modules=OWN, backend=backend):
        body()  # type: ignore[operator]
    return pyscope.load(path)


def test_an_event_comes_out_with_its_fields_call_and_stack(tmp_path: Path, backend: str) -> None:
    trace = record(tmp_path / "run", backend, lambda: outer(7))
    [row] = trace.probe_events(NOTE).records()
    assert (row.number, row.name, row.first, row.second) == (7, "name 7", "", "")
    assert [location.function for location in row.stack[:2]] == ["note", "outer"]
    assert row.stack[0].file == __file__
    assert row.stack[0].line == note.__code__.co_firstlineno + 1
    call = trace.call(row.call)
    assert (call.function, call.parent and call.parent.function) == ("note", "outer")
    assert call.start_ns <= row.time_ns <= call.start_ns + call.duration_ns
    assert trace.threads[row.thread].name == threading.current_thread().name


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (True, 1),
        (None, 0),
        (2.9, 2),
        (float("nan"), 0),
        (-(1 << 63), -(1 << 63)),
        ((1 << 63) - 1, (1 << 63) - 1),
        (object(), 0),
        (float("inf"), 9_200_000_000_000_000_000),
    ],
)
def test_numbers_of_every_kind_are_kept_or_become_zero(
    tmp_path: Path, backend: str, given: object, found: int
) -> None:
    trace = record(tmp_path / "run", backend, lambda: emitter.emit(NOTE.kind, given, 0, 0, "", ""))
    assert trace.probe_events(NOTE)["number"].tolist() == [found]


def test_a_recording_counts_its_own_faults_and_says_where_they_arose(tmp_path: Path) -> None:
    with pyscope.record(tmp_path / "run", modules=OWN) as first:
        emitter.emit(NOTE.kind, object())
    with pyscope.record(tmp_path / "other", modules=OWN) as second:
        emitter.emit(NOTE.kind, 1)
    assert first.figures["faults"] == 1
    assert first.figures["fault_notes"][0].startswith("a bad value")
    assert (second.figures["faults"], second.figures["fault_notes"]) == (0, [])


def test_texts_are_cut_to_what_fits_and_never_in_the_middle_of_a_character(
    tmp_path: Path, backend: str
) -> None:
    trace = record(tmp_path / "run", backend, lambda: note(1, "é" * 5000, "lost"))
    events = trace.probe_events(NOTE)
    assert set(events["first"][0]) == {"é"}
    assert 2000 < len(events["first"][0]) < 2050
    assert events["second"] == [""]
    surrogate = record(tmp_path / "other", backend, lambda: note(1, "a\udcffb", "zero\0 and more"))
    assert surrogate.probe_events(NOTE)["first"] == ["a?b"]
    assert surrogate.probe_events(NOTE)["second"] == ["zero\0 and more"]


def test_an_event_belongs_to_its_task_and_scope(tmp_path: Path, backend: str) -> None:
    async def work(number: int) -> None:
        emitter.scope.set(100 + number)
        for _ in range(3):
            await asyncio.sleep(0)
            note(number)

    async def all_of_them() -> None:
        await asyncio.gather(*(asyncio.create_task(work(i), name=f"work {i}") for i in range(5)))

    trace = record(tmp_path / "run", backend, lambda: asyncio.run(all_of_them()))
    rows = list(trace.probe_events(NOTE).records())
    assert len(rows) == 15
    for row in rows:
        assert trace.contexts[row.context].name == f"work {row.number}"
        assert row.scope == 100 + row.number
    assert emitter.scope.get() == 0


def test_tasks_of_code_that_is_not_recorded_are_told_apart(tmp_path: Path, backend: str) -> None:
    # One after another, so that their contexts stand at the same addresses.
    async def work(number: int) -> None:
        emitter.emit(NOTE.kind, number, 0, 0, "", "")

    async def one_by_one() -> None:
        for number in range(10):
            await asyncio.create_task(work(number), name=f"work {number}")

    with pyscope.record(tmp_path / "run", modules=["pyscope.nothing"], backend=backend):
        asyncio.run(one_by_one())
    trace = pyscope.load(tmp_path / "run")
    rows = list(trace.probe_events(NOTE).records())
    assert [trace.contexts[row.context].name for row in rows] == [f"work {i}" for i in range(10)]
    assert [row.call for row in rows] == [-1] * 10


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({"modules": [__name__]}, False),
        ({"modules": [__name__, "*"]}, False),
        ({"modules": [__name__, "json.*"]}, True),
        ({"modules": [__name__, "json.*"], "exclude": ["json.encoder"]}, False),
        ({"modules": [__name__], "exclude": ["nothing"]}, False),  # what was the own before is not for ever
    ],
)
def test_a_library_that_is_named_counts_as_the_users_own_code(
    tmp_path: Path, backend: str, settings: dict[str, Any], own: bool
) -> None:
    def write(value: object) -> str:
        note(1)
        return ""

    with pyscope.record(tmp_path / "run", backend=backend, **settings):
        json.dumps([object()], indent=1, default=write)
    [row] = pyscope.load(tmp_path / "run").probe_events(NOTE).records()
    places = [location.function for location in row.stack]
    assert places[0] == "note"
    assert ("JSONEncoder.encode" in places) == own


def test_a_stack_crosses_from_a_greenlet_to_its_parent(tmp_path: Path, backend: str) -> None:
    import greenlet

    def inside() -> None:
        note(1)

    def around() -> None:
        greenlet.greenlet(inside).switch()

    trace = record(tmp_path / "run", backend, around)
    [row] = trace.probe_events(NOTE).records()
    names = [location.function.rpartition(".")[2] for location in row.stack]
    assert names[:3] == ["note", "inside", "around"]


def test_events_of_many_threads_are_all_there_and_in_order(tmp_path: Path, backend: str) -> None:
    def work(number: int) -> None:
        for i in range(200):
            note(number * 1000 + i)

    def all_of_them() -> None:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    trace = record(tmp_path / "run", backend, all_of_them)
    events = trace.probe_events(NOTE)
    assert sorted(events["number"].tolist()) == [i * 1000 + j for i in range(8) for j in range(200)]
    assert np.all(np.diff(events["time_ns"]) >= 0)
    for thread in np.unique(events["thread"]):
        assert np.all(np.diff(events["number"][events["thread"] == thread]) == 1)


def test_the_twin_decodes_the_same(tmp_path: Path, backend: str) -> None:
    def body() -> None:
        for i in range(50):
            outer(i)
            note(i, "text", "é" * i)

    trace = record(tmp_path / "run", backend, body)
    other = Trace(open_recording(tmp_path / "run", twin), twin)  # type: ignore[arg-type]
    assert list(trace.probe_events(NOTE).records()) == list(other.probe_events(NOTE).records())
    assert len(trace.probe_events(NOTE)) == 100


def test_a_living_recording_has_them_too(tmp_path: Path) -> None:
    with pyscope.record(tmp_path / "run", modules=OWN):
        note(3, "so far")
        assert pyscope.load(tmp_path / "run").probe_events(NOTE)["first"] == ["so far"]


def test_without_a_recording_nothing_happens() -> None:
    assert not emitter.active()
    assert emitter.emit(NOTE.kind, 1, 2, 3) is None
    assert (emitter.intern("x"), emitter.stack()) == (0, 0)


def test_a_type_with_other_fields_than_the_recording_finds_nothing(tmp_path: Path) -> None:
    with pyscope.record(tmp_path / "run", modules=OWN):
        emitter.emit(NOTE.kind, 1)
    events = pyscope.load(tmp_path / "run").probe_events(NOTE)
    assert len(events) == 0
    assert list(events.records()) == []


@pytest.mark.parametrize("fields", ["a a", "a:word", "t:text a", "time_ns"])
def test_a_bad_declaration_is_refused(fields: str) -> None:
    with pytest.raises(ValueError, match="event type bad"):
        EventType(60002, "bad", fields)


def test_a_number_is_declared_once() -> None:
    with pytest.raises(ValueError, match="60001 is note already"):
        EventType(60001, "again", "a")
