"""A program that watches itself: every kind of monitoring begins, is read and ends by itself."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import pyscope
from pyscope import emitter, recorder, runtime
from pyscope.analysis import external
from pyscope.errors import AlreadyRecording, ConfigError, RecorderError
from pyscope.monitoring import Kind


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    runtime.reset()
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


def test_the_calls_of_several_threads_are_in_order_of_their_start() -> None:
    runtime.start_tracing(modules=[__name__])
    with ThreadPoolExecutor(1) as other:
        for number in range(5):
            outer(number, 0)
            other.submit(inner, number).result()
    calls = [call for call in runtime.get_traces() if call.function in ("outer", "inner")]
    assert [call.function for call in calls] == ["outer", "inner", "inner"] * 5
    starts = [call.start_ns for call in calls]
    assert starts == sorted(starts)


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

    runtime._monitoring.start("other", Kind(read), [])
    outer(1, 2)
    assert runtime._monitoring.read("other", []) == []
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


def test_a_file_that_is_named_too_late_is_refused_and_what_was_monitored_goes_on(tmp_path: Path) -> None:
    runtime.start_performance_monitoring()
    with pytest.raises(RecorderError, match=r"kept in memory: stop what is being monitored"):
        runtime.start_tracing(modules=[__name__], path=tmp_path / "late.pyscope")
    assert runtime.get_traces() == []
    assert runtime.is_recording()
    runtime.stop_all()
    path = tmp_path / "run.pyscope"
    for _ in range(2):  # the same file is no other
        runtime.start_tracing(modules=[__name__], path=path)
        runtime.start_performance_monitoring()
    outer(1, 2)
    assert "outer" in names()
    runtime.stop_all()
    assert len(pyscope.load(path).find(function="outer")) == 1


def test_a_recording_that_was_ended_from_elsewhere_is_told_and_the_next_begins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime.start_tracing(modules=[__name__])
    with pytest.raises(AlreadyRecording, match=r"in memory: end it with runtime.stop_all\(\)"):
        pyscope.start()
    pyscope.stop()
    with pytest.raises(RecorderError, match="ended from elsewhere"):
        runtime.get_traces()
    runtime.start_tracing(modules=[__name__])
    assert "could not be read: the recording was ended from elsewhere" in caplog.text
    outer(1, 2)
    assert "outer" in names()


def test_child_processes_of_a_recording_in_a_file_carry_its_probes(tmp_path: Path) -> None:
    path = tmp_path / "calls.pyscope"
    runtime.start_tracing(path=path, modules=[__name__], probes=["smtp"])
    program = "import smtplib\ntry: smtplib.SMTP('127.0.0.1', 1)\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", program], check=True)
    runtime.stop_tracing()
    [call] = external.find(pyscope.load(path))
    assert (call.service, call.outcome) == ("smtp", "failed")


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
    assert runtime.get_traces() == []


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


class Base(DeclarativeBase): ...


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(Author)


# --- the other kinds -----------------------------------------------------------------------------


class Order:
    def __init__(self) -> None:
        self.status = "open"
        self.lines: list[str] = []

    def send(self) -> None:
        self.status = "sent"

    def add(self, line: str) -> None:
        self.lines.append(line)


def test_state_changes_of_an_object_and_of_a_class_come_with_what_did_them() -> None:
    first = Order()
    runtime.monitor_process(first, "state_changes")
    first.send()
    first.add("tea")
    other = Order()
    other.send()
    changes = runtime.get_state_changes()
    assert [(c.attribute, c.transition, c.trigger) for c in changes] == [
        ("status", "order_sent", "Order.send"),
        ("lines", "lines_changed", "Order.add"),
    ]
    runtime.monitor_process(Order)
    other.status = "late"
    assert runtime.get_state_changes()[-1].transition == "order_late"
    runtime.stop_process_monitoring()
    assert "__setattr__" not in vars(Order)
    assert len(runtime.get_state_changes()) == 3


def test_n_plus_one_queries_are_counted_and_placed() -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Book(author=Author()) for _ in range(6)])
        session.commit()

    def authors() -> int:
        with Session(engine) as session:
            return len([book.author for book in session.scalars(select(Book))])

    runtime.start_performance_monitoring(detect_patterns=["n_plus_one_queries"], threshold=5)
    assert authors() == 6
    issues = runtime.get_performance_issues()
    assert issues.query_count == 6
    assert (issues[0].kind, issues[0].relationship) == ("n_plus_one_query", "Book.author")
    assert issues[0].call_site.file == __file__
    runtime.start_performance_monitoring(detect_patterns=["n_plus_one_queries"], threshold=7)
    authors()
    assert runtime.get_performance_issues() == []
    runtime.start_performance_monitoring(modules=["json.*"], detect_patterns=["n_plus_one_queries"])
    authors()
    assert runtime.get_performance_issues() == []


def test_generated_code_of_the_modules_asked_for_does_not_let_in_others() -> None:
    # The methods of a dataclass and code run by exec both have the file "<string>".
    runtime.start_tracing(modules=["generated_model"])
    exec("def point(x): return x\npoint(1)", {"__name__": "generated_model"})
    trace = runtime._monitoring.session.trace()
    assert "<string>" in {function.file for function in trace.functions}
    assert runtime._files_of(trace, ["generated_model"]) == frozenset()


def test_resources_are_sampled_and_only_the_metrics_asked_for_are_told() -> None:
    runtime.start_resource_monitoring(metrics=["cpu"], interval=0.005)
    while len(runtime.get_resource_metrics().cpu_usage_samples) < 3:
        sum(range(10_000))
    found = runtime.get_resource_metrics()
    assert (found.peak_memory, list(found.memory_samples)) == (0, [])
    runtime.start_resource_monitoring(processes=[os.getpid()])
    while not runtime.get_resource_metrics().memory_samples:
        pass
    runtime.stop_resource_monitoring()
    assert runtime.get_resource_metrics().peak_memory > 1 << 20


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_a_supervisor_event_without_a_supervisor() -> None:
    hook = threading.excepthook
    runtime.monitor_supervisor_tree(None)
    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    [event] = [event for event in runtime.get_supervisor_events() if event.child == "worker"]
    assert (event.kind, event.supervisor) == ("child_terminated", "threading")
    assert "ValueError" in event.reason
    runtime.stop_all()
    assert threading.excepthook is hook


def test_an_external_call_has_its_attempts() -> None:
    import http.server

    import requests

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    runtime.trace_external_calls()
    requests.get(f"http://127.0.0.1:{server.server_port}/things?token=secret", timeout=20)
    server.shutdown()
    thread.join()
    server.server_close()
    [call] = runtime.get_external_calls()
    assert (call.service, call.outcome, call.retries, len(call.attempts)) == ("http", "succeeded", 0, 1)
    assert "secret" not in call.operation


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: runtime.monitor_process(Order, "everything"), "state_changes"),
        (lambda: runtime.start_performance_monitoring(detect_patterns=["slow"]), "slow_calls"),
        (lambda: runtime.start_performance_monitoring(threshold=1), "2 or more"),
        (lambda: runtime.start_resource_monitoring(metrics=["disk"]), "message_queue_length"),
        (lambda: runtime.start_resource_monitoring(interval=0), "between 0.001"),
        (lambda: runtime.start_resource_monitoring(interval="1"), "between 0.001"),  # type: ignore[arg-type]
        (lambda: runtime.start_performance_monitoring(slow_ms=float("nan")), "slow_ms = nan"),
        (lambda: runtime.start_performance_monitoring(blocking_ms="9"), "blocking_ms"),  # type: ignore[arg-type]
        (lambda: runtime.start_tracing(probes=["nope"]), "no probe 'nope'"),
        (lambda: runtime.start_tracing(level=["c_calls"]), "level"),  # type: ignore[arg-type]
        (lambda: runtime.monitor_process(7), "object of the class int cannot be watched"),
        (lambda: runtime.monitor_process(dict), "the class dict cannot be watched"),
        (lambda: runtime.monitor_concurrency([{}]), "object of the class dict cannot be watched"),
        (lambda: runtime.monitor_concurrency(Order()), "must be a list, also where"),  # type: ignore[arg-type]
        (lambda: runtime.start_resource_monitoring(processes=1), "must be a list"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_argument_says_what_is_allowed_and_nothing_has_begun(call: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()  # type: ignore[operator]
    assert recorder.active() is None


def test_one_name_need_not_stand_in_a_list() -> None:
    runtime.start_tracing(modules=__name__, probes="gc")  # type: ignore[arg-type]
    runtime.start_performance_monitoring(detect_patterns="slow_calls")
    runtime.start_resource_monitoring(metrics="cpu")
    outer(1, 2)
    assert names() == ["outer", "inner"]
    assert runtime.get_resource_metrics().memory_samples == ()


def test_what_is_no_supervisor_or_no_process_is_refused_and_nothing_has_begun() -> None:
    with pytest.raises(TypeError, match="no supervisor that PyScope knows"):
        runtime.monitor_supervisor_tree(Order())
    with pytest.raises(ProcessLookupError, match="no process"):
        runtime.start_resource_monitoring(processes=[2**22 + 1])
    assert recorder.active() is None


def test_any_combination_is_active_at_once_and_stop_all_undoes_it() -> None:
    order = Order()
    threads = set(threading.enumerate())
    runtime.start_tracing(modules=[__name__])
    runtime.monitor_process(order)
    runtime.start_performance_monitoring()
    runtime.start_resource_monitoring()
    runtime.monitor_supervisor_tree()
    runtime.trace_external_calls()
    order.send()
    assert "send" in names()
    assert [change.transition for change in runtime.get_state_changes()] == ["order_sent"]
    runtime.stop_all()
    assert "__setattr__" not in vars(Order)
    assert "send" in names()
    assert [change.transition for change in runtime.get_state_changes()] == ["order_sent"]
    assert runtime.get_external_calls() == []
    assert set(threading.enumerate()) <= threads


WAITS_FOR_IMPORTS = """
import sys
from pyscope import probes, runtime

before = sys.meta_path[:]
held = probes.acquire(["auto", "sync"])  # most of their libraries are not imported
print(sys.meta_path != before)
probes.release(held)
runtime.monitor_supervisor_tree()
runtime.monitor_concurrency()
runtime.stop_all()
print(sys.meta_path == before)
"""


def test_nothing_waits_for_imports_once_it_is_over() -> None:
    run = subprocess.run([sys.executable, "-c", WAITS_FOR_IMPORTS], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("True\nTrue\n", "")
