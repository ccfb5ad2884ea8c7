"""The `pyscope` command, also as `python -m pyscope`."""

from __future__ import annotations

import os
import sys

from pyscope.errors import MissingExtra, PyScopeError
from pyscope.launch import Program

__all__ = ["main"]


def main() -> None:
    """Run the command line in sys.argv; ends by SystemExit, or as the program that `run` was given ends."""
    program = _command()
    if program is not None:
        program.execute()  # outside every handler of ours: how it ends is the interpreter's affair


def _command() -> Program | None:
    try:
        from pyscope import cli

        program = cli.main(sys.argv[1:])
        if program is not None:
            program.start_recording()
        return program
    except PyScopeError as error:
        problem: Exception = error
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        problem = MissingExtra("The command line", error.name, "cli")
    except BrokenPipeError:  # `pyscope report … | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:  # standard output is on a disk that is full, say
        problem = error if _has_folder() else PyScopeError(_NO_FOLDER)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    print(f"pyscope: {problem}", file=sys.stderr)
    raise SystemExit(2)


_NO_FOLDER = "the folder that this was started in has been deleted: change to one that is there"


def _has_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
