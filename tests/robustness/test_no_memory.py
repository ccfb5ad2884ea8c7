"""Each allocation of the interpreter fails once, in the recorder's and in the program's: nobody crashes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import NATIVE, Programs

import pyscope

PROGRAM = """
    import _testcapi, gc, sys
    import pyscope
    gc.disable()
    pyscope.start("run.pyscope", modules=["__main__"], backend=sys.argv[1], ring_mb=4)
    SOURCE = '''
    def leaf(): pass
    def stream():
        yield 1
        yield 2
    def loop():
        for _ in stream(): pass
    def fails(): raise LookupError
    def caught():
        try: fails()
        except Exception: pass
    def down(n): return down(n - 1) if n else 0
    '''
    def fresh(name):
        space = {"__name__": "__main__"}
        exec(SOURCE, space)
        return space[name]
    for name in ("leaf", "loop", "caught"):
        for number in range(1, 40):
            function = fresh(name)
            _testcapi.set_nomemory(number, number + 1)
            try: function()
            except (MemoryError, SystemError): pass  # the interpreter's own
            _testcapi.remove_mem_hooks()
    def after(): pass
    for _ in range(100): after()
    pyscope.stop()
    print("end")
"""


# With a profile function CPython itself fails without memory, whatever that function does.
@pytest.mark.parametrize("backend", [backend for backend in NATIVE if backend != "setprofile"])
def test_memory_that_runs_out_inside_the_hook_harms_neither_program_nor_recording(
    programs: Programs, backend: str
) -> None:
    done = programs.run(PROGRAM, backend)
    assert done.stdout == "end\n"
    assert len(pyscope.load(programs.folder / "run.pyscope").find(function="after")) == 100


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group that may take 60 MB."""
    for root, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        folder = Path("/sys/fs/cgroup", root, f"pyscope-test-{os.getpid()}")
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / limit).exists():
                (folder / limit).write_text("60000000")
                yield folder
                return
        finally:
            folder.rmdir()
    pytest.skip("no control group of memory can be made here: run this as root")


def test_a_ring_that_would_have_the_container_killed_lies_on_the_disk(
    programs: Programs, group: Path
) -> None:
    program = programs.write("""
        import os, pyscope
        def leaf(): pass
        del os.environ["PYSCOPE_RING_DIR"]
        with pyscope.record("run.pyscope", modules=["__main__"], ring_mb=64) as recording:
            leaf()
            print(os.path.dirname(recording.ring_path))
    """)
    join = f"echo $$ > {group}/cgroup.procs; exec {sys.executable} {program}"
    done = subprocess.run(
        ["/bin/sh", "-c", join],
        cwd=programs.folder,
        env=programs.environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{programs.folder}\n"
