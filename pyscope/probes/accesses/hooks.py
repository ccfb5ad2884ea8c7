"""Sees attributes read and written: a class gets a `__getattribute__`, `__setattr__` and `__delattr__` that tell.

The class's own methods do the work, with their own results and exceptions, and `type(instance)` stays what it is. The
class's namespace is as it was found when the hooks are taken out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import FunctionType, MemberDescriptorType
from typing import Any, Protocol

from pyscope.probes.class_patches import MISSING, Hooks, Layer
from pyscope.probes.state.values import mro, namespace, type_name

__all__ = ["AccessHooks", "Recorder", "holds_data"]

_plain_get = object.__getattribute__
_plain_set = object.__setattr__


class Recorder(Protocol):
    """Who is told. None of these raises. `label` is "Class.attribute"."""

    numbers: dict[int, int]
    """Address of a watched object: its number."""

    def number_of(self, instance: object) -> int:
        """The number of an object that is not among `numbers`; 0 for one that is not watched."""

    def read(self, number: int, label: str, value: object) -> None:
        """A watched object's attribute was read."""

    def before_write(self, number: int, label: str, instance: object, value: object, deletes: bool) -> object:
        """It is about to be written or deleted. Returns the value to write."""

    def fault(self) -> None:
        """A hook itself has failed."""

    def undone(self, number: int, label: str) -> None:
        """It was not: an exception."""


class AccessHooks(Hooks):
    """The classes that are hooked."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._labels: dict[int, tuple[type, dict[str, str]]] = {}

    def _methods(self) -> Iterable[tuple[str, Callable[[Layer], Any]]]:
        return (
            ("__getattribute__", self._getter),
            ("__setattr__", self._setter),
            ("__delattr__", self._deleter),
        )

    def _label(self, kind: type, own: type, name: str) -> str:
        """What an attribute is called; empty if it is not to be told of, or another hook tells."""
        known = self._labels.get(id(own))
        if known is None:
            known = self._labels[id(own)] = own, {}
        label = known[1].get(name)
        if label is None:
            label = known[1][name] = f"{type_name(own)}.{name}" if holds_data(own, name) else ""
        return label if label and (own is kind or self._teller(own) is kind) else ""

    def _getter(self, layer: Layer) -> Callable[..., Any]:
        kind, recorder, label_of = layer.kind, self._recorder, self._label
        number_of, numbers, read = recorder.number_of, recorder.numbers, recorder.read
        next_one = next((base for base in mro(kind)[1:] if "__getattribute__" in namespace(base)), object)
        plain = next_one is object
        labels: dict[str, str] = {}  # of instances of the class itself

        def __getattribute__(instance: Any, name: str, /) -> Any:
            own = type(instance)
            if own is kind and plain and layer.found is MISSING:
                value = _plain_get(instance, name)
            else:
                value = layer.below(instance, name)
            try:
                label = labels.get(name) if own is kind else label_of(kind, own, name)
                if label is None:
                    label = labels[name] = label_of(kind, kind, name)
                if label:
                    number = numbers.get(id(instance)) or number_of(instance)
                    if number:
                        read(number, label, value)
            except Exception:
                recorder.fault()
            return value

        return __getattribute__

    def _setter(self, layer: Layer) -> Callable[..., None]:
        kind, recorder, label_of = layer.kind, self._recorder, self._label
        number_of, numbers = recorder.number_of, recorder.numbers
        next_one = next((base for base in mro(kind)[1:] if "__setattr__" in namespace(base)), object)
        plain = next_one is object
        labels: dict[str, str] = {}  # of instances of the class itself

        def __setattr__(instance: Any, name: str, value: Any, /) -> None:
            number, label = 0, None
            own = type(instance)
            try:
                label = labels.get(name) if own is kind else label_of(kind, own, name)
                if label is None:
                    label = labels[name] = label_of(kind, kind, name)
                if label:
                    number = numbers.get(id(instance)) or number_of(instance)
                    if number:
                        value = recorder.before_write(number, label, instance, value, False)
            except Exception:
                recorder.fault()
            try:
                if own is kind and plain and layer.found is MISSING:
                    _plain_set(instance, name, value)
                else:
                    layer.below(instance, name, value)
            except BaseException:
                if number and label:
                    recorder.undone(number, label)
                raise

        return __setattr__

    def _deleter(self, layer: Layer) -> Callable[..., None]:
        kind, recorder, label_of = layer.kind, self._recorder, self._label
        number_of, numbers = recorder.number_of, recorder.numbers

        def __delattr__(instance: Any, name: str, /) -> None:
            number, label = 0, ""
            try:
                label = label_of(kind, type(instance), name)
                if label:
                    number = numbers.get(id(instance)) or number_of(instance)
                    if number:
                        recorder.before_write(number, label, instance, None, True)
            except Exception:
                recorder.fault()
            try:
                layer.below(instance, name)
            except BaseException:
                if number:
                    recorder.undone(number, label)
                raise

        return __delattr__


_OF_THREADS = frozenset(vars(threading.main_thread()))
"""What threading itself keeps in its threads, guarded by locks of its own."""


def holds_data(kind: type, name: str) -> bool:
    """Whether an attribute of the class's instances is a value: no method, no property, nothing of Python's own."""
    if name.startswith("__") and name.endswith("__"):
        return False
    if name in _OF_THREADS and threading.Thread in mro(kind):
        return False
    for base in mro(kind):
        space = namespace(base)
        if name in space:
            found = space[name]
            if type(found) is MemberDescriptorType:
                return True
            if type(found) is FunctionType or type(found) is property:
                return False
            spaces = [namespace(each) for each in mro(type(found))]
            if not any("__get__" in each for each in spaces):
                return True  # a default
            return any("__set__" in each for each in spaces) and not isinstance(found, property)
    return True
