"""Every backend tells the same story of the same program, and the program notices none of them.

The oracle is the backend `python`. Compared are trees of calls, by thread and context, each call with its
outcome and exception. Normalised, because no tracer can know better or CPython does not say: a generator that is still
suspended at the end counts like a closed one; names that a counter gives (tasks, greenlets) lose their number.
PYSCOPE_EXAMPLES=1000 looks at more programs, other ones each time.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
import time
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from strategy import programs

import pyscope
from pyscope import backends
from pyscope.errors import PyScopeWarning
from pyscope.trace import OUTCOMES, Trace

EXAMPLES = int(os.environ.get("PYSCOPE_EXAMPLES", "0"))
ORACLE = "python"
SELECTIONS = (["generated"], ["*"])

Tree = tuple[Any, ...]


def test_a_backend_is_left_out_only_where_its_mechanism_does_not_exist() -> None:
    missing = {choice.name for choice in backends.backend_report() if not choice.available}

    assert missing == (set() if sys.version_info >= (3, 12) else {"monitoring"})


@settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    # What explains a failure traces the program: company of that kind is another test's. Shrinking takes minutes.
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(source=programs())
def test_every_backend_gives_the_oracles_tree_and_the_program_behaves_as_untraced(source: str) -> None:
    note(source)
    _compare(source)


UNBEGUN = """
def numbers(n):
    yield n
    yield n + 1
def plain(n): return n
def main():
    for _ in range(5):
        for error in (ValueError, GeneratorExit):
            first = numbers(1)
            next(first)
            del first  # 3.13 closes it without resuming it: no event tells of that
            second = numbers(2)  # where the first one was
            try:
                second.throw(error())
            except BaseException:
                plain(3)
    return "done"
"""


def test_what_is_thrown_into_a_generator_that_has_not_begun_is_a_call_of_its_own() -> None:
    tree = _compare(UNBEGUN)
    [main] = [row for row in tree if row[0] == "main"]
    outcomes = [(name, outcome) for name, outcome, *_ in main[4] if name == "numbers"]
    assert (
        outcomes
        == [("numbers", "closed"), ("numbers", "raised"), ("numbers", "closed"), ("numbers", "closed")] * 5
    )


LEFT_BY_RERAISE = """
import contextlib
class Guard:
    def __enter__(self): return self
    def __exit__(self, *error): return False
def guarded(n):
    with Guard():
        n = (yield n) or n
        yield
    yield n
def tried(n):
    try:
        yield
    finally:
        n + 1
def caught(n):
    try:
        yield from tried(n)
    except ValueError:
        yield
    yield
def main():
    for make in (guarded, tried, caught):
        for error in (ValueError, KeyError):
            it = make(1)
            next(it)
            with contextlib.suppress(Exception):
                it.throw(error())
                next(it)
            list(make(2))
    return "done"
"""


def test_an_exception_that_a_with_or_finally_raises_again_at_a_yield_leaves_the_generator() -> None:
    [main] = [row for row in _compare(LEFT_BY_RERAISE) if row[0] == "main"]
    outcomes = [(name, outcome, raised) for name, outcome, raised, *_ in main[4]]
    value, key = "builtins.ValueError", "builtins.KeyError"
    assert outcomes == [
        *[("guarded", "raised", value), ("guarded", "returned", None)],
        *[("guarded", "raised", key), ("guarded", "returned", None)],
        *[("tried", "raised", value), ("tried", "returned", None)],
        *[("tried", "raised", key), ("tried", "returned", None)],
        *[("caught", "closed", None), ("caught", "returned", None)],
        *[("caught", "raised", key), ("caught", "returned", None)],
    ]


def _compare(source: str) -> Tree:
    """What the oracle tells of the program, and every other backend too."""
    code = compile(source, "<generated>", "exec")
    untraced = _run(code)
    with _folder() as folder:
        expected = _traced(code, ORACLE, SELECTIONS[0], folder, untraced)
        for backend in _natives():
            for modules in SELECTIONS:
                found = _traced(code, backend, modules, folder, untraced)
                assert found == expected, f"{backend} of {modules}\n{_difference(expected, found)}"
    return expected


def _natives() -> list[str]:
    return [c.name for c in backends.backend_report() if c.available and c.name != ORACLE]


class _folder:
    """A temporary folder on tmpfs where there is one (Hypothesis forbids function-scoped fixtures)."""

    def __enter__(self) -> Path:
        import tempfile

        shared = "/dev/shm"
        self.made = tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None)
        return Path(self.made.__enter__())

    def __exit__(self, *error: object) -> None:
        self.made.__exit__(*error)  # type: ignore[arg-type]


def _run(code: types.CodeType) -> Any:
    """What the program said and returned. Its module lives on in the result, and with it what it kept suspended."""
    module = types.ModuleType("generated")
    sys.modules["generated"] = module
    try:
        exec(code, module.__dict__)
        return module.main(), module
    finally:
        del sys.modules["generated"]


def _interpreter() -> dict[str, Any]:
    """What a stop must leave as it was."""
    monitoring = getattr(sys, "monitoring", None)
    tools = [monitoring.get_tool(number) for number in range(6)] if monitoring else []
    events = [monitoring.get_events(n) for n, tool in enumerate(tools) if tool] if monitoring else []
    return {
        "profile": sys.getprofile(),
        "trace": sys.gettrace(),
        "threads": (threading.gettrace(), threading.getprofile()),
        "tools": tools,
        "events": events,
        "environment": dict(os.environ),
        "path": list(sys.path),
        "threads alive": threading.active_count(),
    }


def _traced(code: types.CodeType, backend: str, modules: list[str], folder: Path, untraced: Any) -> Tree:
    path = folder / "program.pyscope"
    before = _interpreter()
    gc.collect()
    gc.disable()  # when a cycle is collected is nobody's business here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PyScopeWarning)  # "generated" may match nothing
            with pyscope.record(
                path, modules=modules, backend=backend, ring_mb=2, children=False
            ) as recording:
                said, kept = _run(code)
    finally:
        gc.enable()
    deadline = time.monotonic() + 5  # a thread of the program's may still be on its way out
    while threading.active_count() > before["threads alive"] and time.monotonic() < deadline:
        time.sleep(0.001)
    after = _interpreter()
    # Threads of an earlier test may end: trio keeps some for ten seconds.
    assert after.pop("threads alive") <= before.pop("threads alive")
    assert after == before
    assert said == untraced[0]
    assert recording.figures["faults"] == 0, recording.figures
    del kept
    trace = pyscope.load(path)
    assert not trace.losses, trace.losses
    return tree_of(trace)


def tree_of(trace: Trace) -> Tree:
    """The calls of module `generated` as nested tuples; a call of another module stands for its callees."""
    columns = {name: trace.calls[name].tolist() for name in trace.calls}
    children: dict[int, list[int]] = {}
    ours = [trace.functions[f].module == "generated" for f in columns["function"]]
    for row, parent in enumerate(columns["parent"]):
        if ours[row]:
            while parent >= 0 and not ours[parent]:
                parent = columns["parent"][parent]
            children.setdefault(parent, []).append(row)

    def place(row: int) -> tuple[str, str, str]:
        context = trace.contexts[columns["context"][row]]
        name = re.sub(r"-\d+$", "", context.name) if context.kind != "thread" else ""
        return trace.threads[columns["thread"][row]].name, context.kind, name

    def node(row: int) -> Tree:
        function = trace.functions[columns["function"][row]]
        outcome = OUTCOMES[columns["outcome"][row]]
        if outcome == "open" and function.kind != "function":
            outcome = "closed"
        exception = columns["exception"][row]
        raised = trace.exceptions[exception] if exception >= 0 else None
        return (function.qualname, outcome, raised, place(row), tuple(map(node, children.get(row, ()))))

    roots = sorted(children.get(-1, ()), key=place)  # stable: in order of start within each place
    return tuple(map(node, roots))


def _difference(expected: Tree, found: Tree) -> str:
    import difflib

    lines = difflib.unified_diff(_lines(expected), _lines(found), "oracle", "found", lineterm="", n=4)
    return "\n".join(list(lines)[:60])


def _lines(tree: Tree, indent: str = "") -> list[str]:
    out = []
    for name, outcome, raised, place, below in tree:
        out.append(f"{indent}{name} {outcome} {raised or ''} {'/'.join(place)}")
        out += _lines(below, indent + "  ")
    return out


@pytest.mark.parametrize("backend", ["monitoring", "frame", "setprofile", "python"])
def test_a_stop_leaves_other_peoples_hooks_of_the_interpreter_alone(backend: str, tmp_path: Path) -> None:
    if backend not in [*_natives(), ORACLE]:
        pytest.skip("its mechanism does not exist in this version")

    def quiet(*event: object) -> None:
        return None

    threading.settrace(quiet)
    if backend not in ("setprofile", "python"):  # these two take the place of a profile function
        sys.setprofile(quiet)
    sys.settrace(quiet)
    try:
        before = _interpreter()
        with pyscope.record(tmp_path / "r.pyscope", modules=[__name__], backend=backend):
            _lines(())
        assert _interpreter() == before
    finally:
        sys.settrace(None)
        sys.setprofile(None)
        threading.settrace(None)  # type: ignore[arg-type]
