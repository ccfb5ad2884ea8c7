"""What keeps failing takes itself out and says so; the program goes on, and so does the rest of PyScope."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from programs import Programs

import pyscope
from pyscope import breaker, errors, probes
from pyscope.probes import gc as gc_probe


def test_a_part_that_fails_now_and_then_stays_and_one_that_keeps_failing_is_out_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(breaker, "monotonic", lambda: now[0])
    rare = breaker.Breaker(3)
    for _ in range(20):
        now[0] += breaker.SPAN
        assert not rare.count()
    often = breaker.Breaker(3)
    assert [often.count() for _ in range(6)] == [False, False, True, False, False, False]


def test_a_probe_that_keeps_failing_is_a_loss_of_the_trace_and_an_error_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(gc_probe.GCProbe):
        def _collected(self, phase: str, info: dict[str, Any]) -> None:
            try:
                raise LookupError("a secret of the program")
            except Exception:
                self.fault()

    monkeypatch.setattr(gc_probe, "GCProbe", Broken)
    path = tmp_path / "run.pyscope"
    caplog.set_level(logging.ERROR)
    pyscope.start(path, modules=[__name__], probes=["gc"], ring_mb=1)
    with pytest.warns(errors.PyScopeWarning, match="'gc' failed 10 times and has removed itself"):
        collect(20)
    mine = [type(getattr(callback, "__self__", None)) for callback in gc.callbacks]
    assert Broken not in mine
    _after()
    pyscope.stop()
    trace = pyscope.load(path)
    [loss] = [loss for loss in trace.losses if loss.reason == "fault"]
    assert "the probe 'gc' failed 10 times and removed itself: LookupError in" in loss.detail
    assert "secret" not in loss.detail + caplog.text
    assert loss.end_ns == trace.end_ns
    assert "the program is not affected" in caplog.text
    assert len(trace.find(function="_after")) == 1


def collect(times: int) -> None:
    for _ in range(times):
        gc.collect()


def _after() -> None:
    pass


def test_the_pure_python_recorder_takes_itself_out_after_repeated_faults(programs: Programs) -> None:
    done = programs.run("""
        import sys
        import pyscope
        from pyscope.fallback import hook
        def leaf(): pass
        def many(count):
            for _ in range(count): leaf()
        pyscope.start("run.pyscope", modules=["__main__"], backend="python")
        many(10)
        ours = {"__name__": "pyscope.fallback.broken"}
        exec("def broken(self, *_): raise MemoryError", ours)
        type(hook._hook).record = ours["broken"]
        many(500)
        print(sys.getprofile(), sys.gettrace(), pyscope.recorder.active().active)
        pyscope.stop()
        print("goes on")
    """)
    assert done.stdout == "None None True\ngoes on\n"
    assert "the recorder failed 100 times and has removed itself" in done.stderr
    trace = pyscope.load(programs.folder / "run.pyscope")
    assert len(trace.find(function="leaf")) == 10
    assert [loss.reason for loss in trace.losses] == ["fault"]


class Alarm(Exception):
    pass


def test_what_a_signal_handler_raises_inside_a_probe_reaches_the_program() -> None:
    class Slow(probes.Probe):
        name: ClassVar[str] = "slow"

        def look(self) -> None:
            try:
                signal.raise_signal(signal.SIGUSR1)
                threading.Event().wait(0.001)
            except Exception:
                self.fault()

    def handler(number: int, frame: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        probe = Slow()
        with pytest.raises(Alarm):
            probe.look()
        assert probe.faults == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
