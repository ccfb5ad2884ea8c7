"""The begin and end of a watched object's own methods, where its containers are compared with how they were.

A method is replaced in its class's namespace by a `Boundary`. Looked up on the class it still is the function
itself; bound to an object it equals, and hashes as, the method that was bound before.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from inspect import CO_COROUTINE
from types import FunctionType, MethodType
from typing import Any

from pyscope.events.state import Seen
from pyscope.probes.classes import mro, namespace
from pyscope.selection import library_prefixes

__all__ = ["Boundaries", "Look"]

MOST_NESTED = 20  # boundaries inside each other on one thread: deep recursion has its stack for itself
SPECIAL = ("__call__", "__setitem__", "__delitem__")

Look = Callable[[object, str, Seen], None]
"""Compares an object with how it was; the name of the call, and where in it this is. It never raises."""

_nesting = threading.local()


class Boundary:
    """A function in a class's namespace, and a look at the object before and after it."""

    def __init__(self, function: FunctionType, look: Look) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._look = look
        self._is_async = bool(function.__code__.co_flags & CO_COROUTINE)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self._function
        if getattr(_nesting, "depth", 0) >= MOST_NESTED:
            return MethodType(self._function, instance)
        return MethodType(self, instance)

    def __call__(self, instance: object, /, *arguments: Any, **named: Any) -> Any:
        name = self._function.__qualname__
        self._look(instance, name, Seen.BETWEEN)
        if self._is_async:
            # One that is not begun, and closed, says what the arguments' errors are and does nothing else.
            unused = self._function(instance, *arguments, **named)
            unused.close()
            whole: Any = self._awaited(instance, arguments, named)
            whole.__name__ = unused.__name__
            whole.__qualname__ = unused.__qualname__
            return whole
        _nesting.depth = getattr(_nesting, "depth", 0) + 1
        try:
            return self._function(instance, *arguments, **named)
        finally:
            _nesting.depth -= 1
            self._look(instance, name, Seen.BOUNDARY)

    async def _awaited(self, instance: object, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            return await self._function(instance, *arguments, **named)
        finally:
            self._look(instance, self._function.__qualname__, Seen.BOUNDARY)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._function

    def __hash__(self) -> int:
        return hash(self._function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


class Boundaries:
    """The methods that are boundaries, and how they were."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._changed: list[tuple[type, str, FunctionType, Boundary]] = []
        self._classes: dict[int, type] = {}
        self._libraries = library_prefixes()

    def place(self, kind: type) -> None:
        """Makes boundaries of the methods that a class has from the program itself, its bases included."""
        for base in mro(kind):
            if id(base) in self._classes:
                continue
            self._classes[id(base)] = base
            for name, found in list(namespace(base).items()):
                if type(found) is not FunctionType or (name.startswith("__") and name not in SPECIAL):
                    continue
                if found.__code__.co_filename.startswith((*self._libraries, "<")):
                    continue
                boundary = Boundary(found, self._look)
                try:
                    type.__setattr__(base, name, boundary)
                except TypeError:
                    break
                self._changed.append((base, name, found, boundary))

    def remove_all(self) -> None:
        """Every method is as it was, unless somebody has replaced it since."""
        for kind, name, found, boundary in self._changed[::-1]:
            if namespace(kind).get(name) is boundary:
                type.__setattr__(kind, name, found)
        self._changed = []
        self._classes = {}
