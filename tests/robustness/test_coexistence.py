"""Tools that watch the same interpreter see the same with and without PyScope, and keep their place."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from programs import BACKENDS, NATIVE, Programs

import pyscope

SHOP = """
import sys
def price(n): return n * 2
def order(n):
    total = 0
    for i in range(n):
        total += price(i)
    if total > 30:
        raise ValueError(total)
    return total
def stream(n):
    for i in range(n):
        yield price(i)
def main():
    results = [order(i) for i in range(6)]
    try: order(9)
    except ValueError as error: results.append(error.args[0])
    return results, list(stream(4))
"""
PRICES = sum(range(6)) + 9 + 4

# Records if a backend is named, else runs alone. `state` is what the interpreter looks like from outside.
FRAME = """
    import sys, threading
    import pyscope, shop
    def state():
        tools = [sys.monitoring.get_tool(i) for i in range(6)] if hasattr(sys, "monitoring") else []
        return (sys.getprofile(), sys.gettrace(), threading.getprofile(), threading.gettrace(), tools)
    def start():
        if len(sys.argv) > 1: pyscope.start("run.pyscope", modules=["shop"], backend=sys.argv[1])
    def stop():
        if len(sys.argv) > 1: pyscope.stop()
"""


def both(
    programs: Programs, backend: str, body: str, *, recorded: int | None = PRICES, says: str = ""
) -> str:
    """What the program prints alone; it must print the same when recorded, and be told of `says`, nothing else."""
    (programs.folder / "shop.py").write_text(SHOP)
    alone = programs.run(FRAME + body).stdout
    with_us = programs.run(FRAME + body, backend)
    assert with_us.stdout == alone
    assert (says in with_us.stderr) if says else (with_us.stderr == "")
    if recorded is not None:
        trace = pyscope.load(programs.folder / "run.pyscope")
        assert len(trace.find(function="price")) == recorded
    assert programs.left_behind() == []
    return alone


@pytest.mark.parametrize("backend", BACKENDS)
def test_stop_leaves_the_interpreter_as_found(programs: Programs, backend: str) -> None:
    both(
        programs,
        backend,
        """
    before = state()
    start(); print(shop.main()); stop()
    print(state() == before)
    """,
    )


@pytest.mark.parametrize("backend", [name for name in NATIVE if name != "setprofile"])
def test_instructions_that_the_interpreter_has_joined_stay_so(programs: Programs, backend: str) -> None:
    both(
        programs,
        backend,
        """
    import dis, statistics, textwrap
    numbers = {number for name, number in dis._all_opmap.items() if "__" in name}
    functions = (shop.price, shop.order, shop.stream, shop.main, statistics._sum, textwrap.TextWrapper._wrap_chunks)
    places = [[each.offset for each in dis.get_instructions(f)] for f in functions]  # no caches, which hold any number
    def joined():
        return [[i for i in at if f.__code__._co_code_adaptive[i] in numbers] for f, at in zip(functions, places)]
    def use():
        shop.main(); statistics.mean([1, 2]); textwrap.wrap("a b")
    new = joined()
    assert any(new) == (sys.version_info[:2] == (3, 12))
    start(); use()
    print(joined() == new, shop.main())
    stop(); use()
    print(joined() == new)
    """,
        recorded=2 * PRICES,
    )


@pytest.mark.parametrize("backend", NATIVE)
@pytest.mark.parametrize("core", ["ctrace", "pytrace", "sysmon"])
def test_coverage_measures_the_same_lines(programs: Programs, core: str, backend: str) -> None:
    if core == "sysmon" and sys.version_info < (3, 12):
        core = "ctrace"
    try:
        import coverage  # noqa: F401
    except ImportError:
        pytest.fail("coverage is not installed: pip install 'pyscope[test]'")
    alone = both(
        programs,
        backend,
        f"""
    import os; os.environ["COVERAGE_CORE"] = {core!r}
    import coverage
    for first in ("coverage", "pyscope"):
        measured = coverage.Coverage(data_file=None, include=["*/shop.py"])
        before = state()
        if first == "pyscope": start()
        measured.start()
        if first == "coverage": start()
        print(shop.main())
        if first == "coverage": stop()
        print(shop.main())
        measured.stop()
        if first == "pyscope": stop()
        print(first, sorted(line for file in measured.get_data().measured_files()
                            for line in measured.get_data().lines(file)))
    """,
        recorded=None,
    )
    assert "coverage [" in alone


@pytest.mark.parametrize("backend", NATIVE)
def test_a_debugger_stops_at_the_same_lines(programs: Programs, backend: str) -> None:
    alone = both(
        programs,
        backend,
        """
    import bdb
    class Debugger(bdb.Bdb):
        def user_line(self, frame):
            if frame.f_globals.get("__name__") == "shop": print(frame.f_code.co_name, frame.f_lineno)
        def user_return(self, frame, value):
            if frame.f_globals.get("__name__") == "shop": print("return", frame.f_code.co_name, value is None)
        def user_exception(self, frame, information):
            print("exception", information[0])
    before = state()
    start()
    debugger = Debugger()
    debugger.set_break(shop.__file__, 3)
    debugger.runcall(shop.main)
    stop()
    print(state() == before)
    """,
    )
    assert alone.count("price 3") == PRICES


@pytest.mark.parametrize("backend", NATIVE)
def test_cprofile_that_the_program_starts_itself_counts_the_same(programs: Programs, backend: str) -> None:
    alone = both(
        programs,
        backend,
        """
    import cProfile, pstats
    start()
    profile = cProfile.Profile()
    try: profile.enable()
    except ValueError as error: print(error)
    shop.main()
    profile.disable()
    stop()
    stats = pstats.Stats(profile).stats
    print(sorted((name, counts[0], counts[1]) for (file, _, name), counts in stats.items() if file.endswith("shop.py")))
    print(state())
    """,
        # before 3.12 cProfile is a profile function; a thread has one, and the program's wins
        recorded=None if backend == "setprofile" and sys.version_info < (3, 12) else PRICES,
        says="the program set a profile" if backend == "setprofile" and sys.version_info < (3, 12) else "",
    )
    assert f"('price', {PRICES}, {PRICES})" in alone


@pytest.mark.parametrize("backend", NATIVE)
def test_a_profile_function_of_the_program_sees_the_same_events(programs: Programs, backend: str) -> None:
    both(
        programs,
        backend,
        """
    seen = []
    def mine(frame, event, argument):
        if frame.f_globals.get("__name__") == "shop": seen.append((frame.f_code.co_name, event))
    start()
    sys.setprofile(mine)
    print(shop.main())
    print(sys.getprofile() is mine)
    stop()
    print(sys.getprofile() is mine)
    sys.setprofile(None)
    print(len(seen), seen)
    """,
        recorded=None if backend == "setprofile" else PRICES,
        says="the program set a profile function of its own" if backend == "setprofile" else "",
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with 3.12")
@pytest.mark.parametrize("backend", NATIVE)
def test_another_monitoring_tool_sees_the_same_events_and_keeps_its_id(
    programs: Programs, backend: str
) -> None:
    both(
        programs,
        backend,
        """
    monitoring, events = sys.monitoring, sys.monitoring.events
    seen = []
    def note(code, *rest):
        if code.co_filename == shop.__file__:
            seen.append(code.co_name)
            if code.co_name == "order": return monitoring.DISABLE
    for tool in (2, 4):
        monitoring.use_tool_id(tool, f"tool {tool}")
        for event in (events.PY_START, events.PY_RETURN, events.PY_YIELD):
            monitoring.register_callback(tool, event, note)
    monitoring.set_events(2, events.PY_START | events.PY_RETURN | events.PY_YIELD)
    monitoring.set_local_events(4, shop.price.__code__, events.PY_START)
    before = state()
    print(shop.main())
    start()
    print(shop.main())
    stop()
    print(state() == before)
    print(shop.main())
    monitoring.restart_events()
    print(shop.main())
    print(monitoring.get_events(2), monitoring.get_local_events(4, shop.price.__code__), len(seen), seen)
    """,
    )


@pytest.mark.parametrize("backend", NATIVE)
def test_an_audit_hook_that_gives_up_the_gil_beside_threads_that_end(
    programs: Programs, backend: str
) -> None:
    done = programs.run(
        """
    import sys, threading, time
    import pyscope
    def hook(event, arguments):
        if event == "sys.setprofile": time.sleep(0.0005)
    def price(): return 1
    def order():
        for _ in range(50): price()
    sys.addaudithook(hook)
    pyscope.start("run.pyscope", modules=["__main__"], backend=sys.argv[1], detail="c_calls")
    for _ in range(100):
        threads = [threading.Thread(target=order) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    pyscope.stop()
    """,
        backend,
    )
    assert done.stderr == ""
    trace = pyscope.load(programs.folder / "run.pyscope")
    assert len(trace.find(function="price")) == 20_000
    assert programs.left_behind() == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with 3.12")
@pytest.mark.parametrize("budget", [None, "50%"])
@pytest.mark.parametrize("then", ["", "sys.monitoring.use_tool_id(tool, 'mine')"])
def test_a_program_that_takes_our_tool_id_is_told_and_the_recording_ends(
    programs: Programs, then: str, budget: str | None
) -> None:
    (programs.folder / "shop.py").write_text(SHOP)
    done = programs.run(f"""
    import sys
    import pyscope, shop
    pyscope.start("run.pyscope", modules=["shop"], budget={budget!r})
    shop.main()
    ours = [tool for tool in (3, 4, 5) if sys.monitoring.get_tool(tool)]
    for tool in ours:
        sys.monitoring.free_tool_id(tool)
        {then or "pass"}
    shop.main()
    pyscope.stop()
    print([sys.monitoring.get_tool(tool) for tool in ours])
    """)
    assert "freed PyScope's tool id of sys.monitoring" in done.stderr
    assert "Traceback" not in done.stderr
    assert set(eval(done.stdout)) == {"mine" if then else None}
    trace = pyscope.load(programs.folder / "run.pyscope")
    assert len(trace.find(function="price")) >= PRICES
    assert trace.processes[0].state == "stopped"
    assert programs.left_behind() == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with 3.12")
def test_without_a_free_tool_id_another_backend_is_taken_and_the_reason_said(programs: Programs) -> None:
    (programs.folder / "shop.py").write_text(SHOP)
    out = programs.run(
        FRAME
        + """
    for tool in range(6): sys.monitoring.use_tool_id(tool, "taken")
    before = state()
    recording = pyscope.start("run.pyscope", modules=["shop"])
    report = pyscope.recorder.backend_report()
    print(recording.backend, [choice.reason for choice in report if choice.name == "monitoring"])
    shop.main()
    pyscope.stop()
    try: pyscope.start("run.pyscope", backend="monitoring")
    except pyscope.errors.BackendUnavailable as error: print(error)
    pyscope.start("run2.pyscope", modules=["shop"], backend="setprofile")
    try: shop.main()
    finally: pyscope.stop()
    print(state() == before)
    """
    ).stdout
    # on 3.13 the frame hook needs a tool id too, for the calls that the interpreter makes past it
    other = "setprofile" if sys.version_info[:2] == (3, 13) else "frame"
    assert out.startswith(
        f"{other} ['the sys.monitoring tool ids 3, 4 and 5 are all in use by other tools']\n"
    )
    assert "backend 'monitoring' is not available" in out
    assert out.endswith("True\n")
    assert len(pyscope.load(programs.folder / "run.pyscope").find(function="price")) == PRICES
    assert len(pyscope.load(programs.folder / "run2.pyscope").find(function="price")) == PRICES


EVALUATOR = """
    #define PY_SSIZE_T_CLEAN
    #include <Python.h>
    #if PY_VERSION_HEX < 0x030B0000
    #error "3.11 at least"
    #endif
    #define Py_BUILD_CORE
    #include <internal/pycore_frame.h>
    #undef Py_BUILD_CORE
    // A frame evaluator that counts the frames it passes on, as a compiler or a debugger would install.
    static unsigned long count;
    static _PyFrameEvalFunction before;
    static PyObject* evaluate(PyThreadState* thread, struct _PyInterpreterFrame* frame, int throwing) {
      ++count;
      return before(thread, frame, throwing);
    }
    static PyObject* install(PyObject* self, PyObject* ignored) {
      before = _PyInterpreterState_GetEvalFrameFunc(PyInterpreterState_Get());
      _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Get(), evaluate);
      Py_RETURN_NONE;
    }
    static PyObject* take_out(PyObject* self, PyObject* ignored) {
      int mine = _PyInterpreterState_GetEvalFrameFunc(PyInterpreterState_Get()) == evaluate;
      if (mine) _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Get(), before);
      return PyBool_FromLong(mine);
    }
    static PyObject* installed(PyObject* self, PyObject* ignored) {
      return PyBool_FromLong(_PyInterpreterState_GetEvalFrameFunc(PyInterpreterState_Get()) == evaluate);
    }
    static PyObject* counted(PyObject* self, PyObject* ignored) { return PyLong_FromUnsignedLong(count); }
    static PyMethodDef methods[] = {{"install", install, METH_NOARGS, 0}, {"take_out", take_out, METH_NOARGS, 0},
                                    {"installed", installed, METH_NOARGS, 0}, {"counted", counted, METH_NOARGS, 0},
                                    {0}};
    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "evaluator", 0, -1, methods};
    PyMODINIT_FUNC PyInit_evaluator(void) { return PyModule_Create(&module); }
"""


@pytest.fixture
def evaluator(programs: Programs) -> Path:
    """Builds the extension module `evaluator` beside the programs."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("there is no C compiler: apt-get install gcc")
    source = programs.write(EVALUATOR, "evaluator.c")
    library = programs.folder / f"evaluator{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_path("include")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-w", f"-I{include}", f"-I{include}/internal", "-o", library, source],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return library


@pytest.mark.parametrize("backend", NATIVE)
def test_a_frame_evaluator_installed_before_is_chained_to(
    programs: Programs, evaluator: Path, backend: str
) -> None:
    out = both(
        programs,
        backend,
        """
    import evaluator
    evaluator.install()
    start()
    before = evaluator.counted()
    print(shop.main())
    counted = evaluator.counted() - before
    stop()
    print(counted, evaluator.installed(), evaluator.take_out())
    """,
    )
    assert int(out.splitlines()[-1].split()[0]) >= PRICES


@pytest.mark.parametrize("backend", NATIVE)
def test_a_frame_evaluator_installed_after_goes_on_past_the_stop(
    programs: Programs, evaluator: Path, backend: str
) -> None:
    (programs.folder / "shop.py").write_text(SHOP)
    done = programs.run(
        FRAME
        + """
    import evaluator, gc
    start()
    evaluator.install()
    before = evaluator.counted()
    first = shop.main()
    one = evaluator.counted() - before
    stop()
    before = evaluator.counted()
    assert shop.main() == first
    print(evaluator.counted() - before == one, evaluator.installed())
    pyscope.start("again.pyscope", modules=["shop"], backend=sys.argv[1])  # with ours still beneath
    assert shop.main() == first
    pyscope.stop()
    print(evaluator.take_out())
    assert shop.main() == first
    pyscope.start("third.pyscope", modules=["shop"], backend=sys.argv[1])
    assert shop.main() == first
    pyscope.stop()
    """,
        backend,
    )
    assert done.stdout == "True True\nTrue\n"
    uses_frames = backend == "frame" or (backend == "setprofile" and sys.version_info < (3, 12))
    assert ("only passes frames on" in done.stderr) == uses_frames
    for name in ("run", "again", "third"):
        trace = pyscope.load(programs.folder / f"{name}.pyscope")
        assert len(trace.find(function="price")) == PRICES, name


@pytest.mark.parametrize("backend", NATIVE)
def test_a_greenlet_trace_function_of_the_program_sees_the_same_switches(
    programs: Programs, backend: str
) -> None:
    try:
        import greenlet  # noqa: F401
    except ImportError:
        pytest.fail("greenlet is not installed: pip install 'pyscope[test]'")
    out = both(
        programs,
        backend,
        """
    import greenlet
    seen = []
    def mine(event, arguments): seen.append(event)
    greenlet.settrace(mine)
    start()
    def other():
        shop.main()
        back.switch(1)
        raise KeyError("out")
    back = greenlet.getcurrent()
    one = greenlet.greenlet(other)
    print(one.switch())
    try: one.switch()
    except KeyError as error: print(error)
    stop()
    print(greenlet.gettrace() is mine, seen)
    """,
    )
    assert "True ['switch'" in out


def test_recorders_that_start_at_the_same_time_keep_their_rings(programs: Programs) -> None:
    # Each looks for rings of the dead in /dev/shm as it starts, and must not take one in the making for such.
    program = programs.write("""
        import os, pyscope
        for number in range(25):
            with pyscope.record(f"run-{os.getpid()}", mode="flight", ring_mb=8, ring_dir="/dev/shm") as recording:
                if not os.path.exists(recording.ring_path): print("gone", number)
    """)
    running = [programs.begin(program, PYSCOPE_RING_DIR="/dev/shm") for _ in range(4)]
    assert [process.communicate(timeout=100)[0] for process in running] == [""] * 4
    assert [process.returncode for process in running] == [0] * 4
