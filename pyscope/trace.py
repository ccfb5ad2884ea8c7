"""A loaded recording: columns of calls and events, the functions, and all that is missing.

Times are nanoseconds since the Unix epoch, durations nanoseconds, memory bytes, unless a name says otherwise.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from pyscope import codec as codecs
from pyscope.errors import RecordingError, RecordingNotFound
from pyscope.events import EventType
from pyscope.format import CodeFlag, LossReason
from pyscope.naming import name_processes
from pyscope.probe_events import ProbeEvents, ProbeNames
from pyscope.process_record import Missing, ProcessRecord
from pyscope.recording import Recording, open_recording
from pyscope.rows import OUTCOMES, Columns, Context, Contexts, Function, Location, Loss, Process, Thread

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from pyscope.scopes import Scopes

__all__ = [
    "OUTCOMES",
    "Call",
    "Calls",
    "Columns",
    "Context",
    "Function",
    "Loss",
    "Process",
    "Thread",
    "Trace",
    "load",
]

_READER_LOSSES = {100: "missing_pages", 101: "damaged_chunk"}


@dataclass(frozen=True)
class Call:
    """One call. `thread` and `context` are names (context: None for the thread itself), `arity` counts
    parameters without self or cls, `outcome` is one of OUTCOMES, `exception` the type that left it, or None.
    `index` is its row in `Trace.calls`.
    """

    module: str
    qualname: str
    function: str
    arity: int
    start_ns: int
    duration_ns: int
    self_ns: int
    thread: str
    context: str | None
    outcome: str
    exception: str | None
    depth: int
    index: int = field(repr=False, compare=False)
    trace: Trace = field(repr=False, compare=False)

    @property
    def parent(self) -> Call | None:
        """The call that made this one, or None."""
        row = int(self.trace.calls["parent"][self.index])
        return self.trace.call(row) if row >= 0 else None

    def children(self) -> Calls:
        """The calls that this one made, in order of start."""
        return Calls(self.trace, self.trace._children(self.index))


class Calls(Sequence[Call]):
    """A sequence of calls, each made when it is asked for. `rows` are their rows in `Trace.calls`."""

    def __init__(self, trace: Trace, rows: NDArray[np.intp]) -> None:
        self._trace = trace
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Call: ...
    @overload
    def __getitem__(self, at: slice) -> Calls: ...
    def __getitem__(self, at: int | slice) -> Call | Calls:
        if isinstance(at, slice):
            return Calls(self._trace, self.rows[at])
        return self._trace.call(int(self.rows[at]))

    def __repr__(self) -> str:
        return f"<{len(self)} calls>"


class Trace:
    """A recording, loaded. `load` makes it. Calls are paired and events decoded when first asked for.

    Attributes: `path`; `threads`, a list of Thread; `exceptions`, a list of type names.
    """

    def __init__(self, recording: Recording, codec: codecs.Codec) -> None:
        self.path = recording.path
        self._recording = recording
        self._codec = codec
        self._names = name_processes(recording.processes)
        self.threads = [Thread(name, process, tid) for process, _, name, tid in self._names.threads]
        self.exceptions = self._names.exceptions

    # columns

    @cached_property
    def _paired(self) -> dict[str, Any]:
        inputs = self._names.inputs
        try:
            return self._codec.pair_calls(self._recording.buffers, inputs, len(self._names.functions))
        except MemoryError as error:
            raise RecordingError(
                f"{self.path} needs more memory to pair its calls than there is: record fewer modules"
            ) from error

    @cached_property
    def calls(self) -> Columns:
        """The calls, in order of start within each process, process after process.

        Columns: function (int32, index in `functions`), start_ns, duration_ns (to the end, suspensions
        included), self_ns (without callees and suspensions) (int64), parent (int32, row, -1 for none), depth
        (int32, 0 for a root), thread (int32, index in `threads`), context (int32, index in `contexts`, 0 for
        the thread itself), outcome (uint8, index in OUTCOMES), exception (int32, index in `exceptions`, -1
        for none).
        """
        return Columns(self._paired["columns"])

    @cached_property
    def events(self) -> Columns:
        """The events as they were recorded, thread after thread, in order of time within each.

        Columns: time_ns (int64), thread, context (int32, as in `calls`), kind (uint8, `pyscope.format.Kind`),
        code (int32: for kinds up to C_RAISE the index in `functions`, one beyond its end for a function whose
        name is lost; of a LOSS its LossReason, of a PAYLOAD its type).
        """
        inputs = self._names.inputs
        return Columns(self._codec.decode_events(self._recording.buffers, inputs, len(self._names.functions)))

    @cached_property
    def begun_before(self) -> NDArray[np.int64]:
        """Rows of generators and coroutines that had begun before the recording: first seen when resumed."""
        return np.asarray(self._paired["begun_before"])

    # probes

    def probe_events(self, event: EventType) -> ProbeEvents:
        """The events of a probe's type, in order of time; see `pyscope.events`."""
        found = self._probe_events.get(event.kind)
        if found is None:
            columns = self._paired["probes"].get((event.kind, len(event.numbers)))
            found = self._probe_events[event.kind] = ProbeEvents(event, columns, self._probe_names)
        return found

    @property
    def has_probe_events(self) -> bool:
        """Whether any probe has told anything."""
        return bool(self._paired["probes"])

    @cached_property
    def _probe_events(self) -> dict[int, ProbeEvents]:
        return {}

    @cached_property
    def _probe_names(self) -> ProbeNames:
        return ProbeNames(self._recording.processes)

    @cached_property
    def scopes(self) -> Scopes:
        """The requests, messages, reports and tasks that events belong to, in order of their begin."""
        from pyscope.scopes import of_trace

        return of_trace(self)

    @property
    def strings(self) -> list[str]:
        """The strings that fields of probe events refer to."""
        return self._probe_names.strings

    def stack(self, number: int) -> tuple[Location, ...]:
        """The stack that a field of a probe event refers to: the user's own frames, innermost first."""
        return self._probe_names.stack(number)

    # names

    @cached_property
    def functions(self) -> list[Function]:
        """The functions that the recording names, with their totals."""
        totals = self._paired["totals"]
        columns = (totals[name].tolist() for name in ("calls", "total_ns", "self_ns"))
        unrecorded = self._unrecorded_calls.get
        rows = [
            Function(
                n.module,
                n.qualname,
                n.file,
                n.line,
                calls,
                total,
                own,
                n.arity,
                _kind(n.flags),
                unrecorded(i, 0),
            )
            for i, (n, calls, total, own) in enumerate(zip(self._names.functions, *columns, strict=True))
        ]
        return rows if rows[-1].calls else rows[:-1]

    @cached_property
    def contexts(self) -> Contexts:
        """The contexts: index 0 is "none", the thread itself; then tasks and greenlets."""
        return Contexts(self._paired["contexts"], self._paired["context_names"])

    @cached_property
    def processes(self) -> list[Process]:
        """The processes: the one that was recorded first, then its children."""
        last = self._paired["last_ns"].tolist()
        orphans = self._paired["orphan_exits"].tolist()
        return [
            _process(record, last_ns, orphan)
            for record, last_ns, orphan in zip(self._recording.processes, last, orphans, strict=True)
        ]

    # time

    @property
    def start_ns(self) -> int:
        """When the first process began to be recorded."""
        return min(process.start_ns for process in self.processes)

    @property
    def end_ns(self) -> int:
        """The last time known of any process."""
        return max(process.end_ns for process in self.processes)

    @property
    def duration_ns(self) -> int:
        """From `start_ns` to `end_ns`."""
        return self.end_ns - self.start_ns

    # losses

    @cached_property
    def losses(self) -> list[Loss]:
        """What was dropped, cut or quieted, and what is damaged, in order of time; empty if nothing is."""
        found = [self._paired_loss(*row) for row in self._paired["losses"]]
        for number, record in enumerate(self._recording.processes):
            found += self._told_losses(number, record, found)
            found += self._quieted(number, record)
        found += self._parts_off()
        for missing in self._recording.missing:
            found.append(
                Loss(missing.reason, missing.count, self.start_ns, self.end_ns, -1, -1, 0, missing.detail)
            )
        return sorted(
            found, key=lambda loss: (loss.start_ns, loss.end_ns, loss.process, loss.thread, loss.reason)
        )

    def _paired_loss(self, reason: int, process: int, thread: int, count: int, start: int, end: int) -> Loss:
        detail = ""
        if reason in _READER_LOSSES:
            name = _READER_LOSSES[reason]
            if name == "missing_pages":
                count, detail = 0, f"{count} pages"
        else:
            name = _reason(reason)
        return Loss(name, count, start, end, thread, process, self.processes[process].pid, detail)

    def _told_losses(self, number: int, record: ProcessRecord, found: Iterable[Loss]) -> list[Loss]:
        """Those that the recorder counted or the reader met, less what the threads themselves told of."""
        process = self.processes[number]
        losses = []
        for missing in record.missing:
            count = missing.count
            if count:
                count -= sum(
                    row.count for row in found if row.process == number and row.reason == missing.reason
                )
                if count <= 0:
                    continue
            start, end = _span(record, missing, process)
            losses.append(Loss(missing.reason, count, start, end, -1, number, process.pid, missing.detail))
        return losses

    def _parts_off(self) -> Iterator[Loss]:
        """Parts of PyScope that kept failing: what they tell of is missing from then on."""
        from pyscope.events.faults import PART_OFF

        for event in self.probe_events(PART_OFF).records():
            process = self.processes[event.process]
            detail = f"{event.part} failed {event.faults} times and removed itself"
            if event.detail:
                detail += f": {event.detail}"
            yield Loss("fault", 0, event.time_ns, process.end_ns, -1, event.process, process.pid, detail)

    def _quieted(self, number: int, record: ProcessRecord) -> list[Loss]:
        """What the governor quieted."""
        process, losses = self.processes[number], []
        for row in record.quietings.values():
            start = max(process.start_ns, record.unix_ns(row.first_ticks))
            end = max(start, record.unix_ns(row.last_ticks))
            function = int(self._names.inputs[number].functions[row.code]) if row.code in record.codes else -1
            name = "every function" if row.code == 0 else "a function whose name is lost"
            if function >= 0:
                name = f"{self._names.functions[function].module}.{self._names.functions[function].qualname}"
            detail = f"{name}: {row.calls:,} calls by estimate, {row.low:,} to {row.high:,}"
            quieted = Loss("quieted", row.calls, start, end, -1, number, process.pid, detail, function)
            losses.append(replace(quieted, low=row.low, high=row.high))
        return losses

    @cached_property
    def _unrecorded_calls(self) -> dict[int, int]:
        """Estimates by function."""
        found: dict[int, int] = {}
        for loss in self.losses:
            if loss.reason == "quieted" and loss.function >= 0:
                found[loss.function] = found.get(loss.function, 0) + loss.count
        return found

    # calls one by one

    def call(self, row: SupportsIndex) -> Call:
        """The call in a row of `calls`; -1 is the last. Raises IndexError."""
        column = self.calls
        index = row.__index__()
        index += len(column) * (index < 0)
        if not 0 <= index < len(column):
            raise IndexError(f"the trace has {len(column)} calls, none in this row")
        function = self._names.functions[int(column["function"][index])]
        context = int(column["context"][index])
        exception = int(column["exception"][index])
        return Call(
            module=function.module,
            qualname=function.qualname,
            function=function.qualname.rpartition(".")[2],
            arity=function.arity,
            start_ns=int(column["start_ns"][index]),
            duration_ns=int(column["duration_ns"][index]),
            self_ns=int(column["self_ns"][index]),
            thread=self.threads[int(column["thread"][index])].name,
            context=self.contexts[context].name if context else None,
            outcome=OUTCOMES[int(column["outcome"][index])],
            exception=self.exceptions[exception] if exception >= 0 else None,
            depth=int(column["depth"][index]),
            index=index,
            trace=self,
        )

    def find(self, module: str | None = None, function: str | None = None) -> Calls:
        """The calls of matching functions, in order of start within each process.

        `module` and `function` are globs; `shop.*` also means `shop`. `function` matches the name or the
        qualified name. None matches all.
        """
        wanted = [
            _module_matches(name.module, module) and _function_matches(name.qualname, function)
            for name in self._names.functions
        ]
        return Calls(self, np.flatnonzero(np.array(wanted, bool)[self.calls["function"]]))

    @cached_property
    def _by_parent(self) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
        parent = self.calls["parent"]
        order = np.argsort(parent, kind="stable")
        return order, parent[order]

    def _children(self, row: int) -> NDArray[np.intp]:
        order, parents = self._by_parent
        first, last = np.searchsorted(parents, np.array([row, row + 1], parents.dtype))
        return order[first:last]

    # conversions

    def to_arrow(self) -> pyarrow.Table:
        """The calls as a pyarrow Table with readable names. Raises MissingExtra without pyarrow."""
        from pyscope.tables import to_arrow

        return to_arrow(self)

    def to_pandas(self) -> pandas.DataFrame:
        """The calls as a pandas DataFrame with readable names. Raises MissingExtra without pandas."""
        from pyscope.tables import to_pandas

        return to_pandas(self)

    def to_polars(self) -> polars.DataFrame:
        """The calls as a polars DataFrame, names readable. Raises MissingExtra without polars, pyarrow."""
        from pyscope.tables import to_polars

        return to_polars(self)

    def __repr__(self) -> str:
        processes = len(self._recording.processes)
        return f"<Trace of {self.path!r}: {processes} processes, {len(self.threads)} threads>"


def load(path: str | os.PathLike[str] | None) -> Trace:
    """Opens a recording, also one in progress, one of a killed process, or a ring file.

    None, as `Recording.path` may be, is no recording's path.
    What is damaged or missing is told in `Trace.losses`. Raises RecordingNotFound, NotARecording,
    CorruptRecording, VersionMismatch or RecordingError (all of pyscope.errors).
    """
    if path is None:
        raise RecordingNotFound(
            "there is no recording to load: its path is None, as that of a flight recorder without a file is, "
            "or of any recording where PYSCOPE_DISABLE is set"
        )
    codec = codecs.preferred()
    return Trace(open_recording(path, codec), codec)


def _kind(flags: int) -> str:
    if flags & CodeFlag.C_FUNCTION:
        return "c_function"
    if flags & CodeFlag.ASYNC_GENERATOR:
        return "async_generator"
    if flags & CodeFlag.COROUTINE:
        return "coroutine"
    return "generator" if flags & CodeFlag.GENERATOR else "function"


def _reason(number: int) -> str:
    return LossReason(number).name.lower() if number in LossReason._value2member_map_ else f"reason_{number}"


def _module_matches(module: str, glob: str | None) -> bool:
    if glob is None or fnmatch.fnmatchcase(module, glob):
        return True
    return glob.endswith(".*") and fnmatch.fnmatchcase(module, glob[:-2])


def _function_matches(qualname: str, glob: str | None) -> bool:
    if glob is None:
        return True
    return fnmatch.fnmatchcase(qualname, glob) or fnmatch.fnmatchcase(qualname.rpartition(".")[2], glob)


def _process(record: ProcessRecord, last_ns: int, orphan_exits: int) -> Process:
    meta = record.meta or {}

    def text(key: str) -> str:
        value = meta.get(key)
        return value if isinstance(value, str) else ""

    def texts(key: str) -> tuple[str, ...] | None:
        value = meta.get(key)
        return tuple(str(item) for item in value) if isinstance(value, list) else None

    start = record.info.start.unix_ns
    ring_bytes = meta.get("ring_bytes")
    return Process(
        pid=record.info.pid,
        parent_pid=record.info.parent_pid,
        argv=texts("argv") or (),
        python=text("python"),
        backend=text("backend"),
        backend_reason=text("backend_reason"),
        mode=text("mode") or ("flight" if record.info.flight else "stream"),
        modules=texts("modules"),
        state=record.state,
        start_ns=start,
        end_ns=max(start, record.unix_ns(record.latest.ticks), last_ns),
        events=int(record.chunks["events"].sum()),
        file_bytes=record.file_bytes,
        ring_bytes=ring_bytes if isinstance(ring_bytes, int) else 0,
        drain_cpu_ns=record.summary.drain_cpu_ns if record.summary else 0,
        orphan_exits=orphan_exits,
        meta=meta,
    )


def _span(record: ProcessRecord, missing: Missing, process: Process) -> tuple[int, int]:
    """From when to when something is missing: the whole process if that is unknown."""
    if missing.first_ticks is None or missing.last_ticks is None:
        return process.start_ns, process.end_ns
    start = record.unix_ns(missing.first_ticks) if missing.first_ticks else process.start_ns
    end = record.unix_ns(missing.last_ticks) if missing.last_ticks else process.end_ns
    return min(start, end), end
