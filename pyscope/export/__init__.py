"""Exports: a recording as a file that other programs show or read; one file here for each format."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pyscope.errors import ExportError

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["FORMATS", "SHOWS_LOSSES", "write"]

_MODULES = {
    "html": ("html", ".html"),
    "chrome": ("chrome", ".trace.json"),
    "perfetto": ("chrome", ".trace.json"),
    "speedscope": ("speedscope", ".speedscope.json"),
    "csv": ("csv", ".csv"),
    "parquet": ("parquet", ".parquet"),
    "arrow": ("arrow", ".arrow"),
}
FORMATS = tuple(_MODULES)
"""What a recording can be exported to."""
SHOWS_LOSSES = ("html", "chrome", "perfetto")
"""Those of FORMATS that tell of `Trace.losses`; the others hold calls only."""


def write(trace: Trace, form: str, path: str | os.PathLike[str] | None = None) -> Path:
    """Writes a trace in a format of FORMATS and returns where to: `path`, or beside the recording if that is None.

    A file that is there is replaced once the new one is whole; only its owner may read it. Raises ValueError for
    another format, ExportError if it cannot be written, MissingExtra if a library that the format needs is missing.
    """
    if form not in _MODULES:
        raise ValueError(f"format is {form!r}; it must be one of {', '.join(FORMATS)}")
    name, extension = _MODULES[form]
    module = importlib.import_module(f"pyscope.export.{name}")
    target = Path(trace.path).with_suffix(extension) if path is None else Path(path)
    if target.exists() and os.path.exists(trace.path) and os.path.samefile(target, trace.path):
        raise ExportError(f"{target} is the recording itself: write the export to another file.")
    try:
        with _whole(target) as file:
            module.write(trace, file)
    except OSError as error:
        reason = error.strerror or error
        raise ExportError(f"cannot write {target}: {reason}. Name a file that can be written.") from error
    return target


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[IO[bytes]]:
    """A file for its owner alone, as recordings are, that takes its name when it is complete.

    What is no regular file, such as a pipe, is written to.
    """
    if target.exists() and not target.is_file():
        with open(target, "wb") as file:
            yield file
        return
    target = Path(os.path.realpath(target))  # a link stays: it may be /dev/stdout
    fd, part = tempfile.mkstemp(prefix=f".{target.name[:200]}.", suffix=".part", dir=target.parent)
    try:
        with open(fd, "wb") as file:
            yield file
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
