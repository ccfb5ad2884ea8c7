"""Bounded copies of watched objects' attributes, to see what changed without a write: containers changed in place."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from types import MemberDescriptorType
from typing import Any, Final, cast

from pyscope.probes.classes import mro, namespace
from pyscope.probes.state import values
from pyscope.probes.state.values import ABSENT, UNKNOWN, Frozen

__all__ = ["Snapshots"]

MOST_OBJECTS: Final = 10_000
MOST_ATTRIBUTES: Final = 128
_CONTAINERS = {"dict", "list", "tuple", "set", "frozenset", "deque", "bytearray"}


class _Snapshot:
    __slots__ = ("busy", "frozen", "reference")

    def __init__(self, reference: Any, frozen: dict[str, Frozen]) -> None:
        self.reference = reference
        self.frozen = frozen
        self.busy = threading.Lock()


class Snapshots:
    """One for each object, as long as it lives; of the first 10,000 objects."""

    def __init__(self) -> None:
        self._of: dict[int, _Snapshot] = {}

    def changes(self, instance: object) -> Iterator[tuple[str, Frozen, Frozen]]:
        """Compares an object with how it was at the last look: attribute, old and new. The first look gives
        nothing."""
        snapshot = self._of.get(id(instance))
        if snapshot is None:
            self._begin(instance)
            return
        if not snapshot.busy.acquire(blocking=False):  # another thread is at it, or this one is further out
            return
        try:
            before, after = snapshot.frozen, _frozen(instance)
            snapshot.frozen = after
        finally:
            snapshot.busy.release()
        if before == after:
            return
        for name in before.keys() | after.keys():
            old, new = before.get(name, ABSENT), after.get(name, ABSENT)
            if old != new and _counts(instance, name, old, new):
                yield name, old, new

    def has(self, instance: object) -> bool:
        """Whether an object has been looked at."""
        return id(instance) in self._of

    def note(self, instance: object, name: str, frozen: Frozen) -> None:
        """An attribute was written, and that has been told."""
        snapshot = self._of.get(id(instance))
        if snapshot is not None:
            after = dict(snapshot.frozen)
            if frozen in (ABSENT, UNKNOWN):
                after.pop(name, None)
            else:
                after[name] = frozen
            snapshot.frozen = after

    def _begin(self, instance: object) -> None:
        if len(self._of) >= MOST_OBJECTS:
            return
        key, of = id(instance), self._of

        def forget(reference: object) -> None:
            known = of.get(key)
            if known is not None and known.reference is reference:
                del of[key]

        try:
            reference: Any = weakref.ref(instance, forget)
        except TypeError:
            return  # without a weak reference its end would not be noticed
        of[key] = _Snapshot(reference, _frozen(instance))

    def keep(self, instance: object) -> None:
        """The first look at a declared object, which may be one without weak references."""
        if id(instance) not in self._of:
            self._begin(instance)
        if id(instance) not in self._of and len(self._of) < MOST_OBJECTS:
            self._of[id(instance)] = _Snapshot(lambda: instance, _frozen(instance))

    def clear(self) -> None:
        """Forgets all."""
        self._of = {}


def _frozen(instance: object) -> dict[str, Frozen]:
    if issubclass(type(instance), type):
        found = values.class_attributes(cast(type, instance))
    elif values.is_bare_container(instance):
        return {"": values.freeze(instance)}
    else:
        found = values.attributes(instance)
    frozen: dict[str, Frozen] = {}
    for name, value in found.items():
        if type(name) is str and not values.is_bookkeeping(name):
            frozen[name] = values.freeze(value)
            if len(frozen) == MOST_ATTRIBUTES:
                break
    return frozen


def _counts(instance: object, name: str, old: Frozen, new: Frozen) -> bool:
    """What a descriptor keeps in the object's dict (a loaded or expired column) is its own affair, but for
    containers."""
    if old[0] in _CONTAINERS and new[0] in _CONTAINERS:
        return True
    for kind in mro(type(instance)):
        found = namespace(kind).get(name)
        if found is not None:
            return not values.is_data_descriptor(type(found)) or type(found) is MemberDescriptorType
    return True
