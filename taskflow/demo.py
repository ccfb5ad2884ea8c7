"""The demo: a real TaskFlow under PyScope's recorder, driven over HTTP, and what the recording says.

`python -m taskflow.demo` takes about twenty seconds. Whatever happens, Ctrl-C included, it leaves no
process behind; the recording stays.
"""

import argparse
import asyncio
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from taskflow.data.database import Database
from taskflow.data.seeds import seed
from taskflow.load import LoadError, LoadPlan, drive
from taskflow.process import ServerFailed, ServerProcess, interrupts_deferred
from taskflow.settings import Settings

PROJECTS: Final = 20
TASKS: Final = 1000
CONCURRENCY: Final = 4
REPORT_SECONDS: Final = 120
INTERRUPTED: Final = 130


class DemoFailed(Exception):
    """A step of the demo failed; the message says which and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m taskflow.demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long to drive load (default 8)")
    parser.add_argument("--everything", action="store_true", help="record every module, libraries included")
    parser.add_argument("-o", "--output", type=Path, help="where the recording goes (default: a new folder)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        folder = Path(tempfile.mkdtemp(prefix="taskflow-demo-"))
        recording = (options.output or folder / "taskflow.pyscope").absolute()
        _demonstrate(folder, recording, options.seconds, options.everything)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; nothing is left running\n")
        return INTERRUPTED
    except (DemoFailed, ServerFailed, LoadError, OSError, ValueError) as error:
        sys.stderr.write(f"the demo failed: {error}\n")
        return 1
    return 0


def _demonstrate(folder: Path, recording: Path, seconds: float, everything: bool) -> None:
    database_url = f"sqlite:///{folder / 'taskflow.db'}"
    _say(f"1/4  seeding a database with {PROJECTS} projects and {TASKS} tasks")
    with interrupts_deferred():
        asyncio.run(_seed(database_url))

    modules = "*" if everything else "taskflow.*"
    launcher = [sys.executable, "-m", "pyscope", "run", "--modules", modules, "-o", str(recording)]
    _say(f"2/4  starting TaskFlow under the recorder: pyscope run --modules {shlex.quote(modules)} …")
    server = ServerProcess(folder, {"DATABASE_URL": database_url, "TASKFLOW_PYSCOPE": ""}, launcher)
    with server:
        _say(f"3/4  driving {server.url} for {seconds:g} s")
        for scenario, share in (("steady", 0.75), ("dashboard", 0.25)):
            report = drive(LoadPlan(server.url, seconds * share, CONCURRENCY, scenario))
            _say(report.as_table() + "\n")
    status = server.stop()
    if status != 0:
        raise DemoFailed(f"the server ended with status {status} instead of 0:\n{server.log_tail()}")
    if not recording.exists():
        raise DemoFailed(f"there is no recording at {recording}; the server said:\n{server.log_tail()}")

    _say("4/4  what the recording says\n")
    _print_report(recording)
    _say(
        f"\nThe recording: {recording}\n"
        f"Look again:    {Path(sys.executable).name} -m pyscope report {shlex.quote(str(recording))}\n"
        f"In Python:     trace = pyscope.load({str(recording)!r}); trace.functions"
    )


async def _seed(database_url: str) -> None:
    database = Database(Settings(database_url=database_url))
    try:
        await seed(database, PROJECTS, TASKS)
    finally:
        await database.close()


def _print_report(recording: Path) -> None:
    command = [sys.executable, "-m", "pyscope", "report", str(recording)]
    try:
        subprocess.run(command, check=True, timeout=REPORT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise DemoFailed(
            f"the report took more than {REPORT_SECONDS} s; the recording is {recording}"
        ) from error
    except subprocess.CalledProcessError as error:
        raise DemoFailed(f"pyscope report ended with status {error.returncode} on {recording}") from error


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
