"""The supervision probe: supervisors of any kind, and threads, tasks and processes that end without one."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from pyscope import probes
from pyscope.analysis import supervision as analysis
from pyscope.findings import SupervisorEvent
from pyscope.probes import supervision
from pyscope.trace import load
from taskflow.supervision import ChildSpec, Restart, SupervisedActor, Supervisor
from tests.unit.watching import Watching, until, watching

pytestmark = pytest.mark.filterwarnings("ignore:modules=")


def of(watch: Watching, supervisor: str) -> list[SupervisorEvent]:
    return [event for event in analysis.find(watch.trace) if event.supervisor == supervisor]


class Fragile(SupervisedActor):
    def on_receive(self, message: Any) -> None:
        raise ValueError(f"cannot take {message}")


# Supervisors


def test_a_supervisor_s_crash_and_restart_are_told_with_reason_and_count(tmp_path: Path) -> None:
    with watching(tmp_path, "supervision", "actors") as watch:
        root = Supervisor("root", [ChildSpec("fragile", Fragile, restart=Restart.PERMANENT)], max_restarts=1)
        probe = watch.probe("supervision")
        probe.watch(root)
        probe.watch(root)
        with root:
            for _ in range(2):
                child = root.whereis("fragile")
                assert child is not None
                child.actor_ref.tell("this")
                until(child.join, "the crash")
                until(
                    lambda child=child: root.exit or root.whereis("fragile") not in (child, None),
                    "the restart",
                )
            until(lambda: root.exit is not None, "giving up")
    events = of(watch, "root")
    assert [(event.kind, event.restart_count) for event in events] == [
        ("child_started", 0),
        ("child_terminated", 0),
        ("child_restarted", 1),
        ("child_terminated", 1),
        ("max_restarts_exceeded", 2),
    ]
    assert {event.child for event in events} == {"fragile"}
    assert "cannot take this" in events[1].reason
    assert events == sorted(events, key=lambda event: event.time_ns)


def test_a_tree_is_reached_by_its_root_s_reference_and_let_go_at_removal(tmp_path: Path) -> None:
    leaf = Supervisor("leaf", [ChildSpec("fragile", Fragile)])
    with leaf:
        with watching(tmp_path, "supervision") as watch:
            watch.probe("supervision").watch(leaf.actor_ref)
            leaf.terminate_child("fragile")
        leaf.restart_child("fragile")
    assert [event.kind for event in of(watch, "leaf")] == ["child_shutdown"]


class Callbacks:
    """A supervisor that calls functions with dicts."""

    name = "callbacks"

    def __init__(self) -> None:
        self.functions: list[Callable[[Any], None]] = []

    def subscribe(self, function: Callable[[Any], None]) -> None:
        self.functions.append(function)

    def unsubscribe(self, function: Callable[[Any], None]) -> None:
        self.functions.remove(function)

    def say(self, event: Any) -> None:
        for function in self.functions:
            function(event)


class HostileEvent:
    kind = "child_started"

    @property
    def child(self) -> str:
        raise RuntimeError("child")


def test_a_supervisor_that_calls_functions_needs_no_adapter(tmp_path: Path) -> None:
    callbacks = Callbacks()
    with watching(tmp_path, "supervision") as watch:
        watch.probe("supervision").watch(callbacks)
        callbacks.say(
            {"kind": "child_restarted", "child": "a", "reason": ValueError("bad"), "restart_count": 3}
        )
        callbacks.say({"kind": "something_else", "child": "a"})
        callbacks.say(HostileEvent())
        callbacks.say(None)
        assert watch.probe("supervision").faults == 0
    assert callbacks.functions == []
    [event] = of(watch, "callbacks")
    assert (event.kind, event.child, event.reason, event.restart_count) == (
        "child_restarted",
        "a",
        "ValueError: bad",
        3,
    )


def test_another_library_takes_one_adapter(tmp_path: Path) -> None:
    class Monitor:
        def __init__(self) -> None:
            self.hook: Callable[[str], None] = lambda _: None

    class Adapter:
        def knows(self, supervisor: object) -> bool:
            return isinstance(supervisor, Monitor)

        def subscribe(self, supervisor: Any, tell: supervision.Tell) -> Callable[[], None]:
            before = supervisor.hook
            supervisor.hook = lambda child: tell("child_started", "monitor", child, "", 0)

            def undo() -> None:
                supervisor.hook = before

            return undo

    monitor, adapter = Monitor(), Adapter()
    hook = monitor.hook
    with watching(tmp_path, "supervision") as watch:
        with pytest.raises(TypeError, match="is no supervisor that PyScope knows"):
            watch.probe("supervision").watch(monitor)
        supervision.register(adapter)
        try:
            watch.probe("supervision").watch(monitor)
        finally:
            supervision.unregister(adapter)
        monitor.hook("x")
    assert monitor.hook is hook
    assert [event.child for event in of(watch, "monitor")] == ["x"]


# Threads


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("str")


def test_an_uncaught_exception_of_a_thread_is_told_and_handed_on(tmp_path: Path) -> None:
    handed_on: list[Any] = []

    def hook(arguments: Any) -> None:
        handed_on.append((arguments.exc_type, arguments.thread.name))

    def die() -> None:
        raise KeyError("missing")

    def die_oddly() -> None:
        raise Unprintable(object())

    before, threading.excepthook = threading.excepthook, hook
    try:
        with watching(tmp_path, "supervision") as watch:
            for target in (die, die_oddly, sys.exit):
                thread = threading.Thread(target=target, name=f"runs {target.__name__}")
                thread.start()
                thread.join()
        assert threading.excepthook is hook
    finally:
        threading.excepthook = before
    first, second = of(watch, "threading")
    assert (first.kind, first.child, first.reason) == ("child_terminated", "runs die", "KeyError: missing")
    assert first.stack[0].function.endswith("die")
    assert second.reason == "Unprintable"
    assert handed_on == [
        (KeyError, "runs die"),
        (Unprintable, "runs die_oddly"),
        (SystemExit, "runs exit"),  # no crash, and handed on all the same
    ]


def test_a_hook_that_the_program_sets_meanwhile_stays(tmp_path: Path) -> None:
    found = threading.excepthook, sys.excepthook
    try:
        with watching(tmp_path, "supervision"):
            ours = threading.excepthook
            theirs = lambda arguments: ours(arguments)  # noqa: E731
            threading.excepthook = theirs
        assert threading.excepthook is theirs
        assert sys.excepthook is found[1]
    finally:
        threading.excepthook, sys.excepthook = found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exception_of_a_thread_is_told_once_where_the_program_s_own_hook_is_set_later(
    tmp_path: Path,
) -> None:
    found = threading.excepthook
    handed_on: list[type[BaseException]] = []
    more = threading.Event()

    def die() -> None:
        raise OSError("gone")

    def outlive() -> None:
        more.wait(10)
        die()

    try:
        with watching(tmp_path, "supervision") as watch:
            ours = threading.excepthook
            chained = lambda arguments: ours(arguments)  # noqa: E731
            replaced = lambda arguments: handed_on.append(arguments.exc_type)  # noqa: E731
            later = threading.Thread(target=outlive, name="after the end")
            later.start()
            for hook, name in ((chained, "chained"), (replaced, "replaced")):
                threading.excepthook = hook
                thread = threading.Thread(target=die, name=name)
                thread.start()
                thread.join()
        more.set()
        later.join()
    finally:
        threading.excepthook = found
    assert [(event.child, event.reason) for event in of(watch, "threading")] == [
        ("chained", "OSError: gone"),
        ("replaced", "OSError: gone"),
    ]
    assert handed_on == [OSError, OSError]


# Tasks


def test_a_task_whose_exception_nobody_takes_is_told_and_one_that_is_awaited_is_not(tmp_path: Path) -> None:
    handled: list[str] = []

    async def die(word: str) -> None:
        raise ValueError(word)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: handled.append(context["message"]))
        forgotten = asyncio.create_task(die("forgotten"), name="forgetful")
        await asyncio.wait([forgotten])
        del forgotten
        with pytest.raises(ValueError, match="awaited"):
            await asyncio.create_task(die("awaited"))
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with watching(tmp_path, "supervision") as watch:
        asyncio.run(main())
    events = of(watch, "asyncio")
    assert [(event.child, event.reason) for event in events] == [
        ("forgetful", "ValueError: forgotten"),
        ("callback", "ZeroDivisionError: division by zero"),
    ]
    assert events[0].stack[0].function.endswith("die")
    assert len(handled) == 2
    assert asyncio.BaseEventLoop.call_exception_handler.__module__ == "asyncio.base_events"


# Processes


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for(pid: int, watch: Watching) -> None:
    processes = watch.probe("supervision")._processes
    until(lambda: pid not in processes._watched, f"the news of the end of {pid}")


def test_deaths_of_child_processes_are_told_with_code_or_signal(tmp_path: Path) -> None:
    with watching(tmp_path, "supervision") as watch:
        for code in ("", "raise SystemExit(3)"):
            child = subprocess.Popen(python(code))
            assert child.wait() == (3 if code else 0)
            wait_for(child.pid, watch)
        child = subprocess.Popen(python("import time; time.sleep(600)"))
        child.kill()
        wait_for(child.pid, watch)  # told before anybody has waited
        assert child.wait() == -signal.SIGKILL
        with pytest.raises(FileNotFoundError):
            subprocess.Popen(["/no/such/program"])
    events = of(watch, "subprocess")
    ends = [(event.kind, event.reason) for event in events if event.kind != "child_started"]
    assert ends == [
        ("child_shutdown", "exit code 0"),
        ("child_terminated", "exit code 3"),
        ("child_terminated", "killed by SIGKILL"),
    ]
    assert [event.kind for event in events[::2]] == ["child_started"] * 3
    assert events[4].pid == events[5].pid == child.pid
    assert {event.child for event in events} == {os.path.basename(sys.executable)}
    assert events[0].stack[0].file == __file__


def test_a_child_that_the_program_asked_to_end_has_not_crashed(tmp_path: Path) -> None:
    with watching(tmp_path, "supervision") as watch:
        child = subprocess.Popen(python("import time; time.sleep(600)"))
        child.terminate()
        assert child.wait() == -signal.SIGTERM
        wait_for(child.pid, watch)
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
        process.start()
        process.terminate()
        process.join()
        assert process.pid is not None
        wait_for(process.pid, watch)
        for kill in (os.kill, os.killpg):
            child = subprocess.Popen(python("import time; time.sleep(600)"), start_new_session=True)
            kill(child.pid, signal.SIGTERM)
            assert child.wait() == -signal.SIGTERM
            wait_for(child.pid, watch)
        with pytest.raises(TypeError):
            os.kill("no process", signal.SIGTERM)  # type: ignore[arg-type]
    for library, count in (("subprocess", 3), ("multiprocessing", 1)):
        ends = [event for event in of(watch, library) if event.kind != "child_started"]
        assert [(ended.kind, ended.reason) for ended in ends] == [
            ("child_shutdown", "killed by SIGTERM, asked to by the program")
        ] * count


def test_the_code_of_a_child_that_the_program_waits_for_by_its_number_is_told(tmp_path: Path) -> None:
    with watching(tmp_path, "supervision") as watch:
        for code in (0, 3):
            child = subprocess.Popen(python(f"raise SystemExit({code})"))
            assert os.waitpid(child.pid, 0) == (child.pid, code << 8)
            wait_for(child.pid, watch)
    ends = [event.reason for event in of(watch, "subprocess") if event.kind != "child_started"]
    assert ends == ["exit code 0", "exit code 3"]


@pytest.mark.parametrize("hook", ["None", "lambda *error: print(error[1])", "lambda *error: before(*error)"])
def test_the_error_that_ends_a_program_is_told_once_whatever_its_own_hook_does(
    tmp_path: Path, hook: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""
import sys
before = sys.excepthook
hook = {hook}
if hook is not None:
    sys.excepthook = hook
def fails():
    raise ValueError("of the program")
fails()
""")
    command = [
        "-m",
        "pyscope",
        "run",
        "--modules",
        "__main__",
        "--probes",
        "supervision",
        "-o",
        "run.pyscope",
    ]
    done = subprocess.run(
        [sys.executable, *command, str(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "of the program" in done.stdout + done.stderr
    [crash] = analysis.find(load(tmp_path / "run.pyscope"))
    assert (crash.supervisor, crash.reason, crash.stack[0].function) == (
        "interpreter",
        "ValueError: of the program",
        "fails",
    )


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_a_forked_child_that_is_killed_or_fails_is_told_once_it_is_waited_for(tmp_path: Path) -> None:
    found = os.waitpid, os.wait, os.wait4
    with watching(tmp_path, "supervision") as watch:
        assert os.waitpid is not found[0]
        pids = []
        for end in (lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(3), lambda: os._exit(0),
                    lambda: os.kill(os.getpid(), signal.SIGTERM)):  # fmt: skip
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                end()
            pids.append(pid)
            waited, _ = os.waitpid(pid, 0)
            assert waited == pid
        with pytest.raises(ChildProcessError):
            os.waitpid(pids[0], 0)
    assert (os.waitpid, os.wait, os.wait4) == found
    assert [(event.kind, event.pid, event.reason) for event in of(watch, "os.fork")] == [
        ("child_terminated", pids[0], "killed by SIGKILL"),
        ("child_terminated", pids[1], "exit code 3"),
    ]


@pytest.mark.parametrize("waits_late", [False, True])
def test_a_child_that_is_watched_is_not_told_again_when_it_is_waited_for(
    tmp_path: Path, waits_late: bool
) -> None:
    context = multiprocessing.get_context("spawn")
    with watching(tmp_path, "supervision") as watch:
        process = context.Process(target=killed)
        process.start()
        assert process.pid is not None
        if waits_late:
            wait_for(process.pid, watch)
        process.join()
        wait_for(process.pid, watch)
    assert not of(watch, "os.fork")
    assert len([event for event in of(watch, "multiprocessing") if event.kind == "child_terminated"]) == 1


@pytest.mark.parametrize(("error", "told"), [(KeyboardInterrupt(), 0), (ValueError("of the program"), 1)])
def test_an_interrupt_from_the_keyboard_is_no_crash_of_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException, told: int
) -> None:
    with watching(tmp_path, "supervision") as watch:
        sys.excepthook(type(error), error, None)
    assert len(of(watch, "interpreter")) == told
    assert type(error).__name__ in capsys.readouterr().err


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_child_that_an_executor_asks_to_end_afterwards_was_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with (
        watching(
            tmp_path, "supervision"
        ) as watch,  # ends at once: who has died since the last look is told too
        pytest.raises(BrokenProcessPool),
        ProcessPoolExecutor(1, context) as executor,
    ):
        executor.submit(killed).result()
    [ended] = [event for event in of(watch, "multiprocessing") if event.kind != "child_started"]
    assert (ended.kind, ended.reason) == ("child_terminated", "killed by SIGKILL")


def crash() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded")
def test_deaths_of_multiprocessing_s_children_are_told_and_exit_codes_are_as_ever(
    tmp_path: Path, method: str
) -> None:
    context = multiprocessing.get_context(method)
    with watching(tmp_path, "supervision") as watch:
        process = context.Process(target=crash, name="doomed")
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGTERM
        assert process.pid is not None
        wait_for(process.pid, watch)
    started, ended = of(watch, "multiprocessing")
    assert (started.kind, started.child, started.pid) == ("child_started", "doomed", process.pid)
    assert (ended.kind, ended.reason) == ("child_terminated", "killed by SIGTERM")


def test_asyncio_s_child_processes_are_told_too(tmp_path: Path) -> None:
    async def main() -> int:
        process = await asyncio.create_subprocess_exec(*python("raise SystemExit(4)"))
        code = await process.wait()
        wait_for(process.pid, watch)
        return code

    with watching(tmp_path, "supervision") as watch:
        assert asyncio.run(main()) == 4
    assert [event.reason for event in of(watch, "subprocess")] == ["", "exit code 4"]


def test_removal_puts_everything_back_and_ends_the_thread_while_children_live(tmp_path: Path) -> None:
    from multiprocessing import popen_fork, popen_forkserver, process

    places: list[tuple[Any, str]] = [
        (subprocess.Popen, "__init__"),
        (subprocess.Popen, "_handle_exitstatus"),
        (subprocess.Popen, "send_signal"),
        (process.BaseProcess, "start"),
        (popen_fork.Popen, "poll"),
        (popen_fork.Popen, "_send_signal"),
        (popen_forkserver.Popen, "poll"),
        (asyncio.BaseEventLoop, "call_exception_handler"),
        (threading, "excepthook"),
        (threading, "_make_invoke_excepthook"),
        (sys, "excepthook"),
    ]
    found = [vars(owner)[name] for owner, name in places]
    descriptors = set(os.listdir("/proc/self/fd"))
    with watching(tmp_path, "supervision") as watch:
        child = subprocess.Popen(python("import time; time.sleep(600)"))
        thread = watch.probe("supervision")._processes._thread
        until(lambda: thread.alive, "the thread's start")
        assert all(
            vars(owner)[name] is not before for (owner, name), before in zip(places, found, strict=True)
        )
    try:
        assert not thread.alive
        assert all(vars(owner)[name] is before for (owner, name), before in zip(places, found, strict=True))
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    assert set(os.listdir("/proc/self/fd")) <= descriptors


def test_a_forked_child_watches_its_own_children(tmp_path: Path) -> None:
    with watching(tmp_path, "supervision") as watch:
        child = subprocess.Popen(python("import time; time.sleep(600)"))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                grandchild = subprocess.Popen(python(""))
                code = 0 if grandchild.wait() == 0 else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        child.kill()
        child.wait()
        wait_for(child.pid, watch)
    assert of(watch, "subprocess")[-1].reason == "killed by SIGKILL"


def test_the_interpreter_ends_with_the_probe_s_threads_running(tmp_path: Path) -> None:
    program = f"""
import subprocess, sys, threading, pyscope
from pyscope import probes
probes.acquire(["supervision", "resources", "event_loop", "gc", "state", "actors"])
pyscope.start({str(tmp_path / "run.pyscope")!r}, modules=["__main__"], ring_mb=8)
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
import asyncio
asyncio.run(asyncio.sleep(0.05))
print(threading.active_count())
raise ValueError("the end")
"""
    begun = time.monotonic()
    ended = subprocess.run(
        python(program),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.strip().endswith("ValueError: the end")
    assert ended.stdout.strip() == "1"  # the program sees no threads but its own
    assert time.monotonic() - begun < 60


def test_probes_can_be_taken_and_given_back_repeatedly() -> None:
    for _ in range(3):
        held = probes.acquire(["supervision"])
        probes.release(held)
    assert probes.installed("supervision") is None
