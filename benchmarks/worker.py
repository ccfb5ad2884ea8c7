"""A measurement in a process of its own: `python -m benchmarks.worker MODULE:FUNCTION ARGUMENTS RESULT`."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
LONGEST_SECONDS: Final = 3600


class WorkerFailed(Exception):
    """A measurement did not end well; the message is the end of what it wrote."""


def run(python: str, function: str, **arguments: Any) -> Any:
    """What `function` ("benchmarks.module:name") returns for `arguments` in a new process of `python`.

    Arguments and result go through JSON. Raises WorkerFailed with the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="pyscope-bench-") as directory:
        result = Path(directory) / "result.json"
        command = [python, "-m", "benchmarks.worker", function, json.dumps(arguments), str(result)]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=quiet_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LONGEST_SECONDS,
            check=False,
        )
        if done.returncode or not result.exists():
            tail = "\n".join(done.stdout.strip().splitlines()[-12:])
            raise WorkerFailed(f"{function} ended with status {done.returncode}:\n{tail}")
        return json.loads(result.read_text())


def quiet_environment() -> dict[str, str]:
    """The environment without settings that would change what is measured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYSCOPE_")}
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}


def main() -> None:
    """Call the function named on the command line and write what it returns."""
    function, arguments, result = sys.argv[1:]
    module, _, name = function.partition(":")
    answer = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    Path(result).write_text(json.dumps(answer))
    # What another tool has left behind may crash the interpreter's end; it is measured by then.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
