"""What PyScope writes is for its owner alone, and reading what others wrote never harms."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import Programs

import pyscope
from pyscope import errors
from pyscope.analysis.ranking import rank
from pyscope.analysis.summary import summarize
from pyscope.format import BLOCK_HEADER, HEADER_CRC_AT, PATH_BYTES, PROCESS_INFO, SUMMARY, SUMMARY_BYTES


def test_recordings_rings_parts_and_dumps_are_readable_by_their_owner_alone(programs: Programs) -> None:
    out = programs.run("""
        import os, pathlib, stat
        import pyscope
        os.umask(0)
        def leaf(): pass
        for mode, backend in (("stream", "auto"), ("flight", "auto"), ("stream", "python")):
            path = f"{mode}-{backend}.pyscope"
            pyscope.start(path, modules=["__main__"], mode=mode, backend=backend)
            leaf()
            if backend == "auto": pyscope.dump(f"{mode}-dump.pyscope")
            go, gone = os.pipe()
            if not os.fork():
                leaf()
                os.write(gone, b"x")
                os._exit(0)
            os.read(go, 1)
            found = [*pathlib.Path(os.environ["PYSCOPE_RING_DIR"]).iterdir(), *pathlib.Path(".").glob("*.pyscope*")]
            for each in found: print(each.name[-8:], oct(stat.S_IMODE(each.stat().st_mode)))
            os.wait()
            pyscope.stop()
        for each in pathlib.Path(".").glob("*.pyscope*"): print(each.name[-8:], oct(stat.S_IMODE(each.stat().st_mode)))
    """).stdout
    rows = out.splitlines()
    assert len(rows) > 12
    assert [row for row in rows if not row.endswith("0o600")] == []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real recording with calls, generators, tasks and events of probes."""
    import asyncio
    import sqlite3
    import threading

    path = tmp_path_factory.mktemp("recorded") / "run.pyscope"

    def stream() -> Any:
        yield from range(3)

    async def work() -> int:
        await asyncio.sleep(0)
        return sum(stream())

    with pyscope.record(path, modules=[__name__], probes=["auto"], ring_mb=1):
        asyncio.run(work())
        thread = threading.Thread(target=lambda: list(stream()))
        thread.start()
        thread.join()
        sqlite3.connect(":memory:").close()
    return path.read_bytes()


@given(data=st.data())
@settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_damaged_recording_is_refused_or_read_to_the_end(
    recorded: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    """Every view of it: its checksums keep most damage out, so some are made right again by cutting at blocks."""
    damaged = bytearray(recorded)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        kind = data.draw(st.sampled_from(["flip", "zero", "cut", "repeat", "insert"]))
        length = data.draw(st.integers(1, 64))
        if kind == "flip":
            damaged[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
        elif kind == "zero":
            damaged[at : at + length] = bytes(len(damaged[at : at + length]))
        elif kind == "cut":
            del damaged[at : at + length]
        elif kind == "repeat":
            damaged[at:at] = damaged[at : at + length]
        else:
            damaged[at:at] = data.draw(st.binary(max_size=length))
    path = tmp_path / "damaged.pyscope"
    path.write_bytes(damaged)
    try:
        trace = pyscope.load(path)
        assert len(list(trace.find())) == len(trace.calls)
        assert len(trace.events["kind"]) >= 0
        assert trace.losses is not None
        rank(trace, limit=5)
    except errors.PyScopeError:
        pass


def test_figures_that_somebody_forged_are_read_to_the_end(recorded: bytes, tmp_path: Path) -> None:
    """Each word of what a recording says of its process, with checksums that are right."""
    path = tmp_path / "forged.pyscope"
    first, info = BLOCK_HEADER.size, PROCESS_INFO.size
    path_at = first + info - PATH_BYTES
    words = [*range(first, path_at, 8), *range(first + info, first + info + SUMMARY.size, 8)]
    for at in words:
        for value in (0, 1 << 62, (1 << 63) - 1, (1 << 64) - 1):
            forged = bytearray(recorded)
            struct.pack_into("<Q", forged, at, value)
            end = first + info + SUMMARY_BYTES
            struct.pack_into("<I", forged, first + info, zlib.crc32(forged[first + info + 4 : end]))
            fields = list(BLOCK_HEADER.unpack_from(forged))
            fields[4] = zlib.crc32(forged[first : first + info])
            BLOCK_HEADER.pack_into(forged, 0, *fields)
            fields[5] = zlib.crc32(forged[:HEADER_CRC_AT])
            BLOCK_HEADER.pack_into(forged, 0, *fields)
            path.write_bytes(forged)
            trace = pyscope.load(path)
            assert -(1 << 63) <= trace.start_ns <= trace.end_ns < 1 << 63
            assert all(-(1 << 63) <= loss.start_ns <= loss.end_ns < 1 << 63 for loss in trace.losses)
            rank(trace, limit=5)
            summarize(trace)


def test_a_recording_is_not_written_through_a_link_that_somebody_else_has_laid(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine" * 3000)
    (tmp_path / "run.pyscope").symlink_to(target)
    with pytest.raises(errors.RecorderError):
        pyscope.start(tmp_path / "run.pyscope")
    assert target.read_text() == "mine" * 3000
    assert stat.S_ISLNK((tmp_path / "run.pyscope").lstat().st_mode)


def test_what_a_recording_calls_its_ring_is_opened_only_if_it_is_a_file(programs: Programs) -> None:
    """A pipe would be waited for without end."""
    programs.run(
        """
        import os, pyscope
        pyscope.start("run.pyscope", modules=["__main__"])
        os.kill(os.getpid(), 9)
        """,
        code=-9,
    )
    [ring] = programs.rings.glob("*.ring")
    ring.unlink()
    os.mkfifo(ring)
    try:
        reasons = [loss.reason for loss in pyscope.load(programs.folder / "run.pyscope").losses]
    finally:
        ring.unlink()
    assert reasons == ["ring_gone"]


def test_the_secret_of_the_dashboard_is_not_told_to_what_the_program_starts(programs: Programs) -> None:
    done = programs.run("""
        import subprocess, pyscope
        with pyscope.record("run.pyscope", token="hunter2"):
            subprocess.run(["env"])
    """)
    assert "PYSCOPE_CHILD_OF" in done.stdout
    assert "hunter2" not in done.stdout
    assert b"hunter2" not in (programs.folder / "run.pyscope").read_bytes()
