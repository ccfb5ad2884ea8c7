"""The bytes of a recording for Python; native/event.hpp and native/recording.hpp define them."""

from __future__ import annotations

import struct
from enum import IntEnum

FORMAT_VERSION = 1

# --- the event word ------------------------------------------------------------------------------

KIND_BITS = 5
CODE_BITS = 23
TIME_BITS = 36
TIME_SHIFT = KIND_BITS + CODE_BITS
KIND_MASK = (1 << KIND_BITS) - 1
CODE_MASK = (1 << CODE_BITS) - 1
EXCEPTION_BITS = 20
EXCEPTION_MASK = (1 << EXCEPTION_BITS) - 1
INSTANCE_MASK = (1 << (64 - EXCEPTION_BITS)) - 1
WORD_MASK = (1 << 64) - 1


class Kind(IntEnum):
    """What an event says; the column `kind` of `Trace.events`."""

    END = 0
    CALL = 1
    RETURN = 2
    RAISE = 3
    GEN_START = 4
    GEN_YIELD = 5
    GEN_RESUME = 6
    GEN_THROW = 7
    GEN_RETURN = 8
    GEN_RAISE = 9
    C_CALL = 10
    C_RETURN = 11
    C_RAISE = 12
    SWITCH = 13
    REBASE = 14
    LOSS = 15
    PAYLOAD = 16


class LossReason(IntEnum):
    """Why events are missing, as the recorder says it."""

    RING_FULL = 1
    STACK_GUARD = 2
    FORK = 3
    FAULT = 4
    WRITE_ERROR = 5
    OVERWRITTEN = 6
    DUTY_CYCLE = 7
    QUIETED = 8


class PayloadType(IntEnum):
    """What the bytes of a PAYLOAD are."""

    CONTEXT = 1
    PROBE = 2


class ContextKind(IntEnum):
    """What a context is."""

    THREAD = 0
    TASK = 1
    GREENLET = 2


_ONE = (Kind.RAISE, Kind.GEN_START, Kind.GEN_YIELD, Kind.GEN_RESUME, Kind.GEN_THROW, Kind.GEN_RETURN,
        Kind.GEN_RAISE, Kind.SWITCH, Kind.REBASE, Kind.PAYLOAD)  # fmt: skip
# Operand words by kind, the bytes of a PAYLOAD not counted.
OPERANDS = tuple(1 if kind in _ONE else 2 if kind == Kind.LOSS else 0 for kind in range(17))

CONTEXT_PAYLOAD = struct.Struct("<QQB")  # serial, serial of the parent, ContextKind; then the name
PROBE_HEAD = struct.Struct(
    "<HHHHQ"
)  # kind, numbers, text bytes, texts, scope; then numbers (i64), then texts
TEXT_HEAD = struct.Struct("<H")  # bytes; then the text
MAX_PAYLOAD = 4096
MAX_NUMBERS = 64  # of a probe event
MAX_TEXTS = 16

# --- blocks --------------------------------------------------------------------------------------

BLOCK_MAGIC = 0x31425350
RING_MAGIC = 0x31474E4952535031
PAGE_MAGIC = 0x47505350
PAGE_BYTES = 16 * 1024
PROCESS_BLOCK_BYTES = 8192
RING_HEADER_BYTES = 4096
CODEC_STACK = 256
PATH_BYTES = 1024
THREAD_NAME_BYTES = 48
SUMMARY_LOSSES = 32


class BlockType(IntEnum):
    """What a block holds."""

    PROCESS = 1
    META = 2
    TABLE = 3
    EVENTS = 4


class RecordType(IntEnum):
    """What a record of a TABLE block holds."""

    STRING = 1
    CODE = 2
    EXCEPTION = 3
    LOCATION = 4
    STACK = 5
    QUIETING = 6


class ProcessState(IntEnum):
    """How a process's recording ended."""

    RECORDING = 0
    STOPPED = 1
    RECOVERED = 2
    WRITE_FAILED = 3


class CodeFlag(IntEnum):
    """The flags of a code record."""

    GENERATOR = 1
    COROUTINE = 2
    ASYNC_GENERATOR = 4
    C_FUNCTION = 8


CLOCK_MONOTONIC = 3  # ClockKind::Monotonic: ticks are nanoseconds of time.monotonic_ns()

BLOCK_HEADER = struct.Struct("<IHHIIII")  # magic, type, version, length, crc, header_crc, reserved
HEADER_CRC_AT = 16
CLOCK_PAIR = struct.Struct("<Qqq")  # ticks, monotonic_ns, unix_ns
# recording_id, process_id, pid, parent_pid, clock_kind, time_shift, start, start2, flight, reserved,
# ring_path
PROCESS_INFO = struct.Struct(f"<16s16sIIII{CLOCK_PAIR.size}s{CLOCK_PAIR.size}sII{PATH_BYTES}s")
# crc, state, end, file_bytes, events, drain_cpu_ns, error, lost_pages, losses_used, reserved; then the rows
SUMMARY = struct.Struct(f"<II{CLOCK_PAIR.size}sQQQQQII")
LOSS_ROW = struct.Struct("<IIQQQ")  # reason, reserved, count, first_ticks, last_ticks
SUMMARY_BYTES = SUMMARY.size + SUMMARY_LOSSES * LOSS_ROW.size

RECORD_HEADER = struct.Struct("<IHH")  # length, type, reserved
STRING_RECORD = struct.Struct("<IHHII")  # ..., id, bytes
CODE_RECORD = struct.Struct("<IHHIIIIIHH")  # ..., id, module, qualname, file, line, arity, flags
EXCEPTION_RECORD = struct.Struct("<IHHII")  # ..., id, name
LOCATION_RECORD = struct.Struct("<IHHIIII")  # ..., id, file, function, line
STACK_RECORD = struct.Struct("<IHHIIII")  # ..., id, caller, location, reserved
# ..., id, code, first_ticks, last_ticks, calls, low, high, windows, reserved
QUIETING_RECORD = struct.Struct("<IHHIIQQQQQII")

# encoded, events, thread, os_tid, sequence, base_ticks, context, time_shift, reserved, thread_name
CHUNK_HEADER = struct.Struct(f"<IIIIQQQII{THREAD_NAME_BYTES}s")

# --- ring ----------------------------------------------------------------------------------------

# magic, state, thread, os_tid, sequence, base_ticks, context, order, thread_name, sealed_ticks, reserved
PAGE_HEADER = struct.Struct(f"<IIIIQQQQ{THREAD_NAME_BYTES}sQ24s")
PAGE_WORDS = (PAGE_BYTES - PAGE_HEADER.size) // 8
# magic, version, page_bytes, page_count, reserved, table_offset, table_bytes, pages_offset, file_bytes, info
RING_HEADER = struct.Struct(f"<QIIIIQQQQ{PROCESS_INFO.size}s")
# table_used, table_saved, last (ticks, monotonic, unix, version), dropped (events, first, last ticks),
# overwritten (pages, until ticks), events_saved, meta_bytes
RING_FIGURES = struct.Struct("<QQQqqQQQQQQQQ")


def padded(size: int) -> int:
    """The next multiple of 8."""
    return (size + 7) & ~7


def zigzag(value: int) -> int:
    """A signed 64-bit number as an unsigned one, small if it is near 0."""
    return ((value << 1) ^ (value >> 63)) & WORD_MASK


def unzigzag(value: int) -> int:
    """The inverse of `zigzag`."""
    return (value >> 1) ^ -(value & 1)


def signed64(value: int) -> int:
    """The number that 64 bits are in two's complement."""
    value &= WORD_MASK
    return value - (1 << 64) if value >> 63 else value
