"""The calls as Apache Parquet, typed and compressed. Needs pyarrow."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["write"]


def write(trace: Trace, file: IO[bytes]) -> None:
    """Writes the table of `Trace.to_arrow`. Raises MissingExtra without pyarrow."""
    table = trace.to_arrow()
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, file, compression="zstd")
