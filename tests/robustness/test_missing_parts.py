"""Whatever is not installed or not allowed, the program runs the same, and a message says what to do."""

from __future__ import annotations

import sys
import textwrap

import pytest
from programs import Programs

import pyscope

WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        for missing in {missing!r}:
            if name == missing or name.startswith(missing + "."):
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
PROGRAM = """
    import asyncio, threading, json
    import pyscope
    def leaf(n): return n + 1
    async def work(): return leaf(2)
    def fails(): raise LookupError("x")
    with pyscope.record("run.pyscope", modules=["__main__"], probes=["auto"], ring_mb=1) as recording:
        print([leaf(n) for n in range(20)], asyncio.run(work()))
        thread = threading.Thread(target=leaf, args=(1,))
        thread.start(); thread.join()
        try: fails()
        except LookupError as error: print(repr(error))
"""
EXPECTED = f"{list(range(1, 21))} 3\nLookupError('x')\n"

LIBRARIES = [
    *("aiosmtplib", "fsspec", "greenlet", "httpx", "pykka", "redis", "requests"),
    *("sqlalchemy", "stamina", "starlette", "tenacity", "urllib3", "uvloop"),
]
OF_THE_FACES = ["click", "rich", "pyarrow", "pandas", "polars", "fastapi", "uvicorn", "websockets"]


def without(*missing: str) -> str:
    return WITHOUT.format(missing=missing)


def run(programs: Programs, missing: tuple[str, ...], body: str, *arguments: object, **options: object):  # type: ignore[no-untyped-def]
    return programs.run(without(*missing) + textwrap.dedent(body), *arguments, **options)  # type: ignore[arg-type]


def test_each_library_that_is_not_installed_changes_nothing(programs: Programs) -> None:
    """One at a time, and all at once, each in a process of its own."""
    cases = [[library] for library in LIBRARIES] + [LIBRARIES, OF_THE_FACES]
    programs.write(PROGRAM, "the_program.py")
    done = programs.run(
        f"""
        import os, sys
        program = open("the_program.py").read()
        for number, missing in enumerate({cases!r}):
            if not os.fork():
                os.mkdir(str(number)); os.chdir(str(number))
                try:
                    exec({WITHOUT!r}.format(missing=missing))
                    exec(program, {{"__name__": "__main__"}})
                    sys.stdout.flush()
                finally:
                    os._exit(0)
            assert os.wait()[1] == 0
        """
    )
    assert done.stdout == EXPECTED * len(cases)
    assert done.stderr == ""
    for number in range(len(cases)):
        trace = pyscope.load(programs.folder / str(number) / "run.pyscope")
        assert len(trace.find(function="leaf")) == 22


def test_without_psutil_everything_else_is_recorded_and_the_warning_names_it(programs: Programs) -> None:
    done = run(programs, ("psutil",), PROGRAM)
    assert done.stdout == EXPECTED
    assert "the probe 'resources' needs the package 'psutil'" in done.stderr
    assert "pip install psutil" in done.stderr
    assert len(pyscope.load(programs.folder / "run.pyscope").find(function="leaf")) == 22


def test_without_numpy_a_program_is_recorded_and_read_elsewhere(programs: Programs) -> None:
    done = run(programs, ("numpy",), PROGRAM)
    assert done.stdout == EXPECTED
    assert len(pyscope.load(programs.folder / "run.pyscope").find(function="leaf")) == 22


def test_without_the_extensions_the_pure_python_recorder_does_the_same_and_says_why(
    programs: Programs,
) -> None:
    missing = ("pyscope._hook", "pyscope._codec")
    done = run(
        programs,
        missing,
        PROGRAM + '    print(recording.backend, len(pyscope.load("run.pyscope").find(function="leaf")))\n',
    )
    assert done.stdout == EXPECTED + "python 22\n"
    assert done.stderr == ""
    done = run(
        programs,
        missing,
        """
        from pyscope import doctor
        found = doctor.examine()
        print(found.works, found.extensions, [c.reason for c in found.backends if c.chosen])
        """,
    )
    assert "pyscope._hook cannot be imported" in done.stdout
    assert "no native backend works here" in done.stdout


@pytest.mark.parametrize(
    ("missing", "call", "extra"),
    [
        ("pyarrow", "pyscope.load('run.pyscope').to_arrow()", "arrow"),
        ("pandas", "pyscope.load('run.pyscope').to_pandas()", "pandas"),
        ("polars", "pyscope.load('run.pyscope').to_polars()", "polars"),
        ("fastapi", "import pyscope.live", "live"),
        ("sqlalchemy", "runtime.start_tracing(probes=['sqlalchemy'])", "sqlalchemy"),
    ],
)
def test_what_needs_an_extra_says_which(programs: Programs, missing: str, call: str, extra: str) -> None:
    done = run(
        programs,
        (missing,),
        f"""
        import pyscope
        from pyscope import runtime
        with pyscope.record("run.pyscope", modules=["__main__"], ring_mb=1): pass
        try: {call}
        except pyscope.errors.MissingExtra as error: print(error.extra, error)
        else: print("works")
        runtime.stop_all()
        """,
    )
    assert done.stdout.startswith(f"{extra} "), done.stdout
    assert f"pip install 'pyscope[{extra}]'" in done.stdout


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_the_command_without_its_packages_names_the_extra(programs: Programs, missing: str) -> None:
    done = run(
        programs, (missing,), "sys.argv[1:] = ['doctor']\nfrom pyscope.__main__ import main\nmain()\n", code=2
    )
    assert "pip install 'pyscope[cli]'" in done.stderr


def test_a_service_that_cannot_be_recorded_runs_all_the_same(programs: Programs) -> None:
    done = programs.run("""
        import logging, os
        logging.basicConfig()
        from pyscope import runtime
        with runtime.Controller(default_tracing={"path": "/proc/run.pyscope"}) as controller:
            print("serves", controller.running)
        os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
        with runtime.Controller(default_tracing={"path": "run.pyscope"}) as controller:
            print("serves", controller.running)
    """)
    assert done.stdout == "serves False\nserves False\n"
    assert "the service runs without it" in done.stderr


def test_switched_off_everything_can_be_called_and_nothing_is_recorded(programs: Programs) -> None:
    done = programs.run(
        """
        import sys
        import pyscope
        from pyscope import runtime
        class Thing: pass
        before = sys.getprofile(), sys.meta_path[:], dict(vars(Thing))
        with runtime.Controller(default_tracing={"modules": ["__main__"]}):
            runtime.monitor_process(Thing)
            runtime.monitor_concurrency()
            Thing().x = 1
            print(runtime.get_traces(), runtime.get_state_changes(), runtime.get_race_conditions())
        with pyscope.record("run.pyscope", probes=["auto"]):
            Thing().x = 2
        runtime.stop_all()
        print((sys.getprofile(), sys.meta_path[:], dict(vars(Thing))) == before)
        """,
        PYSCOPE_DISABLE=1,
    )
    assert done.stdout == "[] [] []\nTrue\n", done.stderr
    assert sorted(path.name for path in programs.folder.iterdir()) == ["program.py"]
    assert programs.left_behind() == []
    assert sys.getprofile() is None
