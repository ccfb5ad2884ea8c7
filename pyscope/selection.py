"""Which modules are recorded: globs as the hook matches them, and what counts as library code."""

from __future__ import annotations

import functools
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["expand", "file_of_module", "library_prefixes", "names_of", "selects_everything"]


def expand(globs: Iterable[str]) -> list[str]:
    """The globs as shell patterns over module names: `shop.*` also means `shop` itself."""
    patterns: list[str] = []
    for glob in globs:
        patterns.append(glob)
        if glob.endswith(".*"):
            patterns.append(glob[:-2])
    return list(dict.fromkeys(patterns))


def selects_everything(globs: Iterable[str] | None) -> bool:
    """Whether every module is meant, libraries included."""
    return globs is not None and "*" in globs


def names_of(module: Mapping[str, Any]) -> tuple[str, ...]:
    """The names by which the module with these globals is selected: two for one that `python -m` runs."""
    name = module.get("__name__")
    first = name if type(name) is str else ""
    spec = module.get("__spec__")
    if first in ("__main__", "__mp_main__") and type(spec) is ModuleSpec and type(spec.name) is str:
        return first, spec.name
    return (first,)


def file_of_module(module: Mapping[str, Any]) -> str:
    """Where the module with these globals lies; empty where that is not known."""
    file, name = module.get("__file__"), module.get("__name__")
    if file is None and name in ("__main__", "__mp_main__"):
        return "<main>"  # the program, as `python -c` or a notebook runs it
    if file is None and type(name) is str:  # globals made for the code alone, under the name of the module
        found = sys.modules.get(name)
        if isinstance(found, ModuleType):
            file = ModuleType.__getattribute__(found, "__dict__").get("__file__")
    return file if type(file) is str else ""


@functools.cache
def library_prefixes() -> tuple[str, ...]:
    """The folders (each ending in a separator) whose code is the standard library, installed packages or PyScope.

    With `modules=None` code below them is not recorded. A program kept inside such a folder is
    recorded by naming its modules.
    """
    folders = {sysconfig.get_paths().get(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {
        os.path.dirname(os.__file__),
        os.path.dirname(__file__),
    }  # PyScope may be installed as editable
    if sys.prefix != sys.base_prefix:
        folders.add(sysconfig.get_path("scripts"))  # the commands of installed packages
    try:
        folders.update(site.getsitepackages())
        folders.add(site.getusersitepackages())
    except AttributeError:  # a virtualenv of old
        pass
    folders.update(p for p in sys.path if os.path.basename(p) in ("site-packages", "dist-packages"))
    found: list[str] = []
    for folder in folders:
        if folder:
            for spelling in (folder, os.path.realpath(folder)):
                found.append(os.path.join(spelling, ""))
    base = os.path.join(sys.base_prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}", "")
    return tuple(sorted({*found, base}))
