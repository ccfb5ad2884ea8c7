"""An installed PyScope, whole: record, load, report. Prints what it saw; exits 1 where something is wrong.

It uses nothing of the repository, so that it can run in any environment: cibuildwheel runs it too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile


def work(n: int) -> int:
    return n if n < 2 else work(n - 1) + work(n - 2)


CALLS_OF_WORK_20 = 21891


def main() -> None:
    import pyscope
    from pyscope import backends

    assert backends.native_problem() is None, backends.native_problem()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYSCOPE_RING_DIR"] = folder
        path = os.path.join(folder, "run.pyscope")
        with pyscope.record(path, modules=["__main__"], ring_mb=4) as recording:
            work(20)
        trace = pyscope.load(path)
        (function,) = [f for f in trace.functions if f.qualname == "work"]
        assert function.calls == CALLS_OF_WORK_20, function
        assert not trace.losses, trace.losses

        report = subprocess.run(
            [sys.executable, "-m", "pyscope", "report", path, "--json"], capture_output=True, text=True
        )
        assert report.returncode == 0, report.stderr
        assert json.loads(report.stdout)["calls"] >= CALLS_OF_WORK_20
    print(
        f"pyscope {pyscope.__version__} from {os.path.dirname(pyscope.__file__)}: {recording.backend} works"
    )


if __name__ == "__main__":
    main()
