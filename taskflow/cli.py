"""`python -m taskflow`: serve the application, seed its database, drive load against it."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from taskflow.errors import TaskFlowError
from taskflow.load.ledger import Ledger
from taskflow.load.plan import LoadError, LoadPlan, add_arguments
from taskflow.process import importable
from taskflow.settings import Settings, explain

USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a failure, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except ValidationError as error:
        return _complain(explain(error), USAGE_ERROR)
    except LoadError as error:
        return _complain(str(error), USAGE_ERROR)
    except (TaskFlowError, SQLAlchemyError, OSError) as error:
        return _complain(str(error), 1)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m taskflow", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve the application over HTTP")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=_port, default=8000, help="0 takes a free one")
    serve.add_argument("--port-file", type=Path, help="write the port there once requests are accepted")
    serve.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="warning")
    serve.set_defaults(command=_serve)

    seed = commands.add_parser("seed", help="fill an empty database, always with the same rows")
    seed.add_argument("--projects", type=int, default=50)
    seed.add_argument("--tasks", type=int, default=5000)
    seed.set_defaults(command=_seed)

    load = commands.add_parser("load", help="drive a running service and print how it did")
    add_arguments(load)
    load.set_defaults(command=_load)

    audit = commands.add_parser(
        "audit", help="check what must hold in the database, after a load or at any time"
    )
    audit.add_argument("ledger", type=Path, nargs="?", help="what `load --ledger` has written")
    audit.set_defaults(command=_audit)
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is between 0 and 65535")
    return port


def _serve(options: argparse.Namespace) -> int:
    settings = Settings()
    from taskflow.web.server import serve

    return serve(settings, options.host, options.port, options.port_file, options.log_level)


def _seed(options: argparse.Namespace) -> int:
    from taskflow.data.database import Database
    from taskflow.data.seeds import Seeded, seed

    async def run() -> Seeded:
        database = Database(Settings())
        try:
            return await seed(database, options.projects, options.tasks)
        finally:
            await database.close()

    try:
        written = asyncio.run(run())
    except ValueError as error:
        if isinstance(error, ValidationError):
            raise
        return _complain(str(error), USAGE_ERROR)
    sys.stdout.write(f"seeded {written.users} users, {written.projects} projects, {written.tasks} tasks\n")
    return 0


def _load(options: argparse.Namespace) -> NoReturn:
    plan = LoadPlan.from_options(options)
    plan.check()
    # Locust needs a process that was its own from the start: this one becomes it.
    arguments = plan.arguments() + (["--json"] if options.json else [])
    command = [sys.executable, "-m", "taskflow.load", *arguments]
    os.execve(sys.executable, command, importable(dict(os.environ)))


def _audit(options: argparse.Namespace) -> int:
    from taskflow.data.database import SyncDatabase
    from taskflow.load.invariants import violations

    try:
        ledger = Ledger.read(options.ledger) if options.ledger else None
    except ValueError as error:
        return _complain(str(error), USAGE_ERROR)
    database = SyncDatabase(Settings())
    try:
        with database.reading() as repo:
            found = violations(repo.session, ledger)
    finally:
        database.close()
    sys.stdout.write("\n".join(found or ["every invariant holds"]) + "\n")
    return 1 if found else 0


def _complain(message: str, status: int) -> int:
    sys.stderr.write(f"{message}\n")
    return status
