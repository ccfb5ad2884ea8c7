"""Names of a whole trace: the ids of each process's table become indexes into lists shared by all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyscope.process_record import ProcessRecord

GENERATOR_EXIT = "builtins.GeneratorExit"
UNNAMED = "<unnamed>"
_EARLIEST, _LATEST = -(1 << 62), 1 << 62


@dataclass(frozen=True, slots=True)
class FunctionName:
    """What tells a function from others."""

    module: str
    qualname: str
    file: str
    line: int
    arity: int
    flags: int


@dataclass(frozen=True, slots=True)
class ProcessInput:
    """One process as the codec takes it; see _codec.pyi."""

    start_ticks: int
    start_unix_ns: int
    ns_per_tick: float
    chunks: NDArray[np.void]
    functions: NDArray[np.int32]
    unnamed: int
    exceptions: NDArray[np.int32]
    generator_exit: int
    flight: bool


@dataclass(frozen=True, slots=True)
class Names:
    """The lists that a trace's columns index, and the input that makes the codec index them.

    The last function is the one without a name: its table record is lost or there was no room for it.
    `threads`: (process, number in the process, name, OS id).
    """

    functions: list[FunctionName]
    exceptions: list[str]
    threads: list[tuple[int, int, str, int]]
    inputs: list[ProcessInput]


def name_processes(processes: Iterable[ProcessRecord]) -> Names:
    """Interns the names of all processes of a recording."""
    functions: dict[FunctionName, int] = {}
    exceptions: dict[str, int] = {}
    threads: list[tuple[int, int, str, int]] = []
    tables = []
    for number, record in enumerate(processes):
        by_code = np.full(max(record.codes, default=-1) + 1, -1, np.int32)
        for code, row in record.codes.items():
            text = record.strings.get
            name = FunctionName(text(row.module, "?"), text(row.qualname, "?"), text(row.file, "?"), row.line,
                                row.arity, row.flags)  # fmt: skip
            by_code[code] = functions.setdefault(name, len(functions))
        by_exception = np.full(max(record.exceptions, default=-1) + 1, -1, np.int32)
        for exception, string in record.exceptions.items():
            if string in record.strings:
                name_of = record.strings[string]
                by_exception[exception] = exceptions.setdefault(name_of, len(exceptions))
        first = len(threads)
        threads += [(number, thread, name, tid) for thread, (name, tid) in record.thread_names.items()]
        chunks = record.chunks.copy()
        own = np.array(list(record.thread_names), np.uint32)  # in order
        chunks["thread"] = first + np.searchsorted(own, chunks["thread"])
        tables.append((record, chunks, by_code, by_exception))
    unnamed = len(functions)
    inputs = []
    for record, chunks, by_code, by_exception in tables:
        by_code[by_code < 0] = unnamed
        inputs.append(
            ProcessInput(
                start_ticks=record.info.start.ticks,
                start_unix_ns=min(max(record.info.start.unix_ns, _EARLIEST), _LATEST),
                ns_per_tick=record.ns_per_tick,
                chunks=chunks,
                functions=by_code,
                unnamed=unnamed,
                exceptions=by_exception,
                generator_exit=exceptions.get(GENERATOR_EXIT, -1),
                flight=record.info.flight,
            )
        )
    return Names([*functions, FunctionName("", UNNAMED, "", 0, 0, 0)], list(exceptions), threads, inputs)
