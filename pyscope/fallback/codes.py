"""The numbers of code objects and C functions in a recording of the pure-Python hook; what is selected has one."""

from __future__ import annotations

import inspect
from fnmatch import fnmatchcase
from types import BuiltinFunctionType, CodeType, FrameType
from typing import Any

from pyscope import config, selection
from pyscope.fallback.writer import RecordingWriter
from pyscope.format import CodeFlag

__all__ = ["Codes"]


class Codes:
    """Decides once for each code object. `libraries`: where code lies that is the user's own only if it is named."""

    def __init__(self, settings: config.Settings, writer: RecordingWriter) -> None:
        self.libraries = selection.library_prefixes()
        self._writer = writer
        self._matched: set[str] = set()
        self._codes: dict[CodeType, int | None] = {}
        self._c_codes: dict[str, int] = {}
        globs = None if settings.modules is None else selection.expand(settings.modules)
        self.reselect(globs, selection.expand(settings.exclude))

    def reselect(self, globs: list[str] | None, exclude: list[str]) -> None:
        """Selects by other globs from now on; what has a number keeps it."""
        self._globs, self._exclude = globs, exclude
        self._own = any(glob.startswith("pyscope") for glob in globs or ())
        self._codes = {code: number for code, number in self._codes.items() if number is not None}

    @property
    def unmatched(self) -> list[str]:
        """The globs that no code has matched."""
        return [glob for glob in self._globs or () if glob not in self._matched]

    def of(self, frame: FrameType) -> int | None:
        """The number of a frame's code, None where it is not selected."""
        code = frame.f_code
        try:
            return self._codes[code]
        except KeyError:
            pass
        names = selection.names_of(frame.f_globals)
        name = names[0]
        number: int | None = None
        if self._selects(names, frame):
            flags = 0
            if code.co_flags & inspect.CO_GENERATOR:
                flags |= CodeFlag.GENERATOR
            if code.co_flags & inspect.CO_COROUTINE:
                flags |= CodeFlag.COROUTINE
            if code.co_flags & inspect.CO_ASYNC_GENERATOR:
                flags |= CodeFlag.ASYNC_GENERATOR
            arity = code.co_argcount + code.co_kwonlyargcount
            if code.co_argcount and code.co_varnames[0] in ("self", "cls"):
                arity -= 1
            number = self._writer.code(
                name, code.co_qualname, code.co_filename, code.co_firstlineno, arity, flags
            )
        self._codes[code] = number
        return number

    def is_users(self, frame: FrameType) -> bool:
        """Whether a frame runs the user's own code: not in a library, or of modules that a glob names."""
        modules = selection.names_of(frame.f_globals)
        if modules[0] == "pyscope" or modules[0].startswith("pyscope."):
            return False
        if not self._is_of_library(frame):
            return True
        return any(
            glob != "*" and fnmatchcase(module, glob) for glob in self._globs or () for module in modules
        ) and not any(fnmatchcase(module, glob) for glob in self._exclude for module in modules)

    def _is_of_library(self, frame: FrameType) -> bool:
        """By its file. What was generated (a dataclass's methods, `exec`) by that of its module, and what is of no
        module, as the `__new__` of a namedtuple, by who calls it first."""
        at: FrameType | None = frame
        while at is not None:
            place = at.f_code.co_filename
            if place.startswith(("<frozen", *self.libraries)):
                return True
            if place.startswith("<"):
                place = selection.file_of_module(at.f_globals)
            if place:
                return place.startswith(self.libraries)
            at = at.f_back
        return False

    def _selects(self, modules: tuple[str, ...], frame: FrameType) -> bool:
        chosen = self._globs is None
        for glob in self._globs or ():
            if any(fnmatchcase(module, glob) for module in modules):
                self._matched.add(glob)
                chosen = True
        if any(fnmatchcase(module, glob) for glob in self._exclude for module in modules):
            return False
        if not self._own and any(module == "pyscope" or module.startswith("pyscope.") for module in modules):
            return False
        return chosen and not (self._globs is None and self._is_of_library(frame))

    def of_c(self, function: Any) -> int:
        """The number of a C function."""
        owner = getattr(function, "__self__", None) if isinstance(function, BuiltinFunctionType) else None
        qualname = getattr(function, "__qualname__", type(function).__name__)
        module = getattr(function, "__module__", None) or (
            type(owner).__module__ if owner is not None else ""
        )
        key = f"{module}.{qualname}"
        number = self._c_codes.get(key)
        if number is None:
            number = self._c_codes[key] = self._writer.code(
                str(module), str(qualname), flags=CodeFlag.C_FUNCTION
            )
        return number
