"""The two extension modules. Everything else about the package stands in pyproject.toml.

`pyscope._hook` (Cython, native/hook.pyx) records; `pyscope._codec` (pybind11, native/decode*.cpp) reads.
Where nothing can be compiled the package is built without them, in pure Python: slower, and `pyscope
doctor` says so. Environment:

    PYSCOPE_PURE=1               build without the extensions although a compiler is there
    PYSCOPE_SANITIZE=KIND        instrument both: "address,undefined" or "thread"
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
NATIVE = Path("native")
HEADERS = sorted(str(path) for path in NATIVE.glob("*.hpp"))
SANITIZERS = ("address,undefined", "thread")


def why_not_native() -> str | None:
    """Why the extensions cannot be built here, in plain words; None if they can."""
    if os.environ.get("PYSCOPE_PURE", "") not in ("", "0"):
        return "PYSCOPE_PURE is set"
    if sys.implementation.name != "cpython":
        return f"they are written for CPython, this is {sys.implementation.name}"
    if not sys.platform.startswith("linux"):
        return f"they are written for Linux, this is {sys.platform}"
    compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++")
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.cpp")
        probe.write_text("#include <Python.h>\n#include <bit>\nint main() { return std::popcount(0u); }\n")
        command = [
            *compiler,
            "-std=c++20",
            "-fsyntax-only",
            "-I" + sysconfig.get_path("include"),
            "-I" + sysconfig.get_path("platinclude"),
            str(probe),
        ]
        try:
            result = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            return f"no C++ compiler: {compiler[0]}: {error.strerror}"
    if "Python.h" in result.stderr:
        return "the headers of Python are not installed (Debian and Ubuntu: apt install python3-dev)"
    if result.returncode:
        return f"{' '.join(compiler)} cannot compile C++20: {result.stderr.strip()[:300]}"
    return None


def flags() -> tuple[list[str], list[str]]:
    """Compiler and linker arguments of both extensions."""
    compile_args = ["-std=c++20", "-O3", "-g1", "-fvisibility=hidden", "-fno-plt", "-Wall", "-Wextra"]
    link_args: list[str] = ["-pthread"]
    sanitize = os.environ.get("PYSCOPE_SANITIZE", "")
    if sanitize:
        if sanitize not in SANITIZERS:
            raise SystemExit(f"PYSCOPE_SANITIZE={sanitize}: must be one of {', '.join(SANITIZERS)}")
        compile_args += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-O1"]
        link_args.append(f"-fsanitize={sanitize}")
    return compile_args, link_args


HOOK = NATIVE / "hook.pyx"
HOOK_CPP = Path("build", "cython", "_hook.cpp")  # not hook.cpp: there is one, written by hand


class BuildExtensions(build_ext):
    def run(self) -> None:
        if self.extensions:
            translate()
        super().run()


def translate() -> None:
    """Have Cython write HOOK_CPP, if anything in native/ is newer than it."""
    sources = [HOOK, *NATIVE.glob("*.px[id]")]
    if HOOK_CPP.exists() and HOOK_CPP.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return
    from Cython.Compiler.Main import CompilationOptions, compile_single, default_options

    HOOK_CPP.parent.mkdir(parents=True, exist_ok=True)
    options = CompilationOptions(
        default_options, cplus=True, language_level=3, include_path=[str(NATIVE)], output_file=str(HOOK_CPP)
    )
    result = compile_single(str(HOOK), options, full_module_name="pyscope._hook")
    if result.num_errors:
        HOOK_CPP.unlink(missing_ok=True)
        raise SystemExit(f"{HOOK}: Cython found {result.num_errors} errors, see above")


def extensions() -> list[Extension]:
    from pybind11.setup_helpers import Pybind11Extension

    compile_args, link_args = flags()
    decoder = sorted(str(path) for path in NATIVE.glob("decode*.cpp"))
    recorder = sorted(str(path) for path in NATIVE.glob("*.cpp") if str(path) not in decoder)
    common: dict[str, Any] = {
        "include_dirs": [str(NATIVE)],
        "depends": HEADERS,
        "extra_link_args": link_args,
    }
    hook = Extension(
        "pyscope._hook",
        [str(HOOK_CPP), *recorder],
        language="c++",
        # Cython's own output, and type specs of CPython that name the fields they use
        extra_compile_args=[
            *compile_args,
            "-Wno-unused-parameter",
            "-Wno-sign-compare",
            "-Wno-missing-field-initializers",
        ],
        **common,
    )
    codec = Pybind11Extension(
        "pyscope._codec", decoder, cxx_std=20, extra_compile_args=[*compile_args, "-g0"], **common
    )
    return [hook, codec]


os.chdir(ROOT)
reason = why_not_native()
if reason is not None:
    print(
        f"pyscope: building WITHOUT the native recorder: {reason}.\n"
        "pyscope: the pure-Python backend records the same events, many times slower; "
        "mend the cause and install again.",
        file=sys.stderr,
    )
setup(ext_modules=extensions() if reason is None else [], cmdclass={"build_ext": BuildExtensions})
