"""The command line: what each command takes. What it does stands in launch, report, doctor, recorder."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pyscope import config
from pyscope.config import BACKENDS, DETAILS, MODES
from pyscope.export import FORMATS
from pyscope.launch import EXTENSION, Program

__all__ = ["main"]


def main(arguments: Sequence[str]) -> Program | None:
    """Carry out the command in `arguments`, those after the command's own name.

    Returns the program that `run` was given, not started yet; None when the command is done. Raises
    SystemExit with code 2 for a usage error, 1 where a command found a problem, and `PyScopeError`.
    """
    try:
        result = pyscope.main(args=list(arguments), prog_name="pyscope", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except click.Abort:
        raise SystemExit(130) from None
    if isinstance(result, Program):
        return result
    if isinstance(result, int) and result != 0:
        raise SystemExit(result)
    return None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="pyscope", message="PyScope %(version)s")
def pyscope() -> None:
    """A flight recorder for Python services.

    \b
    pyscope run script.py        record a program
    pyscope report FILE          what ran, and what it cost; --html OUT makes a page of it
    pyscope live FILE            the same in the browser; PID is a running process
    """


# --- run -----------------------------------------------------------------------------------------


_OPTIONS = {
    "ring_mb": "--ring-mb",
    "path": "--output",
    "children": "--no-children",
}  # whose setting has another name


class _RunCommand(click.Command):
    """Leaves everything from the script, `-m` or `-c` onwards to the program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with_value = {
            name
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }
        position = 0
        while position < len(args) and args[position].startswith("-") and args[position] not in ("-", "--"):
            how, what = args[position][:2], args[position][2:]
            if how in ("-m", "-c"):  # also -mMODULE, as python has it
                args = [*args[:position], "--", how, *([what] if what else []), *args[position + 1 :]]
                break
            position += 2 if args[position] in with_value else 1
        return super().parse_args(ctx, args)


@pyscope.command(
    "run",
    cls=_RunCommand,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS]",
)
@click.option(
    "--modules", multiple=True, metavar="GLOB", help="Modules to record; may be repeated. '*' is all."
)
@click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Modules to leave out, stronger than --modules."
)
@click.option("--detail", type=click.Choice(DETAILS), help="c_calls records calls of C functions too.")
@click.option("--mode", type=click.Choice(MODES), help="flight keeps only the last seconds in memory.")
@click.option("--backend", type=click.Choice(BACKENDS), help="How to listen; see pyscope doctor.")
@click.option("--budget", metavar="PERCENT", help="Upper bound on the recorder's own cost, as in 3%.")
@click.option(
    "--keep", multiple=True, metavar="GLOB", help="What a budget never quiets; may be repeated, as --modules."
)
@click.option("--ring-mb", metavar="N", help="Memory of the recorder in MiB a process (64).")
@click.option(
    "--probes",
    multiple=True,
    metavar="NAME",
    help="Watch more than calls: auto, or sqlalchemy, http, redis, …; may be repeated. 'none' is calls only.",
)
@click.option(
    "--values",
    multiple=True,
    metavar="NAME",
    help="Let probes record values: sql_parameters, request_header:NAME, request_body; may be repeated.",
)
@click.option("--no-children", is_flag=True, help="Do not record child processes.")
@click.option(
    "-o", "--output", metavar="FILE", help=f"The recording; NAME-PID{EXTENSION} in this folder if not given."
)
@click.argument(
    "program", nargs=-1, type=click.UNPROCESSED, metavar="(SCRIPT | -m MODULE | -c CODE | -) [ARGS]..."
)
def run(
    modules: tuple[str, ...],
    exclude: tuple[str, ...],
    keep: tuple[str, ...],
    probes: tuple[str, ...],
    values: tuple[str, ...],
    no_children: bool,
    output: str | None,
    program: tuple[str, ...],
    **settings: str | None,
) -> Program:
    """Run a program and record it.

    Without --modules everything is recorded but the standard library and installed packages. The program
    behaves and ends as under `python`; PYSCOPE_DISABLE=1 runs it without recording.
    """
    if not program:
        raise click.UsageError("Name the program to run: pyscope run script.py, or pyscope run -m module.")
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if modules:
        given["modules"] = _split(modules)
    if exclude:
        given["exclude"] = _split(exclude)
    if keep:
        given["keep"] = _split(keep)
    if probes:
        given["probes"] = [name for name in _split(probes) if name != "none"]
    if values:
        given["values"] = _split(values)
    if output is not None:
        given["path"] = output
    if no_children:
        given["children"] = False
    for name, value in given.items():
        config.check(name, value, _OPTIONS.get(name, f"--{name}"))
    return Program(program, given)


def _split(values: Sequence[str]) -> list[str]:
    return [part for value in values for part in value.split(",")]


# --- what reads recordings -----------------------------------------------------------------------


@pyscope.command("report", short_help="Print what went wrong, what was hot and slow, and what is missing.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1), help="Rows of each table.")
@click.option(
    "--sort",
    type=click.Choice(["self", "total", "calls"]),
    help="One table of functions in this order, instead of two: by self and by total time.",
)
@click.option("--function", "pattern", metavar="GLOB", help="Only functions whose module.name matches.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OUT",
    help="Write one HTML file to look around in, instead; it needs no server and no network.",
)
def report(
    file: Path, limit: int, sort: str | None, pattern: str | None, as_json: bool, html: Path | None
) -> None:
    """Print what a recording holds: what went wrong and what to change, the hottest functions, the slowest calls,
    exceptions, losses, cost."""
    from pyscope.analysis.summary import summarize
    from pyscope.trace import load

    if html is not None:
        limited = click.get_current_context().get_parameter_source("limit") is not ParameterSource.DEFAULT
        if as_json or sort or pattern or limited:
            raise click.UsageError(
                "What --html writes is sorted and searched in the browser: "
                "leave out --json, --sort, --function and --limit."
            )
        _export(file, "html", html)
        return
    trace = load(file)
    summary = summarize(trace, limit=limit, sort=sort, pattern=pattern)
    from pyscope.analysis.ranking import rank

    ranking = rank(trace, limit=max(limit, 20))
    if as_json:
        _print_json(summary.to_dict() | {"ranking": None if ranking is None else dataclasses.asdict(ranking)})
        return
    from pyscope import report as rendering

    rendering.render(summary, title=str(file), ranking=ranking)


@pyscope.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", "form", required=True, type=click.Choice(FORMATS), help="What the file is for.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OUT",
    help="Where it goes; beside FILE, with an extension of its own, if not given.",
)
def export(file: Path, form: str, output: Path | None) -> None:
    """Write a recording as a file that other programs read.

    \b
    html         the report to look around in, for any browser
    chrome       for chrome://tracing and ui.perfetto.dev; perfetto is the same
    speedscope   for speedscope.app
    csv          the calls as a table; parquet and arrow are the same, typed
    """
    _export(file, form, output)


def _export(file: Path, form: str, output: Path | None) -> None:
    from pyscope.analysis.counting import counted
    from pyscope.export import SHOWS_LOSSES, write
    from pyscope.printing import size
    from pyscope.trace import load

    trace = load(file)
    path = write(trace, form, output)
    if trace.losses and form not in SHOWS_LOSSES:
        click.echo(
            f"What the recording misses is not in this file ({counted(len(trace.losses), 'loss', 'losses')}): "
            f"see pyscope report {file}",
            err=True,
        )
    if path.is_file():  # into a pipe the export goes alone
        click.echo(f"{path} ({size(path.stat().st_size)})")


@pyscope.command("live", short_help="Show a process or a recording in the browser.")
@click.argument("target", metavar="FILE|DIR|PID")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option(
    "--allow-host", "hosts", multiple=True, metavar="NAME", help="A name under which it is reached, too."
)
@click.option("--read-only", is_flag=True, help="Without controls.")
def live(target: str, host: str, port: int, hosts: tuple[str, ...], read_only: bool) -> int:
    """Show a running process, or a recording, in the browser, as it happens.

    TARGET is a recording, a folder (its newest recording), or the id of a process that is being recorded: it does
    nothing for it. The address is printed, with a secret of its own unless PYSCOPE_TOKEN gives one.
    """
    from pyscope.live import serving

    return serving.serve(target, host=host, port=port, hosts=hosts, read_only=read_only)


@pyscope.command("recover", short_help="Complete the recordings of killed processes.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def recover(path: Path, as_json: bool) -> None:
    """Complete the recordings of processes that were killed, from what their rings still hold.

    PATH is a recording, or a folder: then each *.pyscope in it.
    """
    import dataclasses

    from pyscope import recorder

    found = recorder.recover(path)
    if as_json:
        _print_json([dataclasses.asdict(row) for row in found])
        return
    from pyscope import report as rendering

    rendering.render_recovered(found, path)


@pyscope.command("dump", short_help="Write the last seconds of a running process to a file.")
@click.argument("pid", type=click.IntRange(1))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The recording; dump-PID.pyscope here if not given.",
)
@click.option("--no-children", is_flag=True, help="Only this process, not those that it started.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def dump(pid: int, output: Path | None, no_children: bool, as_json: bool) -> None:
    """Write what the flight recorder of a running process holds: its last seconds, and those of its children.

    PID is a process that records with --mode flight. It goes on, and does nothing for it: one that hangs can be
    dumped as well.
    """
    import dataclasses

    from pyscope import attach

    path = output or Path(f"dump-{pid}{EXTENSION}")
    found = attach.dump(pid, path, children=not no_children)
    if as_json:
        _print_json([dataclasses.asdict(row) for row in found])
        return
    from pyscope import report as rendering

    rendering.render_dumped(found, path)


@pyscope.command("doctor", short_help="Say whether and how recording works here.")
@click.option("--modules", multiple=True, metavar="GLOB", help="As for pyscope run.")
@click.option("--detail", type=click.Choice(DETAILS), help="As for pyscope run.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def doctor(modules: tuple[str, ...], detail: str | None, as_json: bool) -> int:
    """Say whether and how recording works here: backend, clock, ring, settings, extras.

    The exit code is 1 if recording would not work.
    """
    from pyscope import doctor as diagnosis

    globs = _split(modules)
    config.check("modules", globs, "--modules")
    found = diagnosis.examine(modules=globs or None, detail=detail)
    if as_json:
        _print_json(found.to_dict())
    else:
        from pyscope import report as rendering

        rendering.render_diagnosis(found)
    return 0 if found.works else 1


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")
