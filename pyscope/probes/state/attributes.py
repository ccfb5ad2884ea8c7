"""Sees attributes set and deleted: a class gets a `__setattr__` and a `__delattr__` that tell, and lose them again.

The class's own methods do the work, with their own results and exceptions. What they are found by is the class's
namespace, past any metaclass.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol, cast

from pyscope.probes.state.values import mro, namespace

__all__ = ["AttributeHooks", "Observer"]

_MISSING = object()


class Observer(Protocol):
    """Who is told of writes. Neither method raises."""

    def before_write(self, instance: object, name: str) -> Any:
        """An attribute is about to be written; what this returns is handed to `after_write`, None: don't call it."""

    def after_write(self, instance: object, name: str, value: Any, before: Any, constructing: bool) -> None:
        """It was. `value` is what was assigned."""


class AttributeHooks:
    """The classes that are hooked, and how they were."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._hooked: dict[
            int, tuple[type, dict[str, tuple[Any, Any]]]
        ] = {}  # id: class, name: (as found, ours)
        self._outermost: dict[int, tuple[type, type | None]] = {}

    def hook(self, kind: type) -> bool:
        """Hooks a class; once is enough. False if it cannot be changed."""
        if id(kind) in self._hooked:
            return True
        changed: dict[str, tuple[Any, Any]] = {}
        for name, make in (("__setattr__", self._setter), ("__delattr__", self._deleter)):
            found = namespace(kind).get(name, _MISSING)
            ours = make(kind, found)
            try:
                type.__setattr__(kind, name, ours)
            except TypeError:
                return False
            changed[name] = found, ours
        self._hooked[id(kind)] = kind, changed
        self._outermost = {}
        return True

    def unhook_all(self) -> None:
        """Every class is as it was; where somebody has put something over ours, ours stays below and does nothing."""
        for kind, changed in list(self._hooked.values())[::-1]:
            for name, (found, ours) in changed.items():
                if namespace(kind).get(name) is not ours:
                    continue
                if found is _MISSING:
                    type.__delattr__(kind, name)
                else:
                    type.__setattr__(kind, name, found)
        self._hooked = {}
        self._outermost = {}

    def _tells(self, kind: type, instance: object) -> bool:
        """Of several hooked classes in an object's MRO the first one tells."""
        own = type(instance)
        known = self._outermost.get(id(own))
        if known is None:
            first = next((base for base in mro(own) if id(base) in self._hooked), None)
            known = self._outermost[id(own)] = own, first
        return known[1] is kind

    def _setter(self, kind: type, found: Any) -> Callable[..., None]:
        tells, observer, base = self._tells, self._observer, cast(Any, kind)

        def __setattr__(instance: Any, name: str, value: Any, /) -> None:
            before = observer.before_write(instance, name) if tells(kind, instance) else None
            if found is _MISSING:
                super(base, instance).__setattr__(name, value)
            elif type(found) is FunctionType:
                found(instance, name, value)
            else:
                found.__get__(instance, type(instance))(name, value)
            if before is not None:
                observer.after_write(instance, name, value, before, _constructing())

        return __setattr__

    def _deleter(self, kind: type, found: Any) -> Callable[..., None]:
        tells, observer, base = self._tells, self._observer, cast(Any, kind)

        def __delattr__(instance: Any, name: str, /) -> None:
            before = observer.before_write(instance, name) if tells(kind, instance) else None
            if found is _MISSING:
                super(base, instance).__delattr__(name)
            elif type(found) is FunctionType:
                found(instance, name)
            else:
                found.__get__(instance, type(instance))(name)
            if before is not None:
                observer.after_write(instance, name, _MISSING, before, False)

        return __delattr__


def _constructing() -> bool:
    """Whether the write stands in an `__init__`."""
    return sys._getframe(2).f_code.co_name == "__init__"
