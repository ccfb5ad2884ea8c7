"""Classes, looked at past whatever their metaclasses do."""

from __future__ import annotations

from collections.abc import Callable
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final

__all__ = ["Layout", "forget_layouts", "is_a", "layout", "mro", "namespace", "type_name"]

MOST_LAYOUTS: Final = 4096

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


class Layout:
    """Where a class's instances keep their attributes: `dict_of` gives their `__dict__`, `slots` the value of
    a slot."""

    __slots__ = ("dict_of", "kind", "slots")

    def __init__(self, kind: type) -> None:
        self.kind = kind  # held, so that its address stays its own
        self.dict_of: Callable[[object], Any] | None = None
        self.slots: dict[str, Callable[[object], Any]] = {}
        for base in _mro_of(kind):
            names = _namespace_of(base)
            found = names.get("__dict__")
            if self.dict_of is None and type(found) is GetSetDescriptorType:
                self.dict_of = found.__get__
            for name, descriptor in list(names.items()):
                if type(descriptor) is MemberDescriptorType:
                    self.slots.setdefault(name, descriptor.__get__)


_layouts: dict[int, Layout] = {}


def layout(kind: type) -> Layout:
    """A class's layout, found once."""
    found = _layouts.get(id(kind))
    if found is None:
        if len(_layouts) >= MOST_LAYOUTS:
            _layouts.clear()
        found = _layouts[id(kind)] = Layout(kind)
    return found


def forget_layouts() -> None:
    """Lets go of the classes that were looked at."""
    _layouts.clear()
