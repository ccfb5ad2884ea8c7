"""Looking at where threads stand never stops the program, whatever a garbage collection runs meanwhile."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyscope.probes import frames

ROOT = str(Path(__file__).parents[2])

# Each look makes frame objects, which are what the collector counts; and each collection starts a thread, for which the
# interpreter takes the lock that a look holds.
PROGRAM = """
    import gc, sys, threading, _thread
    from pyscope.probes import frames

    stop = threading.Event()

    def deep(n):
        if n: deep(n - 1)
        else: stop.wait()

    for _ in range(8):
        threading.Thread(target=deep, args=(3,), daemon=True).start()

    started = 0

    def collected(phase, figures):
        global started
        if phase == "start" and started < 500:
            started += 1
            _thread.start_new_thread(int, ())

    gc.callbacks.append(collected)
    gc.set_threshold(1)
    kept = [LOOK() for _ in range(200)]
    gc.set_threshold(700)
    stop.set()
    assert started, "nothing was collected"
    assert gc.isenabled()
    print(len(kept))
"""


@pytest.mark.parametrize("look", ["frames.current_frames", "frames._in_python"])
def test_a_collection_that_starts_a_thread_does_not_stop_the_program(look: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM).replace("LOOK", look))
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr


@pytest.mark.parametrize("look", [frames.current_frames, frames._in_python])
def test_a_program_that_collects_nothing_by_itself_still_does_not(
    look: Callable[[], dict[int, Any]],
) -> None:
    gc.disable()
    try:
        assert threading.get_ident() in look()
        assert not gc.isenabled()
    finally:
        gc.enable()
    look()
    assert gc.isenabled()
