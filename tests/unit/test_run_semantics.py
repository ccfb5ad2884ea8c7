"""`pyscope run X` behaves as `python X`: every program here is run both ways and compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["disabled", "recorded"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    rings = tmp_path / "rings"  # a killed program leaves its ring
    rings.mkdir()
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    variables |= {"PYSCOPE_RING_DIR": str(rings), "PYSCOPE_RING_MB": "2"}
    if request.param == "disabled":
        variables["PYSCOPE_DISABLE"] = "1"
    return variables


class Comparison:
    """Runs a command under `python` and under `pyscope run` in one folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def write(self, name: str, source: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source))

    def run(self, launcher: list[str], *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *launcher, *arguments],
            cwd=self.folder,
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def same(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        plain = self.run([], *arguments, text=text)
        ours = self.run(["-m", "pyscope", "run"], *arguments, text=text)
        assert ours.stdout == plain.stdout
        assert ours.stderr == plain.stderr
        assert ours.returncode == plain.returncode
        return ours


@pytest.fixture
def programs(tmp_path: Path, environment: dict[str, str]) -> Comparison:
    return Comparison(tmp_path, environment)


SURROUNDINGS = """
import sys
print(sorted(globals()))
print(__name__, __file__, __package__, __doc__, __cached__)
print(__spec__ and (__spec__.name, __spec__.origin), type(__loader__).__name__, __builtins__)
print(sys.argv, sys.path[0])
print(sys.modules["__main__"].__dict__ is globals())
print(sys.excepthook is sys.__excepthook__)
"""


TEXT = """
import sys
print(sorted(globals()))
print(__name__, __package__, __doc__, __spec__, __loader__)
print(sys.argv, repr(sys.path[0]))
def fails():
    1 / 0
if "fail" in sys.argv:
    fails()
"""


class TestText:
    @pytest.mark.parametrize("arguments", [[], ["-m", "--help"], ["fail"]])
    def test_code_on_the_command_line(self, programs: Comparison, arguments: list[str]) -> None:
        programs.same("-c", TEXT, *arguments)

    def test_joined_to_the_option_and_missing(self, programs: Comparison) -> None:
        assert programs.same("-cprint(1)").stdout == "1\n"
        assert programs.run(["-m", "pyscope", "run"], "-c").returncode == 2

    @pytest.mark.parametrize("arguments", [[], ["-c", "x"], ["fail"]])
    def test_code_on_standard_input(self, programs: Comparison, arguments: list[str]) -> None:
        programs.same("-", *arguments, text=TEXT)

    def test_code_that_does_not_compile(self, programs: Comparison) -> None:
        programs.same("-c", "def :")


class TestSurroundings:
    @pytest.mark.parametrize(
        "script", ["program.py", "./program.py", "below/program.py", "below/../program.py"]
    )
    def test_of_a_script(self, programs: Comparison, script: str) -> None:
        programs.write("program.py", SURROUNDINGS)
        programs.write("below/program.py", SURROUNDINGS)
        programs.same(script, "--limit", "3", "-m", "x", "--", "-o")

    def test_of_a_script_by_its_absolute_path_and_by_a_link(self, programs: Comparison) -> None:
        programs.write("below/program.py", SURROUNDINGS)
        (programs.folder / "link.py").symlink_to(programs.folder / "below" / "program.py")
        programs.same(str(programs.folder / "below" / "program.py"))
        programs.same("link.py")

    @pytest.mark.parametrize("name", ["program", "package", "package.part"])
    def test_of_a_module(self, programs: Comparison, name: str) -> None:
        for file in ("program.py", "package/__init__.py", "package/__main__.py", "package/part.py"):
            programs.write(file, SURROUNDINGS if file != "package/__init__.py" else "")
        programs.same("-m", name, "--detail", "c_calls", "-m")

    def test_of_a_folder(self, programs: Comparison) -> None:
        programs.write("package/__main__.py", SURROUNDINGS)
        programs.same("package", "a")

    def test_of_a_zip_file(self, programs: Comparison) -> None:
        with zipfile.ZipFile(programs.folder / "app.zip", "w") as archive:
            archive.writestr("__main__.py", SURROUNDINGS)
        programs.same("app.zip", "a")

    def test_standard_input_is_the_programs(self, programs: Comparison) -> None:
        programs.write("program.py", "print(input(), end='!')\nprint(open(0).read())\n")
        programs.same("program.py", text="first\nsecond\n")

    def test_future_statements_of_ours_do_not_leak_in(self, programs: Comparison) -> None:
        programs.write("program.py", "def f(x: 1 + 1): pass\nprint(f.__annotations__)\n")
        programs.same("program.py")

    def test_classes_of_main_can_be_pickled_and_sent_to_spawned_processes(self, programs: Comparison) -> None:
        programs.write(
            "program.py",
            """
            import multiprocessing
            class Point:
                def __init__(self, x): self.x = x
            def double(point): return Point(point.x * 2)
            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print([p.x for p in pool.map(double, [Point(1), Point(2)])])
            """,
        )
        programs.same("program.py")


class TestEndings:
    @pytest.mark.parametrize(
        "ending",
        [
            "pass",
            "raise SystemExit",
            "raise SystemExit(None)",
            "raise SystemExit(7)",
            "raise SystemExit('a message')",
            "raise SystemExit((1, 2))",
            "import sys; sys.exit(300)",
            "import os; print('x', flush=True); os._exit(5)",
            "1 / 0",
            "raise ValueError from KeyError(1)",
            "import nothing_of_this_name",
            "raise ExceptionGroup('many', [ValueError(1), TypeError(2)])",
            "def",
            "print('unclosed",
            "\\0",
            "import threading; threading.Thread(target=lambda: 1 / 0).start()",
            "import sys; sys.excepthook = lambda *error: print(error[2].tb_frame.f_code.co_name); 1 / 0",
            "import atexit, sys; atexit.register(lambda: print(sys.last_value)); 1 / 0",
            "import atexit; atexit.register(print, 'first'); atexit.register(print, 'second'); 1 / 0",
        ],
    )
    def test_are_the_same(self, programs: Comparison, ending: str) -> None:
        programs.write("program.py", f"print('started', flush=True)\n{ending}\n")
        programs.write("package/part.py", f"print('started', flush=True)\n{ending}\n")
        programs.same("program.py")
        programs.same("-m", "package.part")

    def test_an_exception_deep_in_the_program_shows_all_of_its_frames(self, programs: Comparison) -> None:
        programs.write("lib.py", "def fail(): raise ValueError('deep')\n")
        programs.write("program.py", "import lib\ndef main():\n    lib.fail()\nmain()\n")
        ended = programs.same("program.py")
        assert "in main" in ended.stderr
        assert "pyscope" not in ended.stderr

    @pytest.mark.parametrize(
        "arguments", [("nothing.py",), ("-m", "nothing"), ("-m", "nothing.below"), ("folder",)]
    )
    def test_a_program_that_is_not_there(self, programs: Comparison, arguments: tuple[str, ...]) -> None:
        (programs.folder / "folder").mkdir()
        programs.same(*arguments)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_a_signal(self, programs: Comparison, number: signal.Signals) -> None:
        programs.write(
            "program.py",
            f"""
            import atexit, os, time
            atexit.register(print, 'bye')
            print('started', flush=True)
            os.kill(os.getpid(), {int(number)})
            time.sleep(10)
            """,
        )
        assert programs.same("program.py").returncode == -number

    def test_the_programs_own_handler_of_sigterm_is_untouched(self, programs: Comparison) -> None:
        programs.write(
            "program.py",
            """
            import os, signal, sys
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
            os.kill(os.getpid(), signal.SIGTERM)
            """,
        )
        assert programs.same("program.py").returncode == 9


class TestRefusals:
    """What is wrong with the command is said before the program starts."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["program.py"], "PYSCOPE_RING_MB"),
            (["--budget", "lots", "program.py"], "budget = 'lots'"),
            (["--detail", "all", "program.py"], "'c_calls'"),
            (["--colour", "program.py"], "--colour"),
            ([], "Name the program"),
        ],
    )
    def test_a_bad_setting(self, tmp_path: Path, arguments: list[str], message: str) -> None:
        (tmp_path / "program.py").write_text("print('ran')\n")
        variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        if message.startswith("PYSCOPE_"):
            variables[message] = "none"
        ended = subprocess.run(
            [sys.executable, "-m", "pyscope", "run", *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 2
        assert message in ended.stderr
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""
