"""Whatever is asked wrongly is answered by one clear error or warning that says what to do."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyscope
from pyscope import errors, recorder


@pytest.fixture(autouse=True)
def _nothing_recording(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYSCOPE_RING_MB", "2")
    yield
    if recorder.active() is not None:
        pyscope.stop()


def test_a_module_glob_that_matches_nothing_is_named_in_a_warning() -> None:
    with (
        pytest.warns(
            errors.PyScopeWarning, match=r"modules='shpo\.\*' matched no code that ran: check"
        ) as caught,
        pyscope.record("run.pyscope", modules=["shpo.*", __name__]),
    ):
        _leaf()
    assert len(caught) == 1


def _leaf() -> None:
    pass


@pytest.mark.parametrize("backend", ["auto", "python"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing/run.pyscope", "there is no folder .*missing. Make it, or choose another path"),
        (".", "is a folder. Name a file in it"),
        ("/proc/run.pyscope", "cannot"),
        ("notes.txt", "exists and is not a recording; it is not overwritten. Choose another path"),
    ],
)  # fmt: skip
def test_a_path_that_cannot_be_recorded_to_is_refused(path: str, message: str, backend: str) -> None:
    Path("notes.txt").write_text("mine" * 3000)
    with pytest.raises(errors.RecorderError, match=message):
        pyscope.start(path, backend=backend)
    assert Path("notes.txt").read_text() == "mine" * 3000
    assert recorder.active() is None
    assert sys.getprofile() is None
    with pyscope.record("run.pyscope", backend=backend, modules=[__name__]):  # it can be put right
        _leaf()


def test_starting_twice_and_stopping_twice_are_errors_that_leave_the_recording_alone() -> None:
    first = pyscope.start("run.pyscope", modules=[__name__])
    with pytest.raises(errors.AlreadyRecording, match=r"run\.pyscope: stop that one first"):
        pyscope.start("other.pyscope")
    assert not Path("other.pyscope").exists()
    assert recorder.active() is first
    _leaf()
    pyscope.stop()
    with pytest.raises(errors.NotRecording, match=r"call pyscope\.start first"):
        pyscope.stop()
    with pytest.raises(errors.NotRecording, match="has ended already"):
        first.stop()
    assert len(pyscope.load("run.pyscope").find(function="_leaf")) == 1


def test_stopping_inside_the_block_is_no_error() -> None:
    with pyscope.record("run.pyscope", modules=[__name__]):
        _leaf()
        pyscope.stop()
    assert len(pyscope.load("run.pyscope").find(function="_leaf")) == 1


def test_an_unsupported_backend_is_refused_with_those_that_can() -> None:
    with pytest.raises(errors.ConfigError, match="backend"):
        pyscope.start("run.pyscope", backend="magic")
    if sys.version_info < (3, 12):
        with pytest.raises(
            errors.BackendUnavailable, match=r"PEP 669\) came with 3\.12.*Available here: 'frame'"
        ):
            pyscope.start("run.pyscope", backend="monitoring")
    assert not Path("run.pyscope").exists()


def test_another_profiler_is_not_evicted_by_the_setprofile_backend() -> None:
    def mine(*_: object) -> None:
        pass

    sys.setprofile(mine)
    try:
        with pytest.raises(errors.BackendUnavailable, match=r"sys\.setprofile\); it is not evicted"):
            pyscope.start("run.pyscope", backend="setprofile")
        assert sys.getprofile() is mine
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ring_mb": 0}, "ring_mb"),
        ({"ring_mb": 10**20}, "ring_mb"),
        ({"mode": "tape"}, "mode"),
        ({"modles": ["a"]}, "modles"),
        ({"budget": "x"}, "budget"),
    ],
)
def test_a_bad_setting_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(errors.ConfigError, match=message):
        pyscope.start("run.pyscope", **arguments)
    assert not Path("run.pyscope").exists()


def test_a_dump_needs_a_recording_and_another_file() -> None:
    with pytest.raises(errors.NotRecording, match="nothing to dump"):
        pyscope.dump("dump.pyscope")
    Path("notes.txt").write_text("mine")
    with pyscope.record("run.pyscope", modules=[__name__]):
        with pytest.raises(errors.RecorderError, match="dump to another file"):
            pyscope.dump("run.pyscope")
        with pytest.raises(errors.RecorderError, match="not overwritten"):
            pyscope.dump("notes.txt")
        with pytest.raises(errors.RecorderError, match="no folder"):
            pyscope.dump("missing/dump.pyscope")
        _leaf()
    assert len(pyscope.load("run.pyscope").find(function="_leaf")) == 1


def test_what_is_no_recording_is_not_loaded_or_recovered() -> None:
    Path("empty.pyscope").touch()
    Path("notes.txt").write_text("mine" * 3000)
    for reads in (pyscope.load, pyscope.recover):
        with pytest.raises(errors.RecordingNotFound, match="nowhere"):
            reads("nowhere.pyscope")
        for name in ("empty.pyscope", "notes.txt"):
            with pytest.raises(errors.NotARecording, match=name):
                reads(name)
    with pytest.raises(errors.RecordingError):
        pyscope.load(".")
    assert pyscope.recover(".") == []


def test_a_disabled_recorder_is_inert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSCOPE_DISABLE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recording = pyscope.start("/no/such/folder/run.pyscope", modules=["none.*"])
        assert not recording.active
        assert recording.backend == "none"
        assert "PYSCOPE_DISABLE" in recording.backend_reason
        assert recording.figures == {}
        with recording.c_calls():
            _leaf()
        assert "ended" in repr(recording)
        with pytest.raises(errors.NotRecording):
            pyscope.dump("dump.pyscope")
        pyscope.stop()
        with pytest.raises(errors.NotRecording):
            pyscope.stop()
        with pyscope.record("run.pyscope"):
            _leaf()
    assert not Path("run.pyscope").exists()


def test_every_error_is_of_pyscope_errors() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.PyScopeWarning if name == "PyScopeWarning" else errors.PyScopeError)


def test_a_pipe_is_no_place_for_a_recording_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(errors.RecorderError, match=r"a device, a pipe or a socket\. Name a file"):
        pyscope.start(pipe, modules=[__name__])
    assert pipe.is_fifo()
