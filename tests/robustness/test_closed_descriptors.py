"""A program that closes every descriptor it finds, as daemons do, and opens files of its own in their place."""

from __future__ import annotations

import sqlite3

import pytest
from programs import Programs

import pyscope

CLOSES_ALL = """
    import os, sqlite3, subprocess, sys, time
    import pyscope

    def work(): pass

    def main(mode, probes):
        pyscope.start("run.pyscope", modules=["__main__"], mode=mode, probes=probes, ring_mb=4)
        subprocess.run(["true"])
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        os.closerange(3, 256)
        files = [open(f"{number}.txt", "w") for number in range(10)]
        database = sqlite3.connect("data.db")
        database.execute("create table numbers (number)")
        for file in files:
            file.write("first\\n")
            file.flush()
        for round in range(10):
            for _ in range(1000): work()
            database.execute("insert into numbers values (?)", (round,))
            database.commit()
            time.sleep(0.05)
        subprocess.run(["true"])
        sleeper.kill()
        sleeper.wait()
        pyscope.stop()
        for file in files:
            file.write("last\\n")
            file.close()
        database.close()
        print("end")
"""


@pytest.mark.parametrize("probes", ["[]", '["auto"]'])
@pytest.mark.parametrize("mode", ["stream", "flight"])
def test_its_files_are_its_own_and_the_recording_goes_on(programs: Programs, mode: str, probes: str) -> None:
    done = programs.run(f"{CLOSES_ALL}\n    main({mode!r}, {probes})\n", flags=("-W", "always"))
    assert done.stdout == "end\n"
    for number in range(10):
        assert (programs.folder / f"{number}.txt").read_text() == "first\nlast\n"
    with sqlite3.connect(programs.folder / "data.db") as database:
        assert database.execute("select count(*) from numbers").fetchone() == (10,)
    database.close()
    trace = pyscope.load(programs.folder / "run.pyscope")
    assert len(trace.find(function="work")) == 10_000
    assert not trace.losses
    assert not programs.left_behind()


@pytest.mark.parametrize("backend", ["auto", "python"])
def test_what_is_written_to_closed_standard_streams_is_not_in_the_recording(
    programs: Programs, backend: str
) -> None:
    programs.run(
        """
        import os, sys
        for stream in range(3): os.close(stream)
        import pyscope
        def work(): pass
        pyscope.start("run.pyscope", modules=["__main__"], backend=sys.argv[1])
        work()
        for stream in range(3):
            try: os.write(stream, b"printed by a library" * 1000)
            except OSError: pass
        work()
        pyscope.stop()
        """,
        backend,
    )
    trace = pyscope.load(programs.folder / "run.pyscope")
    assert len(trace.find(function="work")) == 2
    assert not trace.losses
