"""The calls as an Apache Arrow file (IPC, Feather V2), which other programs map into memory. Needs pyarrow."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["write"]


def write(trace: Trace, file: IO[bytes]) -> None:
    """Writes the table of `Trace.to_arrow`. Raises MissingExtra without pyarrow."""
    table = trace.to_arrow()
    import pyarrow

    with pyarrow.ipc.new_file(file, table.schema) as output:
        output.write_table(table)
