"""Classes, looked at past whatever their metaclasses do."""

from __future__ import annotations

from typing import Any

__all__ = ["is_a", "mro", "namespace", "type_name"]

_name_of = type.__dict__["__name__"].__get__
_mro_of = type.__dict__["__mro__"].__get__
_namespace_of = type.__dict__["__dict__"].__get__


def type_name(kind: type) -> str:
    """A class's name."""
    return str(_name_of(kind))


def namespace(kind: type) -> Any:
    """A class's own attributes, read-only."""
    return _namespace_of(kind)


def mro(kind: type) -> tuple[type, ...]:
    """A class and its bases in order of resolution."""
    found: tuple[type, ...] = _mro_of(kind)
    return found


def is_a(instance: object, kind: type) -> bool:
    """Whether an object is an instance of `kind`: no `__class__`, `__instancecheck__` or abstract class is asked."""
    return any(base is kind for base in _mro_of(type(instance)))
