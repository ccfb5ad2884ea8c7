"""Opening recordings: whole, cut or damaged anywhere, living, killed, with a ring, with parts of children."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyscope import blocks, parts, record
from pyscope import codec as codecs
from pyscope.errors import (
    CorruptRecording,
    NotARecording,
    PyScopeError,
    RecordingError,
    RecordingNotFound,
    VersionMismatch,
)
from pyscope.fallback import codec as twin
from pyscope.fallback.writer import Page, RecordingWriter
from pyscope.format import (
    BLOCK_HEADER,
    CLOCK_PAIR,
    HEADER_CRC_AT,
    KIND_BITS,
    PAGE_BYTES,
    PAGE_HEADER,
    PAGE_MAGIC,
    PROCESS_BLOCK_BYTES,
    PROCESS_INFO,
    RING_FIGURES,
    RING_HEADER,
    RING_HEADER_BYTES,
    RING_MAGIC,
    STRING_RECORD,
    SUMMARY_BYTES,
    TIME_SHIFT,
    BlockType,
    ContextKind,
    Kind,
    LossReason,
    ProcessState,
    RecordType,
)
from pyscope.recording import open_recording
from pyscope.trace import Trace, load

START = 1_000_000


class Ticker:
    """A clock of its own: START, then 1000 ticks a reading."""

    def __init__(self) -> None:
        self.now = START - 1000

    def __call__(self) -> tuple[int, int, int]:
        self.now += 1000
        return self.now, self.now, 1_700_000_000_000_000_000 + self.now


def write(path: Path, *, close: bool = True, pages: int = 3, **options: Any) -> RecordingWriter:
    """A small recording with a bit of everything; parts of it have the same id."""
    options.setdefault("recording_id", b"the-recording-id")
    writer = RecordingWriter(path, {"argv": ["shop.py"], "backend": "python"}, clock=Ticker(), **options)
    total = writer.code("shop.cart", "Cart.total", "shop/cart.py", 10, 1)
    lines = writer.code("shop.cart", "lines", "shop/cart.py", 20, 0, 1)
    error = writer.exception("builtins.ValueError")
    now = START
    for number in range(pages):
        page = Page(now, 3 if number else 0)
        page.event(now + 10, Kind.CALL, total)
        page.event(now + 20, Kind.GEN_START, lines, 7 << 20)
        page.event(now + 30, Kind.GEN_RETURN, lines, 7 << 20)
        page.event(now + 50, Kind.RAISE, total, error)
        page.describe_context(now + 60, 3, 0, ContextKind.TASK, "Task-1")
        page.event(now + 70, Kind.SWITCH, 0, 3)
        writer.chunk(0, page.words, base_ticks=now, context=page.context, name="MainThread", os_tid=42)
        now += 1000
    if close:
        writer.close()
    return writer


def fingerprint(trace: Trace) -> tuple[Any, ...]:
    """All that a trace says, its losses apart."""
    return (
        {name: trace.calls[name].tolist() for name in trace.calls},
        {name: trace.events[name].tolist() for name in trace.events},
        trace.functions,
        trace.exceptions,
        trace.threads,
        list(trace.contexts),
        trace.processes,
    )


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "run.pyscope"
    write(path)
    return path


class TestWhole:
    def test_what_was_written_is_read(self, recorded: Path) -> None:
        trace = load(recorded)
        assert [(call.qualname, call.outcome, call.depth) for call in trace.find()] == [
            ("Cart.total", "raised", 0),
            ("lines", "returned", 1),
        ] * 3
        assert trace.losses == []
        assert [(thread.name, thread.os_tid) for thread in trace.threads] == [("MainThread", 42)]
        (process,) = trace.processes
        assert (process.state, process.argv, process.backend, process.events) == (
            "stopped",
            ("shop.py",),
            "python",
            18,
        )
        assert process.file_bytes == recorded.stat().st_size

    def test_the_twin_reads_the_same(self, recorded: Path) -> None:
        assert fingerprint(Trace(open_recording(recorded, twin), twin)) == fingerprint(load(recorded))

    def test_two_recordings_one_behind_the_other_are_one(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            write(tmp_path / name)
        joined = tmp_path / "joined"
        joined.write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
        trace = load(joined)
        assert len(trace.processes) == 2
        assert len(trace.calls) == 12
        assert len(trace.functions) == 2
        assert trace.functions[0].calls == 6
        assert trace.losses == []

    def test_parts_of_children_are_loaded_with_it(self, recorded: Path) -> None:
        write(recorded.with_name("run.pyscope.77-ab.part"), pid=77)
        trace = load(recorded)
        assert [process.pid for process in trace.processes] == [os.getpid(), 77]
        assert len(trace.calls) == 12

    def test_a_part_that_was_joined_meanwhile_is_taken_once(self, recorded: Path) -> None:
        part = recorded.with_name("run.pyscope.77-ab.part")
        write(part, pid=77)
        recorded.write_bytes(recorded.read_bytes() + part.read_bytes())
        assert len(load(recorded).processes) == 2

    def test_what_another_recording_or_user_has_laid_beside_it_is_no_part(self, recorded: Path) -> None:
        stranger = recorded.with_name("run.pyscope.77-ab.part")
        write(stranger, pid=77, recording_id=b"another-record-1")
        os.mkfifo(recorded.with_name("run.pyscope.78-ab.part"))  # to read it is to wait for who writes
        elsewhere = recorded.with_name("elsewhere")
        write(elsewhere, pid=79)
        recorded.with_name("run.pyscope.79-ab.part").symlink_to(elsewhere)
        assert len(load(recorded).processes) == 1
        assert parts.join(str(recorded)) == []
        assert len(load(recorded).processes) == 1
        assert stranger.exists()

    def test_a_damaged_part_is_a_loss(self, recorded: Path) -> None:
        recorded.with_name("run.pyscope.77-ab.part").write_bytes(b"nonsense")
        trace = load(recorded)
        assert len(trace.calls) == 6
        assert [loss.reason for loss in trace.losses] == ["damaged_part"]

    def test_the_losses_that_the_recorder_counted_are_told(self, tmp_path: Path) -> None:
        writer = write(tmp_path / "r", close=False)
        writer.lost(LossReason.RING_FULL, 12, START + 500, START + 900)
        writer.close()
        (loss,) = load(tmp_path / "r").losses
        assert (loss.reason, loss.count, loss.end_ns - loss.start_ns, loss.pid) == (
            "ring_full",
            12,
            400,
            os.getpid(),
        )


class TestRefusals:
    def test_a_recording_without_a_file_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYSCOPE_DISABLE", "1")
        with record("run.pyscope") as recording:
            pass
        with pytest.raises(RecordingNotFound, match="PYSCOPE_DISABLE"):
            load(recording.path)

    def test_a_missing_file_is_said_to_be_missing(self, tmp_path: Path) -> None:
        with pytest.raises(RecordingNotFound, match="there is no recording at"):
            load(tmp_path / "none")

    @pytest.mark.parametrize("content", [b"", b"PSB", b"hello, world" * 100, bytes(9000)])
    def test_another_file_is_no_recording(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(NotARecording, match="not a recording"):
            load(tmp_path / "x")

    def test_a_folder_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(RecordingError):
            load(tmp_path)

    def test_another_version_is_named(self, recorded: Path) -> None:
        import zlib

        data = bytearray(recorded.read_bytes())
        data[6:8] = (9).to_bytes(2, "little")
        data[16:20] = zlib.crc32(data[:16]).to_bytes(4, "little")
        recorded.write_bytes(data)
        with pytest.raises(VersionMismatch, match="version 9"):
            load(recorded)

    def test_a_damaged_beginning_is_said_to_be_damaged(self, recorded: Path) -> None:
        data = bytearray(recorded.read_bytes())
        data[40] ^= 1
        recorded.write_bytes(data)
        with pytest.raises(CorruptRecording, match="damaged at its beginning"):
            load(recorded)


def examine(path: Path, data: bytes, whole: tuple[Any, ...]) -> str:
    """Loads damaged bytes: an error of ours, a trace that is the same, or one that tells of a loss."""
    path.write_bytes(data)
    try:
        trace = load(path)
        found = fingerprint(trace)
    except PyScopeError:
        return "refused"
    if trace.losses:
        return "told"
    assert found == whole
    return "same"


class TestDamage:
    def test_a_flip_of_any_byte_is_refused_told_or_without_effect(self, recorded: Path) -> None:
        data = recorded.read_bytes()
        whole = fingerprint(load(recorded))
        used = BLOCK_HEADER.size + PROCESS_INFO.size + SUMMARY_BYTES
        places = [i for i in range(len(data)) if i < used or i >= PROCESS_BLOCK_BYTES or i % 97 == 0]
        verdicts = {}
        for i in places:
            damaged = bytearray(data)
            damaged[i] ^= 1 << i % 8
            verdicts[i] = examine(recorded, bytes(damaged), whole)
        # Nothing but padding and reserved fields is without a checksum.
        unprotected = [
            i for i, verdict in verdicts.items() if verdict == "same" and not used <= i < PROCESS_BLOCK_BYTES
        ]
        assert len(unprotected) <= 4 * 8 + 7 * 8
        assert not any(data[i] for i in unprotected)

    def test_every_truncation_is_refused_or_told(self, recorded: Path) -> None:
        data = recorded.read_bytes()
        whole = fingerprint(load(recorded))
        for size in [*range(0, PROCESS_BLOCK_BYTES, 61), *range(PROCESS_BLOCK_BYTES - 2, len(data))]:
            assert examine(recorded, data[:size], whole) != "same", size

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(data=st.data())
    def test_overwritten_stretches_are_refused_told_or_without_effect(
        self, tmp_path: Path, data: st.DataObject
    ) -> None:
        path = tmp_path / "r"
        if not path.exists():
            write(path)
            (tmp_path / "whole").write_bytes(path.read_bytes())
        content = bytearray((tmp_path / "whole").read_bytes())
        path.write_bytes(content)
        whole = fingerprint(load(path))
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(content) - 1))
            junk = data.draw(st.binary(max_size=40))
            content[at : at + len(junk)] = junk
        examine(path, bytes(content), whole)

    def test_a_number_that_no_name_can_have_asks_for_no_memory(self, recorded: Path) -> None:
        """The checksums are right: it was written so, or forged."""
        data = bytearray(recorded.read_bytes())
        for block in [found for found in blocks.scan(data) if found.type == BlockType.TABLE]:
            payload, at = memoryview(data)[block.start : block.start + block.size], 0
            while at + STRING_RECORD.size <= block.size:
                length, kind, *_ = STRING_RECORD.unpack_from(payload, at)
                if kind in (RecordType.STRING, RecordType.STACK):
                    struct.pack_into("<I", payload, at + 8, 0xFFFFFFFF)
                at += length
            fields = list(BLOCK_HEADER.unpack_from(data, block.at))
            fields[4] = zlib.crc32(payload)
            BLOCK_HEADER.pack_into(data, block.at, *fields)
            fields[5] = zlib.crc32(data[block.at : block.at + HEADER_CRC_AT])
            BLOCK_HEADER.pack_into(data, block.at, *fields)
        recorded.write_bytes(data)
        trace = load(recorded)
        assert trace.strings is not None  # made by number
        assert len(trace.calls) == 6
        assert {loss.reason for loss in trace.losses} == {"damaged_block"}

    def test_a_damaged_segment_leaves_the_others(self, recorded: Path) -> None:
        data = bytearray(recorded.read_bytes())
        data[-20] ^= 1
        recorded.write_bytes(data)
        trace = load(recorded)
        assert len(trace.calls) == 4
        assert [loss.reason for loss in trace.losses] == ["damaged_block"]

    def test_a_lost_page_in_the_middle_is_placed_in_time(self, recorded: Path) -> None:
        data = recorded.read_bytes()
        _, second, third = (i for i in range(0, len(data), 8) if data[i : i + 6] == b"PSB1\x04\0")
        recorded.write_bytes(data[:second] + bytes(third - second) + data[third:])
        losses = {loss.reason: loss for loss in load(recorded).losses}
        assert set(losses) == {"damaged_block", "missing_pages"}
        assert losses["missing_pages"].detail == "1 pages"
        assert losses["missing_pages"].end_ns - losses["missing_pages"].start_ns < 2000

    def test_a_child_whose_process_block_is_lost_is_not_taken_for_its_parent(self, recorded: Path) -> None:
        size = recorded.stat().st_size
        child = recorded.with_name("child")
        write(child)
        data = bytearray(recorded.read_bytes() + child.read_bytes())
        data[size + 5] ^= 1
        recorded.write_bytes(data)
        trace = load(recorded)
        assert len(trace.processes) == 1
        assert len(trace.calls) == 6
        assert {loss.reason for loss in trace.losses} == {"damaged_block"}


class TestUnfinished:
    def test_a_recording_in_progress_opens_as_it_stands(self, tmp_path: Path) -> None:
        writer = write(tmp_path / "r", close=False)
        trace = load(tmp_path / "r")
        assert len(trace.calls) == 6
        assert trace.losses == []
        if sys.platform == "linux":
            assert trace.processes[0].state == "recording"
        writer.close()

    def test_what_a_killed_process_handed_over_is_kept(self, tmp_path: Path) -> None:
        program = (
            "import os, sys; sys.path[:0] = sys.argv[2:4]\n"
            "from test_recording import write\n"
            "from pathlib import Path\n"
            "w = write(Path(sys.argv[1]), close=False)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        root = Path(__file__).parents[2]
        here = str(Path(__file__).parent)
        subprocess.run([sys.executable, "-c", program, str(tmp_path / "r"), str(root), here], check=False)
        trace = load(tmp_path / "r")
        assert trace.processes[0].state == "killed"
        assert len(trace.calls) == 6
        assert trace.losses == []

    def test_a_block_torn_by_a_kill_is_told(self, tmp_path: Path) -> None:
        write(tmp_path / "r", close=False).abandon()
        data = (tmp_path / "r").read_bytes()
        (tmp_path / "r").write_bytes(data[:-30])
        assert [loss.reason for loss in load(tmp_path / "r").losses] == ["truncated"]

    def test_a_failed_write_is_told(self, tmp_path: Path) -> None:
        writer = write(tmp_path / "r", close=False)
        writer.failed = OSError(28, "No space left on device")
        writer.close()
        trace = load(tmp_path / "r")
        assert trace.processes[0].state == "write_failed"
        assert [(loss.reason, "No space" in loss.detail) for loss in trace.losses] == [("write_error", True)]


# --- rings ---------------------------------------------------------------------------------------


def ring_of(path: Path, words: list[list[int]], **figures: int) -> bytes:
    """The bytes of a ring file for the process of the recording at `path`: pages 3.. of thread 0."""
    info = path.read_bytes()[BLOCK_HEADER.size : BLOCK_HEADER.size + PROCESS_INFO.size]
    pages = b""
    for i, page in enumerate(words):
        state, sequence = (2, 3 + i) if page else (0, 0)
        pages += PAGE_HEADER.pack(
            PAGE_MAGIC, state, 0, 42, sequence, START + 5000, 0, i, b"MainThread", 0, b""
        )
        pages += b"".join(word.to_bytes(8, "little") for word in page).ljust(
            PAGE_BYTES - PAGE_HEADER.size, b"\0"
        )
    size = RING_HEADER_BYTES + 4096 + len(pages)
    head = RING_HEADER.pack(RING_MAGIC, 1, PAGE_BYTES, len(words), 0, RING_HEADER_BYTES, 4096,
                            RING_HEADER_BYTES + 4096, size, info)  # fmt: skip
    names = ("table_used", "table_saved", "ticks", "monotonic", "unix", "version", "dropped", "dropped_first",
             "dropped_last", "overwritten", "overwritten_until", "events_saved", "meta_bytes")  # fmt: skip
    head += RING_FIGURES.pack(*(figures.get(name, 0) for name in names))
    return head.ljust(RING_HEADER_BYTES, b"\0") + bytes(4096) + pages


def with_ring_path(path: Path, ring: Path) -> None:
    """Writes the ring's path into the PROCESS block, as the native recorder does."""
    import zlib

    data = bytearray(path.read_bytes())
    name = os.fsencode(ring)
    at = BLOCK_HEADER.size + PROCESS_INFO.size - 1024
    data[at : at + len(name)] = name
    info = bytes(data[BLOCK_HEADER.size : BLOCK_HEADER.size + PROCESS_INFO.size])
    data[12:16] = zlib.crc32(info).to_bytes(4, "little")
    data[16:20] = zlib.crc32(data[:16]).to_bytes(4, "little")
    path.write_bytes(data)


def call_words(code: int = 1) -> list[int]:
    return [Kind.CALL | code << KIND_BITS, Kind.RETURN | code << KIND_BITS | 40 << TIME_SHIFT]


@pytest.fixture
def killed(tmp_path: Path) -> Callable[..., Path]:
    """A recording whose process was killed, with a ring of these pages."""

    def make(*pages: list[int], **figures: int) -> Path:
        path, ring = tmp_path / "run.pyscope", tmp_path / "run.ring"
        write(path, close=False).abandon()
        with_ring_path(path, ring)
        ring.write_bytes(ring_of(path, list(pages), **figures))
        return path

    return make


class TestRings:
    def test_pages_that_only_the_ring_has_are_part_of_the_trace(self, killed: Callable[..., Path]) -> None:
        trace = load(killed(call_words(), [], call_words(2)))
        assert len(trace.calls) == 8
        assert trace.processes[0].state == "killed"
        assert [loss.reason for loss in trace.losses] == ["missing_pages"]  # page 4, which is free here

    def test_a_page_that_both_have_is_taken_once(self, killed: Callable[..., Path]) -> None:
        path = killed(call_words())
        ring = path.with_name("run.ring")
        data = bytearray(ring.read_bytes())
        at = RING_HEADER_BYTES + 4096
        data[at : at + PAGE_HEADER.size] = PAGE_HEADER.pack(
            PAGE_MAGIC, 2, 0, 42, 2, START + 2000, 0, 0, b"MainThread", 0, b""
        )
        ring.write_bytes(data)
        assert len(load(path).calls) == 6

    def test_events_dropped_for_want_of_a_page_are_told(self, killed: Callable[..., Path]) -> None:
        (loss,) = load(
            killed(call_words(), dropped=5, dropped_first=START + 100, dropped_last=START + 200)
        ).losses
        assert (loss.reason, loss.count, loss.end_ns - loss.start_ns) == ("ring_full", 5, 100)

    def test_the_rings_clock_pair_dates_a_killed_recording(self, killed: Callable[..., Path]) -> None:
        path = killed(call_words(), ticks=START + 10_000, monotonic=START + 20_000, unix=1, version=4)
        calls = load(path).calls
        assert calls["duration_ns"][0] == 40 * 2

    def test_a_torn_block_is_no_loss_where_the_ring_has_its_pages(self, killed: Callable[..., Path]) -> None:
        path = killed(call_words())
        path.write_bytes(path.read_bytes() + b"PSB1\x04\0\x01\0 torn")
        assert load(path).losses == []

    def test_a_ring_that_is_gone_is_told(self, killed: Callable[..., Path]) -> None:
        path = killed(call_words())
        path.with_name("run.ring").unlink()
        assert [loss.reason for loss in load(path).losses] == ["ring_gone"]

    def test_another_process_s_ring_is_not_taken(self, killed: Callable[..., Path]) -> None:
        path = killed(call_words())
        ring = path.with_name("run.ring")
        data = bytearray(ring.read_bytes())
        data[56 + 16] ^= 1  # its process id
        ring.write_bytes(data)
        assert [loss.reason for loss in load(path).losses] == ["ring_gone"]
        assert len(load(path).calls) == 6

    def test_a_ring_loads_alone(self, killed: Callable[..., Path]) -> None:
        trace = load(killed(call_words()).with_name("run.ring"))
        assert len(trace.calls) == 1
        assert [loss.reason for loss in trace.losses] == ["missing_pages"]
        assert trace.functions[0].qualname == "<unnamed>"

    def test_a_locked_ring_is_that_of_a_living_process(self, killed: Callable[..., Path]) -> None:
        fcntl = pytest.importorskip("fcntl")
        if not hasattr(fcntl, "F_OFD_SETLK"):
            pytest.skip("no open-file-description locks here")
        import struct

        path = killed(call_words())
        with open(path.with_name("run.ring"), "r+b") as ring:
            fcntl.fcntl(ring, fcntl.F_OFD_SETLK, struct.pack("@hhqqi4x", fcntl.F_WRLCK, 0, 0, 1, 0))
            assert load(path).processes[0].state == "recording"
        assert load(path).processes[0].state == "killed"

    @settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(data=st.data())
    def test_a_damaged_ring_never_harms(self, killed: Callable[..., Path], data: st.DataObject) -> None:
        path = killed(call_words(), call_words(2), call_words())
        ring = path.with_name("run.ring")
        content = bytearray(ring.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, 1400) | st.integers(0, len(content) - 1))
            junk = data.draw(st.binary(max_size=16))
            content[at : at + len(junk)] = junk
        ring.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
        for target in (path, ring):
            try:
                fingerprint(load(target))
            except PyScopeError:
                continue


def test_the_layouts_have_the_sizes_of_the_headers() -> None:
    assert (BLOCK_HEADER.size, CLOCK_PAIR.size, PROCESS_INFO.size, SUMMARY_BYTES) == (24, 24, 1128, 1104)
    assert PAGE_HEADER.size == 128
    assert RING_HEADER.size + RING_FIGURES.size <= RING_HEADER_BYTES
    assert codecs.preferred() is not None
    assert ProcessState.WRITE_FAILED == 3
