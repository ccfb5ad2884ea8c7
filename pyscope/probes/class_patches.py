"""Special methods of the program's classes, replaced for a while by several probes, removed in any order.

Each replacement is a layer over what was found. The class's namespace is read and written past any metaclass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, cast

from pyscope.probes.classes import mro, namespace

__all__ = ["Hooks", "Layer", "put", "take"]

MISSING = object()

_layers: dict[tuple[int, str], list[Layer]] = {}
_lock = threading.RLock()


class Layer:
    """One replacement: `method` stands in the class `kind` as `name`, or below another layer."""

    __slots__ = ("found", "kind", "method", "name")

    def __init__(self, kind: type, name: str, found: Any) -> None:
        self.kind = kind
        self.name = name
        self.found = found
        self.method: Any = None

    def below(self, instance: Any, *arguments: Any) -> Any:
        """Does what the class would do without this layer."""
        found = self.found
        if type(found) is FunctionType:
            return found(instance, *arguments)
        if found is MISSING:
            return getattr(super(cast(Any, self.kind), instance), self.name)(*arguments)
        return found.__get__(instance, type(instance))(*arguments)


def put(kind: type, name: str, make: Callable[[Layer], Any]) -> Layer | None:
    """Replaces a class's special method by `make(layer)`, which calls `layer.below`. None if the class cannot
    be changed."""
    with _lock:
        layer = Layer(kind, name, namespace(kind).get(name, MISSING))
        layer.method = make(layer)
        try:
            type.__setattr__(kind, name, layer.method)
        except TypeError:
            return None
        _layers.setdefault((id(kind), name), []).append(layer)
        return layer


def take(layer: Layer) -> None:
    """Removes a layer. If somebody else has put something over it that cannot be told, it stays, and should
    do nothing."""
    with _lock:
        key = id(layer.kind), layer.name
        layers = _layers.get(key, [])
        if layer not in layers:
            return
        layers.remove(layer)
        if not layers:
            del _layers[key]
        for above in layers:
            if above.found is layer.method:
                above.found = layer.found
                return
        if namespace(layer.kind).get(layer.name) is not layer.method:
            return
        if layer.found is MISSING:
            type.__delattr__(layer.kind, layer.name)
        else:
            type.__setattr__(layer.kind, layer.name, layer.found)


class Hooks:
    """Classes that have the same methods replaced."""

    def __init__(self) -> None:
        self._hooked: dict[int, list[Layer]] = {}
        self._outermost: dict[int, tuple[type, type | None]] = {}

    def _methods(self) -> Iterable[tuple[str, Callable[[Layer], Any]]]:
        """The names of the methods, each with what makes its replacement."""
        raise NotImplementedError

    def hook(self, kind: type) -> bool:
        """Hooks a class; once is enough. False if it cannot be changed."""
        if id(kind) in self._hooked:
            return True
        layers = []
        for name, make in self._methods():
            layer = put(kind, name, make)
            if layer is None:
                return False
            layers.append(layer)
        self._hooked[id(kind)] = layers
        self._outermost = {}
        return True

    def unhook_all(self) -> None:
        """Every class is as it was."""
        for layers in list(self._hooked.values())[::-1]:
            for layer in layers:
                take(layer)
        self._hooked = {}
        self._outermost = {}

    def _teller(self, own: type) -> type | None:
        """Of several hooked classes in an object's MRO the first one: it tells."""
        known = self._outermost.get(id(own))
        if known is None:
            first = next((base for base in mro(own) if id(base) in self._hooked), None)
            known = self._outermost[id(own)] = own, first
        return known[1]
