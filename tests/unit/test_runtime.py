"""A program that watches itself: every kind of monitoring begins, is read and ends by itself."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyscope
from pyscope import emitter, recorder, runtime
from pyscope.errors import ConfigError, RecorderError


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    runtime._kinds.clear()
    yield
    runtime.stop_all()
    assert recorder.active() is None
    assert not emitter.active()


def outer(a: int, b: int) -> int:
    return inner(a) + b


def inner(a: int) -> int:
    return a


def fail() -> None:
    raise ValueError("no")


def names() -> list[str]:
    return [call.function for call in runtime.get_traces() if call.function not in ("names", "<listcomp>")]


def test_calls_are_there_at_once_with_the_contracts_fields() -> None:
    runtime.start_tracing(modules=[sys.modules[__name__]], level="function_calls")
    outer(1, 2)
    with pytest.raises(ValueError, match="no"):
        fail()
    first, second, third = runtime.get_traces()
    assert (first.function, first.arity, first.outcome, first.depth) == ("outer", 2, "returned", 0)
    assert (second.function, second.depth, second.module) == ("inner", 1, __name__)
    assert (third.outcome, third.exception) == ("raised", "builtins.ValueError")
    assert dataclasses.is_dataclass(first)
    assert first.duration_ns >= second.duration_ns >= second.self_ns >= 0
    assert first.thread == "MainThread"


def test_what_was_gathered_stays_readable_until_the_next_start() -> None:
    runtime.start_tracing(modules=[__name__])
    outer(1, 2)
    runtime.stop_tracing()
    assert recorder.active() is None
    outer(1, 2)
    assert names()[:2] == ["outer", "inner"]
    assert names().count("outer") == 1
    runtime.start_tracing(modules=[__name__])
    assert names() == []


def test_stopping_what_was_not_started_does_nothing() -> None:
    runtime.stop_tracing()
    runtime.stop_all()
    runtime.stop_all()


def test_a_start_while_it_runs_begins_anew_with_other_modules() -> None:
    import json

    runtime.start_tracing(modules=["json.*"])
    outer(1, 2)
    json.loads("[1]")
    assert "loads" in names()
    assert "outer" not in names()
    runtime.start_tracing(modules=[__name__])
    outer(1, 2)
    json.loads("[1]")
    assert names()[:2] == ["outer", "inner"]
    assert "loads" not in names()


def test_modules_added_to_a_running_recording_are_recorded_though_they_ran_before() -> None:
    def read(trace: pyscope.Trace, since: int) -> list[str]:
        return [call.function for call in trace.find(module=__name__)]

    runtime._start("other", runtime._Kind(read), [])
    outer(1, 2)
    assert runtime._get("other", []) == []
    runtime.start_tracing(modules=[__name__])
    outer(1, 2)
    assert names()[:2] == ["outer", "inner"]
    runtime.stop_tracing()
    assert recorder.active() is not None
    outer(1, 2)
    runtime.stop_all()


def test_a_bad_level_or_module_is_refused_and_nothing_has_begun() -> None:
    with pytest.raises(ConfigError, match="'function_calls', 'c_calls'"):
        runtime.start_tracing(level="everything")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="modules"):
        runtime.start_tracing(modules=["not/a/module.py"])
    assert recorder.active() is None
    assert runtime.get_traces() == []


def test_c_calls_are_traced_when_asked_for() -> None:
    def count() -> int:
        return outer(len([1]), 2)

    runtime.start_tracing(modules=[__name__], level="c_calls")
    count()
    assert "len" in names()


def test_the_programs_own_recording_is_used_and_left_as_it_was(tmp_path: Path) -> None:
    with pyscope.record(tmp_path / "run", modules=[__name__]) as recording:
        outer(1, 2)
        runtime.start_tracing(modules=[__name__])
        inner(1)
        assert names()[0] == "inner"
        runtime.stop_all()
        assert recorder.active() is recording
        inner(1)
    assert len(pyscope.load(tmp_path / "run").find(function="inner")) == 3


def test_modules_that_the_programs_own_recording_lacks_are_refused(tmp_path: Path) -> None:
    with pyscope.record(tmp_path / "run", modules=[__name__]):
        inner(1)
        with pytest.raises(RecorderError, match="not among them"):
            runtime.start_tracing(modules=["json.*"])
        assert runtime.get_traces() == []


def test_a_recording_goes_into_a_file_where_one_is_named(tmp_path: Path) -> None:
    runtime.start_tracing(modules=[__name__], path=tmp_path / "run")
    outer(1, 2)
    assert "outer" in names()
    runtime.stop_tracing()
    assert [call.function for call in pyscope.load(tmp_path / "run").find(function="outer")] == ["outer"]


def test_threads_may_call_it_at_any_time() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(4):
                runtime.start_tracing(modules=[__name__])
                outer(1, 2)
                runtime.get_traces()
                runtime.stop_all()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_forked_child_begins_with_nothing() -> None:
    runtime.start_tracing(modules=[__name__])
    outer(1, 2)
    child = os.fork()
    if child == 0:
        try:
            first = runtime.get_traces() == [] and recorder.active() is None
            runtime.start_tracing(modules=[__name__])
            outer(1, 2)
            second = names()[:2] == ["outer", "inner"]
            runtime.stop_all()
            os._exit(0 if first and second else 1)
        except BaseException:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert names()[:2] == ["outer", "inner"]


def test_a_controller_traces_while_its_block_runs() -> None:
    controller = runtime.Controller(auto_start=True, default_tracing={"modules": [__name__]})
    with controller:
        assert controller.running
        outer(1, 2)
        assert "outer" in names()
    assert not controller.running
    assert recorder.active() is None


def test_a_controller_that_cannot_start_leaves_a_warning_and_the_program_running(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with runtime.Controller(default_tracing={"modules": ["a/b"]}) as controller:
        assert not controller.running
    assert "the service runs without it" in caplog.text


async def lifespan() -> bool:
    async with runtime.Controller(default_tracing={"modules": [__name__]}) as controller:
        return controller.running


def test_a_controller_is_an_async_context_manager() -> None:
    import asyncio

    assert asyncio.run(lifespan())


def test_a_controller_with_auto_start_off_waits_to_be_started() -> None:
    with runtime.Controller(auto_start=False, default_tracing={"modules": [__name__]}) as controller:
        assert recorder.active() is None
        controller.start()
        outer(1, 2)
        assert "outer" in names()
