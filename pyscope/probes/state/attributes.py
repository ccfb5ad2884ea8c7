"""Sees attributes set and deleted: a class gets a `__setattr__` and a `__delattr__` that tell, and loses them again.

The class's own methods do the work, with their own results and exceptions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pyscope.events.state import STATES
from pyscope.probes.class_patches import Hooks, Layer

__all__ = ["AttributeHooks", "Observer"]

CONSTRUCTORS = frozenset({"__init__", "__new__", "__post_init__", "__setstate__", "_declarative_constructor"})
"""Functions whose writes give an object its first state; the last is SQLAlchemy's."""


class Observer(Protocol):
    """Who is told of writes. No method raises."""

    def fault(self) -> None:
        """A hook itself has failed."""

    def after_first_write(self, instance: object, name: str) -> None:
        """A constructor has given an attribute, not one of `STATES`, its value."""

    def before_write(self, instance: object, name: str) -> Any:
        """An attribute is about to be written; what this returns is handed to `after_write`, None: don't call it."""

    def after_write(self, instance: object, name: str, value: Any, before: Any, constructing: bool) -> None:
        """It was. `value` is what was assigned."""


class AttributeHooks(Hooks):
    """The classes that are hooked."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer

    def _methods(self) -> Iterable[tuple[str, Callable[[Layer], Any]]]:
        return ("__setattr__", self._setter), ("__delattr__", self._deleter)

    def _tells(self, kind: type, instance: object) -> bool:
        try:
            return self._teller(type(instance)) is kind
        except Exception:
            self._observer.fault()
            return False

    def _setter(self, layer: Layer) -> Callable[..., None]:
        kind, tells, observer = layer.kind, self._tells, self._observer

        def __setattr__(instance: Any, name: str, value: Any, /) -> None:
            if not tells(kind, instance):
                layer.below(instance, name, value)
                return
            constructing = sys._getframe(1).f_code.co_name in CONSTRUCTORS
            if constructing and name not in STATES:
                layer.below(instance, name, value)
                observer.after_first_write(instance, name)
                return
            before = observer.before_write(instance, name)
            layer.below(instance, name, value)
            if before is not None:
                observer.after_write(instance, name, value, before, constructing)

        return __setattr__

    def _deleter(self, layer: Layer) -> Callable[..., None]:
        kind, tells, observer = layer.kind, self._tells, self._observer

        def __delattr__(instance: Any, name: str, /) -> None:
            before = observer.before_write(instance, name) if tells(kind, instance) else None
            layer.below(instance, name)
            if before is not None:
                observer.after_write(instance, name, None, before, False)

        return __delattr__
