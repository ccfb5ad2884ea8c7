"""Run a program in this process as `python` would, under a recording: the work of `pyscope run`.

The program gets its own `__main__`, `sys.argv` and `sys.path[0]`; how it ends (exit codes, tracebacks,
Ctrl-C) is left to the interpreter, with the frames of PyScope cut from an unhandled exception.
"""

from __future__ import annotations

import importlib.util
import linecache
import os
import pkgutil
import runpy
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import BuiltinImporter, PathFinder, SourceFileLoader, SourcelessFileLoader
from typing import TYPE_CHECKING, Any

from pyscope.errors import RecorderError

if TYPE_CHECKING:
    from pyscope.config import Settings

__all__ = ["Program", "recording_path"]

EXTENSION = ".pyscope"


@dataclass(frozen=True, slots=True)
class Program:
    """A program and how to record it.

    Parameters: `arguments`, what would follow `python` on the command line (`script.py …`, a folder or
    zip file with a `__main__.py`, `-m module …`, `-c code …`, or `- …` for standard input);
    `settings`, keyword arguments of `pyscope.start`.
    """

    arguments: Sequence[str]
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the default recording, without process id and extension."""
        if self.arguments[0] == "-m":
            return self.arguments[1] if len(self.arguments) > 1 else "module"
        if self.arguments[0] in ("-c", "-"):
            return "python"
        path = self.arguments[0].rstrip("/")
        return os.path.splitext(os.path.basename(os.path.abspath(path)))[0] or "program"

    def start_recording(self) -> None:
        """Start recording. It ends at exit, after the program's atexit handlers: last in, first out.

        Does nothing where `PYSCOPE_DISABLE` says so, and where there is no such script, which `execute` tells: a
        recording of before is not replaced by that of a slip. Raises `ConfigError`, or `RecorderError` if the
        recording cannot be started.
        """
        from pyscope import config

        settings = config.resolve(**self.settings)
        if settings.disable or not self._there():
            return
        import pyscope

        path = recording_path(settings, f"{self.name}-{os.getpid()}{EXTENSION}")
        start: dict[str, Any] = dict(self.settings)
        if path is not None:
            start["path"] = path
        try:
            pyscope.start(**start)
        except OSError as error:
            raise RecorderError(
                f"The recording {path or self.name} cannot be written: {error.strerror or error}. "
                "Name another file with -o FILE, or another folder for the ring with PYSCOPE_RING_DIR."
            ) from error

    def _there(self) -> bool:
        if self.arguments[0] == "-m":
            return len(self.arguments) > 1 and _is_module(self.arguments[1].partition(".")[0])
        if self.arguments[0] == "-c":
            return len(self.arguments) > 1
        return self.arguments[0] == "-" or os.path.exists(self.arguments[0])

    def execute(self) -> None:
        """Run the program. Returns or raises as it does; an exception's traceback shows its frames only."""
        main = types.ModuleType("__main__")
        main.__dict__.update(__builtins__=sys.modules["builtins"])
        if sys.version_info < (3, 14):
            main.__dict__.update(__annotations__={})
        _replaced.append(sys.modules["__main__"])
        sys.modules["__main__"] = main
        try:
            if self.arguments[0] == "-m":
                _execute_module(self.arguments)
            elif self.arguments[0] in ("-c", "-"):
                _execute_text(self.arguments, main)
            else:
                _execute_path(self.arguments, main)
        except SystemExit:
            raise
        except BaseException as error:  # only now: while it ran, sys.excepthook was the program's own affair
            if (supervision := sys.modules.get("pyscope.probes.supervision")) is not None:
                supervision.uncaught(error)
            if callable(sys.excepthook):
                sys.excepthook = _ProgramTraceback(sys.excepthook)
            raise


_replaced: list[types.ModuleType] = []  # our own __main__, whose code is still running


# --- what the interpreter does at its own start ----------------------------------------------------


def recording_path(settings: Settings, name: str) -> str | None:
    """Where a program's recording goes: `name` if the settings say nothing; None for the flight recorder of a service
    that may write nowhere, which is dumped, and not written at its stop."""
    path = os.path.abspath(settings.path or name)
    if settings.path is None and settings.mode == "flight" and not os.access(os.path.dirname(path), os.W_OK):
        return None
    return path


def _execute_module(arguments: Sequence[str]) -> None:
    if len(arguments) < 2:
        print("Argument expected for the -m option", file=sys.stderr)
        raise SystemExit(2)
    _set_first_path(os.getcwd())
    sys.argv[:] = ["-m", *arguments[2:]]
    _run_module_as_main(arguments[1])


def _is_module(name: str) -> bool:
    """Whether `-m` would find a module or package of that name, at the top."""
    here = [] if sys.flags.safe_path else [os.getcwd()]
    return PathFinder.find_spec(name, here) is not None or importlib.util.find_spec(name) is not None


def _execute_text(arguments: Sequence[str], main: types.ModuleType) -> None:
    if arguments[0] == "-":
        file, source = "<stdin>", sys.stdin.buffer.read()
        sys.argv[:] = arguments
        main.__dict__.update(__file__=file, __cached__=None)
    elif len(arguments) > 1:
        file, source = "<string>", arguments[1].encode("utf-8", "surrogateescape")
        sys.argv[:] = ["-c", *arguments[2:]]
        if sys.version_info >= (3, 13):  # from then on tracebacks show its lines
            lines = arguments[1].splitlines(keepends=True)
            linecache.cache[file] = len(arguments[1]), None, lines, file
    else:
        print("Argument expected for the -c option", file=sys.stderr)
        raise SystemExit(2)
    _set_first_path("")
    main.__dict__.update(__spec__=None, __package__=None, __doc__=None, __loader__=BuiltinImporter)
    exec(compile(source, file, "exec", dont_inherit=True), main.__dict__)


def _execute_path(arguments: Sequence[str], main: types.ModuleType) -> None:
    path = arguments[0]
    sys.argv[:] = arguments
    if os.path.isdir(path) or pkgutil.get_importer(path) is not None:  # a folder or a zip file
        absolute = os.path.abspath(path)
        _set_first_path(absolute, always=True)
        _run_module_as_main("__main__", alter_argv=False)
        return
    absolute = (
        path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    )  # as python does: not normalised
    try:
        code, loader = _read_script(absolute)
    except OSError as error:
        message = f"can't open file {absolute!r}: [Errno {error.errno}] {error.strerror}"
        print(f"{sys.executable}: {message}", file=sys.stderr)
        raise SystemExit(2) from None
    _set_first_path(os.path.dirname(os.path.realpath(absolute)))
    main.__dict__.update(
        __file__=absolute, __cached__=None, __spec__=None, __package__=None, __doc__=None, __loader__=loader
    )
    exec(code, main.__dict__)


def _read_script(path: str) -> tuple[types.CodeType, object]:
    with open(path, "rb") as stream:
        code: types.CodeType | None = pkgutil.read_code(stream) if path.endswith(".pyc") else None
    if code is not None:
        return code, SourcelessFileLoader("__main__", path)
    with open(path, "rb") as stream:
        source = stream.read()
    return compile(source, path, "exec", dont_inherit=True), SourceFileLoader("__main__", path)


def _set_first_path(folder: str, always: bool = False) -> None:
    if not sys.flags.safe_path:
        sys.path[0] = folder  # what stood there was ours: the folder of the command, or of `python -m`
    elif always:
        sys.path.insert(0, folder)


# What `python -m` itself calls. It fills the module that sys.modules holds as __main__.
_run_module_as_main: Any = runpy._run_module_as_main  # type: ignore[attr-defined]


class _ProgramTraceback:
    """A sys.excepthook that cuts the frames of PyScope off and gives way to the hook before it."""

    def __init__(self, previous: Any) -> None:
        self._previous = previous

    def __call__(
        self, kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
    ) -> None:
        sys.excepthook = self._previous
        trace = _program_frames(trace)
        error = error.with_traceback(trace)
        sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
        if sys.version_info >= (3, 12):
            sys.last_exc = error
        self._previous(kind, error, trace)


_OWN_CODE = (
    Program.execute.__code__,
    _execute_module.__code__,
    _execute_text.__code__,
    _execute_path.__code__,
    _read_script.__code__,
)


def _program_frames(trace: types.TracebackType | None) -> types.TracebackType | None:
    """The part of a traceback that follows the last frame of ours; all of it if there is none."""
    inner = trace
    last = None
    while inner is not None and last is not _OWN_CODE[0]:
        last = inner.tb_frame.f_code
        inner = inner.tb_next
    if last is not _OWN_CODE[0]:
        return trace
    while inner is not None and inner.tb_frame.f_code in _OWN_CODE:
        inner = inner.tb_next
    return inner
