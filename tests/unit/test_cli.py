"""The command line, run as a person runs it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pyscope import doctor, report

REPOSITORY = Path(__file__).resolve().parents[2]

PROGRAM = """
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

def fail():
    raise KeyError("missing")

if __name__ == "__main__":
    fib(15)
    try:
        fail()
    except KeyError:
        pass
"""
CALLS_OF_FIB_15 = 1973


class Shell:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PYSCOPE_RING_DIR": str(folder),
            "PYSCOPE_RING_MB": "4",
            "COLUMNS": "100",
        }

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, "-m", "pyscope", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    return Shell(tmp_path)


class TestRunAndReport:
    def test_a_recorded_program_is_reported(self, shell: Shell) -> None:
        shell("run", "-o", "run.pyscope", "program.py")
        text = shell("report", "run.pyscope").stdout
        assert "__main__.fib" in text
        assert "KeyError" in text
        assert "Losses: none." in text
        assert "\x1b" not in text

    def test_as_json_the_counts_are_exact(self, shell: Shell) -> None:
        shell("run", "-o", "run.pyscope", "program.py")
        found = json.loads(shell("report", "run.pyscope", "--json", "--function", "fib").stdout)
        (row,) = found["tables"]["self"]
        assert row["name"] == "__main__.fib"
        assert row["calls"] == CALLS_OF_FIB_15

    def test_the_recording_is_named_after_program_and_process(self, shell: Shell) -> None:
        shell("run", "program.py")
        shell("run", "-m", "program")
        shell("run", "-mprogram")
        assert len(list(shell.folder.glob("program-*.pyscope"))) == 3

    def test_the_output_setting_of_the_environment_holds(self, shell: Shell) -> None:
        shell.environment["PYSCOPE_OUTPUT"] = "named.pyscope"
        shell("run", "program.py")
        assert (shell.folder / "named.pyscope").exists()

    def test_modules_may_be_repeated_or_separated_by_commas(self, shell: Shell) -> None:
        shell(
            "run",
            "--modules",
            "json.*,nothing_here",
            "--modules",
            "__main__",
            "-o",
            "run.pyscope",
            "program.py",
        )
        found = json.loads(shell("report", "run.pyscope", "--json").stdout)
        assert {row["name"] for row in found["tables"]["self"]} >= {"__main__.fib"}

    def test_a_program_that_recorded_nothing_is_explained(self, shell: Shell) -> None:
        shell("run", "--modules", "wave", "-o", "run.pyscope", "program.py")
        assert "No call was recorded" in shell("report", "run.pyscope").stdout

    def test_what_a_program_named_is_no_markup_and_commands_nothing_of_the_terminal(
        self, shell: Shell
    ) -> None:
        (shell.folder / "hostile.py").write_text(
            textwrap.dedent("""
                def work(): raise type("[/e]\\x1b[31m\\x9b2J", (Exception,), {})
                work.__code__ = work.__code__.replace(co_name="f[/x]", co_qualname="f[/x]\\x1b]0;title\\x07[red]")
                try: work()
                except Exception: pass
            """)
        )
        shell("run", "-o", "run.pyscope", "--probes", "auto", "hostile.py", "[/a]", "\x1b[2J", "[bold]:bomb:")
        text = shell("report", "run.pyscope").stdout
        assert "hostile.py [/a] [2J [bold]:bomb:" in text
        assert "f[/x]]0;title[red]" in text
        assert "[/e][31m2J" in text
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_a_terminal_of_another_encoding_is_printed_to(self, shell: Shell, encoding: str) -> None:
        shell("run", "-o", "run.pyscope", "program.py", "日本")
        shell.environment["PYTHONIOENCODING"] = encoding
        text = shell("report", "run.pyscope").stdout
        assert "program.py ??" in text
        assert re.search(r"\d us\b", text)
        shell("doctor")

    def test_disabled_nothing_is_written(self, shell: Shell) -> None:
        shell.environment["PYSCOPE_DISABLE"] = "1"
        shell("run", "program.py")
        assert not list(shell.folder.glob("*.pyscope"))


class TestErrors:
    def test_a_module_that_is_not_there_replaces_no_recording(self, shell: Shell) -> None:
        shell("run", "-o", "run.pyscope", "program.py")
        before = (shell.folder / "run.pyscope").read_bytes()
        assert "No module named" in shell("run", "-o", "run.pyscope", "-m", "progam", code=1).stderr
        assert (shell.folder / "run.pyscope").read_bytes() == before
        shell("run", "-o", "run.pyscope", "-m", "program")
        assert (shell.folder / "run.pyscope").read_bytes() != before

    def test_a_folder_that_is_gone_is_said_to_be(self, shell: Shell, tmp_path: Path) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        command = [sys.executable, "-m", "pyscope", "run", "-c", "pass"]
        ended = subprocess.run(
            ["/bin/sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *command],
            cwd=gone,
            env=shell.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 2
        assert ended.stderr == (
            "pyscope: the folder that this was started in has been deleted: change to one that is there\n"
        )

    def test_names_with_ends_of_lines_do_not_break_the_report(self, shell: Shell) -> None:
        (shell.folder / "named.py").write_text(
            "import threading\n"
            "def work(): pass\n"
            "thread = threading.Thread(target=work, name='first\\nsecond')\n"
            "thread.start(); thread.join()\n"
        )
        shell.environment["COLUMNS"] = "160"
        shell("run", "-o", "run.pyscope", "named.py", "an\nargument")
        text = shell("report", "run.pyscope").stdout
        assert r"an\nargument" in text
        assert r"first\nsecond" in text

    def test_a_warning_shows_the_line_that_asked_for_the_recording_or_none(self, shell: Shell) -> None:
        (shell.folder / "with.py").write_text(
            "import pyscope\nwith pyscope.record('run.pyscope', modules=['nowhere']):  # asked\n    pass\n"
        )
        (shell.folder / "without.py").write_text(
            "import pyscope\npyscope.start('run.pyscope', modules=['nowhere'])\n"
        )
        for program, shown in (("with.py", "# asked"), ("without.py", "")):
            ended = subprocess.run(
                [sys.executable, program],
                cwd=shell.folder,
                env=shell.environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
            assert "PyScopeWarning: modules='nowhere' matched no code" in ended.stderr
            assert str(REPOSITORY / "pyscope") not in ended.stderr
            assert shown in ended.stderr

    @pytest.mark.parametrize("command", ["report", "recover"])
    def test_a_file_that_is_not_there(self, shell: Shell, command: str) -> None:
        assert "nothing.pyscope" in shell(command, "nothing.pyscope", code=2).stderr

    @pytest.mark.parametrize("command", ["report", "recover"])
    def test_a_file_that_is_no_recording(self, shell: Shell, command: str) -> None:
        assert "program.py" in shell(command, "program.py", code=2).stderr

    def test_a_recording_in_a_folder_that_is_not_there(self, shell: Shell) -> None:
        ended = shell("run", "-o", "no/folder/run.pyscope", "program.py", code=2)
        assert "no folder" in ended.stderr
        assert ended.stdout == ""

    def test_a_foreign_file_is_not_overwritten(self, shell: Shell) -> None:
        ended = shell("run", "-o", "program.py", "program.py", code=2)
        assert "not overwritten" in ended.stderr
        assert (shell.folder / "program.py").read_text() == textwrap.dedent(PROGRAM)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--budget", "x"),
            ("--ring-mb", "0"),
            ("--probes", "rediss"),
            ("--modules", "a/b.py"),
            ("--keep", "a/b.py"),
        ],
    )
    def test_a_bad_value_is_named_as_it_was_given(self, shell: Shell, option: str, value: str) -> None:
        assert f"({option}): must be" in shell("run", option, value, "program.py", code=2).stderr

    @pytest.mark.parametrize("command", [["report"], ["export", "--to", "csv"]])
    def test_a_folder_is_no_recording(self, shell: Shell, command: list[str]) -> None:
        said = shell(*command, ".", code=2).stderr
        assert said == "pyscope: . is a folder: name a recording in it, as in ./*.pyscope.\n"

    @pytest.mark.parametrize("slip", [["porgram.py"], ["-m"]])
    def test_a_slip_in_the_program_s_name_replaces_no_recording(self, shell: Shell, slip: list[str]) -> None:
        shell("run", "-o", "run.pyscope", "program.py")
        before = (shell.folder / "run.pyscope").read_bytes()
        shell("run", "-o", "run.pyscope", *slip, code=2)
        assert (shell.folder / "run.pyscope").read_bytes() == before

    def test_a_full_disk_below_standard_output_is_told(self, shell: Shell) -> None:
        shell("run", "-o", "run.pyscope", "program.py")
        command = f"exec {sys.executable} -m pyscope report run.pyscope >/dev/full"
        ended = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=shell.folder,
            env=shell.environment,
            capture_output=True,
            text=True,
        )
        assert "pyscope: [Errno 28] No space left on device\n" in ended.stderr
        assert "Traceback" not in ended.stderr

    def test_an_unknown_command(self, shell: Shell) -> None:
        assert "No such command" in shell("rnu", code=2).stderr

    def test_without_its_packages_the_command_names_the_extra(self, shell: Shell) -> None:
        (shell.folder / "click.py").write_text("raise ModuleNotFoundError('no click', name='click')\n")
        assert "pip install 'pyscope[cli]'" in shell("doctor", code=2).stderr


class TestDoctor:
    def test_what_is_only_named_like_a_ring_is_not_left_over(self, shell: Shell) -> None:
        for name, content in (
            ("pyscope-0-99999-abcdef.ring", b"no ring"),
            ("pyscope-0-99998-abcdef.ring", b""),
        ):
            (shell.folder / name).write_bytes(content)
        text = shell("doctor").stdout
        assert "99999" not in text

    def test_it_names_backend_clock_ring_and_settings(self, shell: Shell) -> None:
        text = shell("doctor").stdout
        for expected in (
            "→",
            "Clock",
            str(shell.folder)[:20],
            "environment variable PYSCOPE_RING_MB",
            "works here",
        ):
            assert expected in text

    def test_extras_that_are_missing_stand_apart_from_those_that_are_there(self) -> None:
        printed = io.StringIO()
        found = replace(doctor.examine(), extras={"cli": True, "arrow": False, "live": True, "pandas": False})
        report.render_diagnosis(found, console=Console(file=printed, width=200))
        assert "cli, live   (missing: pip install 'pyscope[arrow,pandas]')" in printed.getvalue()

    def test_it_knows_every_extra_with_its_packages(self) -> None:
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        declared = {
            name: tuple(re.split(r"[>=\[]", package)[0] for package in packages)
            for name, packages in project["optional-dependencies"].items()
        }
        assert {name: declared[name] for name in doctor.EXTRAS} == doctor.EXTRAS
        for_developers = {"taskflow", "test", "bench", "dev"}
        assert declared.keys() - for_developers == doctor.EXTRAS.keys()

    def test_as_json_one_backend_is_chosen(self, shell: Shell) -> None:
        found = json.loads(shell("doctor", "--json", "--modules", "shop,*").stdout)
        assert found["works"] is True
        assert sum(choice["chosen"] for choice in found["backends"]) == 1
        assert all(choice["reason"] for choice in found["backends"])

    def test_where_recording_would_not_work_it_says_why_and_ends_with_1(self, shell: Shell) -> None:
        def said() -> str:
            return " ".join(shell("doctor", code=1).stdout.split())

        shell.environment["PYSCOPE_RING_MB"] = str(10**6)
        assert f"the ring of 1000000 MiB can lie nowhere ({shell.folder}: no room)" in said()
        shell.environment["PYSCOPE_RING_DIR"] = "nowhere"
        assert "nowhere: No such file or directory" in said()
        shell.environment |= {"PYSCOPE_RING_DIR": ".", "PYSCOPE_RING_MB": "4", "PYSCOPE_OUTPUT": "."}
        assert "which is no file" in said()

    def test_a_shared_memory_that_is_passed_over_is_told_with_what_is_free(self, shell: Shell) -> None:
        del shell.environment["PYSCOPE_RING_DIR"]
        shell.environment["PYSCOPE_RING_MB"] = str(10**6)
        found = json.loads(shell("doctor", "--json", code=1).stdout)["rings"]
        assert [ring["folder"] for ring in found] == ["/dev/shm", str(shell.folder)]
        assert [ring["problem"] for ring in found] == ["no room", "no room"]

    def test_with_too_small_files_allowed_it_says_so(self, shell: Shell) -> None:
        ended = subprocess.run(
            ["/bin/sh", "-c", f"ulimit -f 100; {sys.executable} -m pyscope doctor"],
            cwd=shell.folder,
            env=shell.environment,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 1
        assert "ulimit -f" in ended.stdout

    def test_a_variable_that_is_no_setting_is_told(self, shell: Shell) -> None:
        shell.environment |= {"PYSCOPE_MODULE": "shop.*", "PYSCOPE_CHILD_OF": ""}
        text = shell("doctor").stdout
        assert "PYSCOPE_MODULE is no setting; did you mean PYSCOPE_MODULES?" in text
        assert "CHILD_OF" not in text

    def test_switched_off_is_not_working(self, shell: Shell) -> None:
        shell.environment["PYSCOPE_DISABLE"] = "1"
        assert "PYSCOPE_DISABLE" in shell("doctor", code=1).stdout

    def test_a_secret_is_not_printed(self, shell: Shell) -> None:
        shell.environment["PYSCOPE_TOKEN"] = "hunter2"
        assert "hunter2" not in shell("doctor").stdout
        assert "hunter2" not in shell("doctor", "--json").stdout


class TestRecover:
    def test_a_killed_program_is_made_whole(self, shell: Shell) -> None:
        (shell.folder / "killed.py").write_text(
            textwrap.dedent(PROGRAM) + "    import os\n    os.kill(os.getpid(), 9)\n"
        )
        shell("run", "-o", "run.pyscope", "killed.py", code=-9)
        left = json.loads(shell("doctor", "--json").stdout)["leftovers"]
        assert str(shell.folder / "run.pyscope") in [ring["recording"] for ring in left]
        assert "pyscope recover " in shell("doctor").stdout
        assert "Recovered" in shell("recover", ".").stdout
        assert "Nothing to recover" in shell("recover", "run.pyscope").stdout
        found = json.loads(shell("report", "run.pyscope", "--json", "--function", "fib").stdout)
        assert found["tables"]["self"][0]["calls"] == CALLS_OF_FIB_15
        assert not list(shell.folder.glob("*.ring"))

    def test_a_ring_that_was_never_begun_is_told_and_deleted(self, shell: Shell) -> None:
        left = shell.folder / f"pyscope-{os.getuid()}-4711-abcdef012345.ring.new"
        left.touch()
        os.utime(left, (0, 0))
        assert "process 4711" in " ".join(shell("doctor").stdout.split())
        shell("recover", ".")
        assert not left.exists()
