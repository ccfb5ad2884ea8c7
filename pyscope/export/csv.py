"""The calls as comma-separated values, with names in full: RFC 4180, UTF-8, one row a call."""

from __future__ import annotations

import csv
import io
from typing import IO, TYPE_CHECKING

from pyscope.tables import NUMBERS, categories
from pyscope.views.values import text

if TYPE_CHECKING:
    from pyscope.trace import Trace

__all__ = ["write"]

_BATCH = 50_000


def write(trace: Trace, file: IO[bytes]) -> None:
    """Writes the table: the columns of `Trace.to_arrow`; what is none is empty."""
    names = categories(trace)
    output = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    try:
        table = csv.writer(output)
        table.writerow([*names, *NUMBERS])
        values = {name: [*map(text, known), ""] for name, (_, known) in names.items()}
        for start in range(0, len(trace.calls), _BATCH):
            rows = slice(start, start + _BATCH)
            columns = [
                [values[name][code] for code in codes[rows].tolist()] for name, (codes, _) in names.items()
            ]
            columns += [trace.calls[name][rows].tolist() for name in NUMBERS]
            table.writerows(zip(*columns, strict=True))
    finally:
        output.detach()
