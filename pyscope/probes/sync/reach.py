"""Finds locks that exist already, where the program's own code refers to them, and puts ones that tell in their place.

Looked at: globals of the program's modules, and from there attributes of its classes and of their instances,
lists, dicts, and variables of closures, some levels deep. A lock that is found where it cannot be replaced (a
tuple, a local variable of a running function) makes the file of that code one of `unseen`. Nothing of the
program's code runs: no properties, no `__getattr__`.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from types import CellType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any

from pyscope.probes.frames import current_frames
from pyscope.probes.sync.callers import in_standard_library, is_standard
from pyscope.probes.sync.locks import RAW_LOCK, RAW_RLOCK, traced

__all__ = ["Reach", "is_own_module"]

MOST_LEVELS = 4
MOST_OBJECTS = 20_000

_namespace_of = type.__dict__["__dict__"].__get__
_mro_of = type.__dict__["__mro__"].__get__
_CONDITION_COPIES = ("acquire", "release", "_release_save", "_acquire_restore", "_is_owned")


def is_own_module(module: Any) -> bool:
    """Whether a module is the program's: neither the standard library's, nor an installed package's, nor PyScope's."""
    if type(module) is not ModuleType:
        return False
    file = module.__dict__.get("__file__")
    name = module.__dict__.get("__name__")
    if type(name) is not str or name == "pyscope" or name.startswith("pyscope."):
        return False
    if type(file) is not str:
        return name == "__main__"
    return "site-packages" not in file and "dist-packages" not in file and not is_standard(file)


class Reach:
    """What was replaced, and how to put it back."""

    def __init__(self, stands_for: dict[int, Any]) -> None:
        self._stands_for = stands_for
        self._undo: list[Callable[[], None]] = []
        self._traced: dict[int, Any] = {}  # address of a raw lock (held by what stands for it): that
        self._seen: set[int] = set()
        self._held: list[Any] = []  # so that addresses in `_seen` stay their own meanwhile
        self._file = ""
        self.unseen: set[str] = set()

    def modules(self, modules: Iterable[Any]) -> None:
        """Replaces what the modules' globals lead to."""
        for module in modules:
            namespace = module.__dict__
            self._file = namespace.get("__file__") or ""
            for name, value in list(namespace.items()):
                if type(name) is not str or name.startswith("__"):
                    continue
                factory = self._stands_for.get(id(value))
                if factory is not None and not name.endswith("Type"):  # on 3.13 the factory is the type
                    self._put(namespace, name, value, factory)
                elif self._is_lock(value):
                    self._put(namespace, name, value, self.replacement(value, f"{module.__name__}.{name}"))
                else:
                    self._enter(value, f"{module.__name__}.{name}", 0)
        self._frames()
        self._forget()

    def object(self, value: Any, name: str) -> None:
        """Replaces what a watched object's attributes lead to."""
        self._file = ""
        self._enter(value, name, 0, whole=True)
        self._forget()

    def attribute(self, instance: Any, name: str, raw: Any) -> Any:
        """What is to be stored in an object's attribute in place of a lock; that is put back at the end."""
        replacement = self.replacement(raw, f"{type(instance).__name__}.{name}")
        self._put_back_later(instance, name, raw, replacement)
        return replacement

    def undo(self) -> None:
        """Puts everything back, unless the program has put something else there since."""
        while self._undo:
            try:
                self._undo.pop()()
            except Exception:
                continue
        self._traced.clear()

    def _forget(self) -> None:
        self._seen.clear()
        self._held.clear()

    # finding

    @staticmethod
    def _is_lock(value: Any) -> bool:
        kind = type(value)
        return kind is RAW_LOCK or kind is RAW_RLOCK

    def replacement(self, raw: Any, name: str) -> Any:
        """What stands for a lock of the interpreter's own."""
        found = self._traced.get(id(raw))
        if found is None:
            found = self._traced[id(raw)] = traced(raw, name)
        return found

    def _enter(self, value: Any, name: str, level: int, whole: bool = False) -> None:
        kind = type(value)
        if kind in _PLAIN or id(value) in self._seen or level > MOST_LEVELS:
            return
        if len(self._seen) >= MOST_OBJECTS:
            return
        if kind is dict or kind is list:
            self._note(value)
            pairs = list(value.items() if kind is dict else enumerate(value))
            for key, part in pairs:
                if self._is_lock(part):
                    self._put(value, key, part, self.replacement(part, name))
                else:
                    self._enter(part, name, level + 1)
        elif kind is tuple or kind is frozenset:
            self._note(value)
            for part in value:
                if self._is_lock(part):
                    self._unseen()
                else:
                    self._enter(part, name, level + 1)
        elif kind is FunctionType:
            if value.__closure__ and not is_standard(value.__code__.co_filename):
                self._note(value)
                for variable, cell in zip(value.__code__.co_freevars, value.__closure__, strict=False):
                    self._cell(cell, f"{value.__qualname__}.{variable}", level)
        elif issubclass(kind, type):
            if self._is_own_class(value):
                self._note(value)
                self._class(value, level)
        elif kind is threading.Condition:
            self._note(value)
            self._condition(value, name)
        elif whole or self._is_own_class(kind):
            self._note(value)
            self._instance(value, kind.__name__, level)

    def _note(self, value: Any) -> None:
        self._seen.add(id(value))
        self._held.append(value)

    @staticmethod
    def _is_own_class(kind: type) -> bool:
        module = _namespace_of(kind).get("__module__")
        return type(module) is str and is_own_module(sys.modules.get(module))

    def _class(self, kind: type, level: int) -> None:
        for name, value in list(_namespace_of(kind).items()):
            if self._is_lock(value):
                self._put_attribute(kind, name, value, self.replacement(value, f"{kind.__name__}.{name}"))
            elif type(value) in (staticmethod, classmethod):
                self._enter(value.__func__, name, level + 1)
            elif type(value) is not property:
                self._enter(value, f"{kind.__name__}.{name}", level + 1)

    def _instance(self, instance: Any, owner: str, level: int) -> None:
        try:
            namespace = object.__getattribute__(instance, "__dict__")
        except AttributeError:
            namespace = {}
        if type(namespace) is dict:
            for name, value in list(namespace.items()):
                if self._is_lock(value):
                    namespace[name] = self.replacement(value, f"{owner}.{name}")
                    self._put_back_later(instance, name, value, namespace[name])
                else:
                    self._enter(value, f"{owner}.{name}", level + 1)
        for base in _mro_of(type(instance)):
            for name, descriptor in list(_namespace_of(base).items()):
                if type(descriptor) is MemberDescriptorType:
                    try:
                        value = descriptor.__get__(instance, base)
                    except AttributeError:
                        continue
                    if self._is_lock(value):
                        replacement = self.replacement(value, f"{owner}.{name}")
                        descriptor.__set__(instance, replacement)
                        self._put_back_later(instance, name, value, replacement)
                    else:
                        self._enter(value, f"{owner}.{name}", level + 1)

    def _cell(self, cell: CellType, name: str, level: int) -> None:
        try:
            value = cell.cell_contents
        except ValueError:
            return
        if not self._is_lock(value):
            self._enter(value, name, level + 1)
            return
        replacement = cell.cell_contents = self.replacement(value, name)

        def undo() -> None:
            if cell.cell_contents is replacement:
                cell.cell_contents = value

        self._undo.append(undo)

    def _condition(self, condition: Any, name: str) -> None:
        own = condition.__dict__
        raw = own.get("_lock")
        if not self._is_lock(raw):
            return
        before = {key: own[key] for key in ("_lock", *_CONDITION_COPIES) if key in own}
        replacement = self.replacement(raw, name)
        after = {"_lock": replacement}
        for key in _CONDITION_COPIES:
            if key in before:
                after[key] = getattr(replacement, key)
        own.update(after)
        reference = weakref.ref(condition)

        def undo() -> None:
            living = reference()
            if living is not None and living.__dict__.get("_lock") is replacement:
                living.__dict__.update(before)

        self._undo.append(undo)

    def _frames(self) -> None:
        """Locks in local variables of functions that run now cannot be replaced."""
        for top in list(current_frames().values()):
            frame = top
            while frame is not None:
                own = not in_standard_library(frame) and is_own_module(
                    sys.modules.get(frame.f_globals.get("__name__", ""))
                )
                if own and frame.f_code.co_nlocals and frame.f_locals is not frame.f_globals:
                    self._file = frame.f_code.co_filename
                    for value in list(frame.f_locals.values()):
                        if self._is_lock(value):
                            self._unseen()
                frame = frame.f_back  # type: ignore[assignment]

    # replacing

    def _put(self, holder: Any, key: Any, raw: Any, replacement: Any) -> None:
        holder[key] = replacement

        def undo() -> None:
            if holder[key] is replacement:
                holder[key] = raw

        self._undo.append(undo)

    def _put_attribute(self, owner: type, name: str, raw: Any, replacement: Any) -> None:
        type.__setattr__(owner, name, replacement)

        def undo() -> None:
            if _namespace_of(owner).get(name) is replacement:
                type.__setattr__(owner, name, raw)

        self._undo.append(undo)

    def _put_back_later(self, instance: Any, name: str, raw: Any, replacement: Any) -> None:
        try:
            reference: Callable[[], Any] = weakref.ref(instance)
        except TypeError:
            reference = lambda: instance  # noqa: E731

        def undo() -> None:
            living = reference()
            if living is None:
                return
            try:
                own = object.__getattribute__(living, "__dict__")
            except AttributeError:
                own = {}
            if own.get(name) is replacement:
                own[name] = raw
                return
            for base in _mro_of(type(living)):
                descriptor = _namespace_of(base).get(name)
                if type(descriptor) is MemberDescriptorType:
                    if descriptor.__get__(living, base) is replacement:
                        descriptor.__set__(living, raw)
                    return

        self._undo.append(undo)

    def _unseen(self) -> None:
        if self._file:
            self.unseen.add(self._file)


_PLAIN = {str, int, float, bool, bytes, type(None), ModuleType, complex, bytearray}
