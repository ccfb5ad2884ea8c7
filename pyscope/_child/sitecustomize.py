"""Starts PyScope in a child interpreter of a recorded program, then runs the sitecustomize it stands before."""

import importlib.machinery
import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))


def _run_the_one_behind() -> None:
    behind = [path for path in sys.path if os.path.abspath(path or os.curdir) != _here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", behind)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _start() -> None:
    try:
        from pyscope.children import start_if_child
    except ImportError:  # another environment's interpreter: not ours to record
        return
    try:
        start_if_child()
    except Exception as error:  # the program runs, unrecorded
        sys.stderr.write(f"pyscope: this child process is not recorded: {error}\n")


import importlib.util  # noqa: E402

sys.path[:] = [path for path in sys.path if os.path.abspath(path or os.curdir) != _here]
try:
    _run_the_one_behind()
finally:
    _start()
