"""Which modules are recorded: the one that `python -m` runs is meant by its own name, and by `__main__`."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pyscope
from tests.unit.test_capture import ALL
from tests.unit.test_run_semantics import REPOSITORY

WORKER = """
    import multiprocessing, sys
    import pyscope
    from shop.stock import count

    def work():
        return count()

    if __name__ == "__main__":
        backend, modules, exclude, spawn = sys.argv[1:]
        with pyscope.record("run.pyscope", modules=[modules], exclude=[exclude], backend=backend, ring_mb=4):
            work()
            if spawn == "spawn":
                process = multiprocessing.get_context("spawn").Process(target=work)
                process.start()
                process.join()
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A package `shop` whose module `worker` is a program."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "stock.py").write_text("def count():\n    return 1\n")
    (tmp_path / "shop" / "worker.py").write_text(textwrap.dedent(WORKER))
    return tmp_path


def calls(folder: Path, backend: str, modules: str, exclude: str = "nothing", spawn: str = "") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "shop.worker", backend, modules, exclude, spawn],
        cwd=folder,
        env={"PYTHONPATH": f"{folder}:{REPOSITORY}", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "matched no code" not in done.stderr
    trace = pyscope.load(folder / "run.pyscope")
    found = (trace.call(row) for row in range(len(trace.calls)))
    return sorted(f"{call.module}.{call.qualname}" for call in found)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("modules", ["shop.*", "shop.worker", "__main__"])
def test_a_module_that_is_run_is_meant_by_both_its_names(shop: Path, backend: str, modules: str) -> None:
    expected = ["__main__.work", "shop.stock.count"] if modules == "shop.*" else ["__main__.work"]
    assert calls(shop, backend, modules) == expected


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("exclude", ["shop.worker", "__main__"])
def test_and_left_out_by_either(shop: Path, backend: str, exclude: str) -> None:
    assert calls(shop, backend, "shop.*", exclude) == ["shop.stock.count"]


def test_a_spawned_process_that_imports_it_under_a_third_name_records_it_too(shop: Path) -> None:
    found = calls(shop, "auto", "shop.worker", spawn="spawn")
    assert [name for name in found if name.endswith(".work")] == ["__main__.work", "__mp_main__.work"]


GENERATED = """
    import dataclasses, sys, urllib.parse
    from collections import namedtuple
    import pyscope

    Own = namedtuple("Own", "a")

    @dataclasses.dataclass
    class Order:
        a: int

    class Theirs:
        __module__ = "json.decoder"  # what is generated for it has the globals of that module
        a: int

    wrapper = "def wrapper(): return 1"  # as decorators of libraries are: globals of their own, the module's name
    theirs = {"__name__": "json.decoder"}
    exec(wrapper, theirs)

    def main():
        Own(1)
        Order(1)
        dataclasses.dataclass(Theirs)(1)
        theirs["wrapper"]()
        urllib.parse.urlsplit("http://shop/")  # a namedtuple of a library's
        exec("def own(): return 1", nameless := {})
        nameless["own"]()

    with pyscope.record("run.pyscope", backend=sys.argv[1], ring_mb=4):
        main()
"""


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("how", ["script", "-c"])
def test_generated_code_belongs_to_its_module_or_to_who_calls_it(
    tmp_path: Path, backend: str, how: str
) -> None:
    script = textwrap.dedent(GENERATED)
    (tmp_path / "program.py").write_text(script)
    program = ["-c", script] if how == "-c" else ["program.py"]
    subprocess.run(
        [sys.executable, *program, backend],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin"},
        check=True,
        timeout=120,
    )
    trace = pyscope.load(tmp_path / "run.pyscope")
    found = {(function.module, function.qualname) for function in trace.functions}
    # From 3.14 on annotations are a function, which stands in the program itself.
    annotations = {("__main__", "Theirs.__annotate__")} if sys.version_info >= (3, 14) else set()
    assert {name for name in found if name[1] != "<module>"} == annotations | {
        ("__main__", "main"),
        ("namedtuple_Own", "<lambda>"),
        ("__main__", "__create_fn__.<locals>.__init__"),
        ("", "own"),
    }


def test_packages_on_the_path_beside_the_interpreter_s_own_are_libraries(tmp_path: Path) -> None:
    packages = tmp_path / "layer" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "borrowed.py").write_text("def helper():\n    return 1\n")
    program = tmp_path / "program.py"
    program.write_text(
        "import borrowed, pyscope\n"
        "def work():\n    return borrowed.helper()\n"
        "with pyscope.record('run.pyscope', ring_mb=4):\n    work()\n"
        "print([function.qualname for function in pyscope.load('run.pyscope').functions])\n"
    )
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{REPOSITORY}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "work" in done.stdout
    assert "helper" not in done.stdout
