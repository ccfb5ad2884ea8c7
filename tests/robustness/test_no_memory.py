"""Each allocation of the interpreter fails once, in the recorder's and in the program's: nobody crashes."""

from __future__ import annotations

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
