"""What is watched: classes with all their instances, and single objects. Keyed by identity, so that no
`__hash__` runs."""

from __future__ import annotations

import weakref
from typing import Any

from pyscope.probes.classes import mro

__all__ = ["Watched"]


class Watched:
    """The declared classes and objects.

    A single object that cannot be referred to weakly is kept alive until it is no longer watched.
    """

    def __init__(self) -> None:
        self._classes: dict[int, type] = {}
        self._objects: dict[int, Any] = {}  # id: weak reference, or a function that returns the object
        self._answers: dict[int, tuple[type, bool]] = {}

    def add_class(self, kind: type) -> None:
        """From now on every instance of `kind` counts."""
        self._classes[id(kind)] = kind
        self._answers = {}

    def add_object(self, instance: object) -> None:
        """From now on `instance` counts."""
        key = id(instance)
        objects = self._objects

        def forget(reference: object) -> None:
            if objects.get(key) is reference:
                del objects[key]

        try:
            objects[key] = weakref.ref(instance, forget)
        except TypeError:
            objects[key] = lambda: instance

    def __contains__(self, instance: object) -> bool:
        if id(instance) in self._objects:
            return True
        kind = type(instance)
        answer = self._answers.get(id(kind))
        if answer is None:
            answer = kind, any(id(base) in self._classes for base in mro(kind))
            self._answers[id(kind)] = answer
        return answer[1]

    def classes(self) -> list[type]:
        """The declared classes."""
        return list(self._classes.values())

    def objects(self) -> list[object]:
        """The declared single objects that still live."""
        living = (reference() for reference in list(self._objects.values()))
        return [instance for instance in living if instance is not None]
