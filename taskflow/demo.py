"""The demo: the whole TaskFlow under PyScope's recorder, with faults, driven over HTTP; what came of it.

`python -m taskflow.demo` takes about a minute. Whatever happens, Ctrl-C included, it leaves no process
behind; the recording stays.
"""

import argparse
import asyncio
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from taskflow.data.database import Database, SyncDatabase
from taskflow.data.seeds import seed
from taskflow.faults import (
    ASSIGN_RACE,
    BLOCKING_CALL,
    CHECK_THEN_ACT_AWAIT,
    FLAKY_WEBHOOK,
    LOST_UPDATE,
    N_PLUS_ONE_DASHBOARD,
    N_PLUS_ONE_GET_LOOP,
    SLOW_ENDPOINT,
    WORKER_CRASH,
    WRITE_SKEW,
    parse_faults,
)
from taskflow.load import Ledger, LoadError, LoadPlan, drive
from taskflow.load.invariants import violations
from taskflow.process import ServerFailed, ServerProcess, interrupts_deferred
from taskflow.settings import Settings
from taskflow.sinks import MailSink, WebhookSink

PROJECTS: Final = 20
TASKS: Final = 2000
REPORT_SECONDS: Final = 120
INTERRUPTED: Final = 130
# Those that show within seconds and leave a service that still answers everyone.
FAULTS: Final = (
    N_PLUS_ONE_DASHBOARD,
    N_PLUS_ONE_GET_LOOP,
    ASSIGN_RACE,
    LOST_UPDATE,
    WRITE_SKEW,
    CHECK_THEN_ACT_AWAIT,
    WORKER_CRASH,
    FLAKY_WEBHOOK,
    BLOCKING_CALL,
    SLOW_ENDPOINT,
)
# Which share of the time belongs to each scenario.
SCENARIOS: Final = {"chaos": 0.6, "reports": 0.4}


class DemoFailed(Exception):
    """A step of the demo failed; the message says which and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m taskflow.demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="how long to drive load (default 15)")
    parser.add_argument(
        "--faults",
        default=",".join(fault.name for fault in FAULTS),
        help="comma-separated, or none (default: those that show within seconds)",
    )
    parser.add_argument("--everything", action="store_true", help="record every module, libraries included")
    parser.add_argument("-o", "--output", type=Path, help="where the recording goes (default: a new folder)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        folder = Path(tempfile.mkdtemp(prefix="taskflow-demo-"))
        recording = (options.output or folder / "taskflow.pyscope").absolute()
        options.faults = parse_faults(options.faults)
        _demonstrate(folder, recording, options)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; nothing is left running\n")
        return INTERRUPTED
    except (DemoFailed, ServerFailed, LoadError, OSError, ValueError) as error:
        sys.stderr.write(f"the demo failed: {error}\n")
        return 1
    return 0


def _demonstrate(folder: Path, recording: Path, options: argparse.Namespace) -> None:
    database_url = f"sqlite:///{folder / 'taskflow.db'}"
    _say(f"1/5  seeding a database with {PROJECTS} projects and {TASKS} tasks")
    with interrupts_deferred():
        asyncio.run(_seed(database_url))

    modules = "*" if options.everything else "taskflow.*"
    launcher = [
        sys.executable,
        "-m",
        "pyscope",
        "run",
        "--modules",
        modules,
        "--probes",
        "auto",
        "-o",
        str(recording),
    ]
    _say(
        f"2/5  starting TaskFlow under the recorder: pyscope run --modules {shlex.quote(modules)} --probes auto …"
    )
    _say(f"     faults: {', '.join(sorted(options.faults)) or 'none'}")
    secret = secrets.token_hex()
    with MailSink() as mail, WebhookSink(secret) as hooks:
        environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": "",
            "TASKFLOW_FAULTS": ",".join(options.faults) or "none",
            "TASKFLOW_PYSCOPE": "",
            "TASKFLOW_SMTP_URL": mail.url,
            "TASKFLOW_STORAGE_URL": str(folder / "files"),
            "TASKFLOW_WEBHOOK_SECRET": secret,
            "TASKFLOW_WEBHOOK_URLS": hooks.url,
        }
        server = ServerProcess(folder, environment, launcher)
        with server:
            _say(f"3/5  driving {server.url} for {options.seconds:g} s")
            ledgers = _drive(server.url, options.seconds, folder)
        _say(
            f"{mail.messages} e-mails and {hooks.deliveries} webhooks arrived, {hooks.forged} of them forged"
        )
    if (status := server.stop()) != 0:
        raise DemoFailed(f"the server ended with status {status} instead of 0:\n{server.log_tail()}")
    if not recording.exists():
        raise DemoFailed(f"there is no recording at {recording}; the server said:\n{server.log_tail()}")

    _say("\n4/5  what the faults did to the data: the audit of the database\n")
    _audit(database_url, ledgers)

    _say("\n5/5  what the recording says\n")
    _print_report(recording)
    _say(
        f"\nThe recording: {recording}\n"
        f"Look again:    {Path(sys.executable).name} -m pyscope report {shlex.quote(str(recording))}\n"
        f"In Python:     trace = pyscope.load({str(recording)!r}); trace.functions"
    )


def _drive(url: str, seconds: float, folder: Path) -> list[Path]:
    """Drive each scenario and print how it went; returns the ledgers."""
    ledgers = []
    for scenario, share in SCENARIOS.items():
        ledgers.append(folder / f"{scenario}.ledger")
        report = drive(LoadPlan(url, seconds * share, scenario=scenario, ledger=ledgers[-1]))
        _say(report.as_table() + "\n")
    return ledgers


def _audit(database_url: str, ledgers: Sequence[Path]) -> None:
    database = SyncDatabase(Settings(database_url=database_url))
    try:
        with database.reading() as repo:
            found = [broken for ledger in ledgers for broken in violations(repo.session, Ledger.read(ledger))]
    finally:
        database.close()
    # What the rows themselves contradict is seen with each ledger.
    _say("\n".join(dict.fromkeys(found)) or "every invariant holds")


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
