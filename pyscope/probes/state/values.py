"""Looking at values without running the program's code: bounded copies, comparison, description.

Exact built-in scalars and containers are looked into. Of any other object only its type's name and its identity are
used: `__eq__`, `__hash__`, `__repr__`, `__getattr__` and properties never run.
"""

from __future__ import annotations

import enum
import functools
import itertools
from collections import deque
from typing import Any, Final

from pyscope.events.state import ValueKind
from pyscope.probes.classes import layout, mro, namespace, type_name

__all__ = [
    "ABSENT",
    "UNKNOWN",
    "Frozen",
    "attributes",
    "class_attributes",
    "cut",
    "freeze",
    "hides",
    "is_bare_container",
    "is_bookkeeping",
    "is_data_descriptor",
    "mro",
    "namespace",
    "own_dict",
    "read",
    "tell",
    "type_name",
]

MOST_ITEMS: Final = 64  # of a container; of a longer one the first half and the last half
MOST_TEXT: Final = 200  # characters of a description
MOST_DEPTH: Final = 3
HIDDEN: Final = ("passw", "secret", "token", "credential", "api_key", "apikey", "authorization", "cookie")

Frozen = tuple[Any, ...]
"""A bounded copy of a value: a tuple of a tag and of exact str, int and such, safe to compare."""

ABSENT: Final[Frozen] = ("absent",)
UNKNOWN: Final[Frozen] = ("unknown",)

# By identity: comparing or hashing a class may run its metaclass's code.
_SCALARS = frozenset(map(id, (str, int, bool, float, type(None), bytes, complex)))
_CONTAINERS = frozenset(map(id, (list, tuple, deque, set, frozenset)))


@functools.lru_cache(1024)
def hides(name: str) -> bool:
    """Whether an attribute's name says that its value is a secret."""
    lowered = name.lower()
    return any(word in lowered for word in HIDDEN)


def freeze(value: Any, depth: int = 0) -> Frozen:
    """A bounded copy. Raises RuntimeError when another thread changes the size of a container meanwhile."""
    if value is ABSENT or value is UNKNOWN:
        return value
    kind = type(value)
    if id(kind) in _SCALARS:
        if (kind is str or kind is bytes) and len(value) > MOST_TEXT:
            return (type_name(kind), value[: MOST_TEXT + 1], len(value), hash(value))
        return (type_name(kind), value)
    if kind is dict:
        if depth == MOST_DEPTH:
            return ("dict", len(value))
        items = _ends(value.items(), len(value))
        pairs = [(freeze(key, MOST_DEPTH), freeze(item, depth + 1)) for key, item in items]
        return ("dict", len(value), tuple(pairs))
    if id(kind) in _CONTAINERS:
        if depth == MOST_DEPTH:
            return (type_name(kind), len(value))
        items = [freeze(item, depth + 1) for item in _ends(value, len(value))]
        return (type_name(kind), len(value), tuple(items))
    if kind is bytearray:
        return ("bytearray", bytes(value[: MOST_TEXT + 1]), len(value))
    if issubclass(type(kind), enum.EnumMeta):
        word = object.__getattribute__(value, "__dict__").get("_value_")
        if id(type(word)) in _SCALARS:
            name = object.__getattribute__(value, "__dict__").get("_name_")
            return ("enum", type_name(kind), name if type(name) is str else "", word)
    return ("object", type_name(kind), id(value))


def _ends(values: Any, length: int) -> Any:
    if length <= MOST_ITEMS:
        return list(values)
    half = MOST_ITEMS // 2
    if type(values) is list or type(values) is tuple:
        return [*values[:half], *values[-half:]]
    first = list(itertools.islice(values, half))
    try:
        last = list(itertools.islice(reversed(values), half))
    except TypeError:  # a set has no end
        last = []
    return first + last


def tell(frozen: Frozen) -> tuple[ValueKind, str]:
    """A copy as the two fields of an event."""
    tag = frozen[0]
    if tag == "absent":
        return ValueKind.ABSENT, ""
    if tag == "unknown":
        return ValueKind.UNKNOWN, ""
    if tag == "str":
        return ValueKind.TEXT, cut(frozen[1])
    if tag in ("int", "bool", "float", "NoneType") and not _is_long(frozen[1]):
        return ValueKind.LITERAL, repr(frozen[1])
    if tag == "enum":
        word = frozen[3] if type(frozen[3]) is str else frozen[2]
        return ValueKind.TEXT, cut(word)
    return ValueKind.SHOWN, cut(_described(frozen))


def _is_long(value: Any) -> bool:
    """Whether an int is too long to be written out; some refuse."""
    return type(value) is int and value.bit_length() > 600


def cut(text: str) -> str:
    """A text of `MOST_TEXT` characters at most."""
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"


def _described(frozen: Frozen) -> str:
    tag = frozen[0]
    if tag == "object":
        return f"<{frozen[1]}>"
    if tag == "enum":
        return f"{frozen[1]}.{frozen[2]}"
    if tag in ("str", "bytes", "bytearray"):
        return cut(repr(frozen[1]))
    if tag in ("int", "bool", "float", "NoneType", "complex"):
        return f"<int of {frozen[1].bit_length()} bits>" if _is_long(frozen[1]) else repr(frozen[1])
    if len(frozen) == 2:  # too deep
        return f"<{tag} of {frozen[1]}>"
    if tag == "dict":
        items = [f"{_described(key)}: {_secret_or_described(key, item)}" for key, item in _shown(frozen[2])]
    else:
        items = [_described(item) for item in _shown(frozen[2])]
    left_out = frozen[1] - len(items)
    if left_out > 0:
        items.append(f"… {left_out} more")
    opening, closing = "()" if tag == "tuple" else "{}" if tag in ("dict", "set", "frozenset") else "[]"
    inside = f"{items[0]}," if tag == "tuple" and len(items) == 1 else ", ".join(items)
    if tag in ("frozenset", "deque"):
        return f"{tag}({opening}{inside}{closing})"
    return f"{opening}{inside}{closing}" if items or tag != "set" else "set()"


def _secret_or_described(key: Frozen, value: Frozen) -> str:
    return "(hidden)" if key[0] == "str" and hides(key[1]) else _described(value)


def _shown(items: tuple[Any, ...]) -> tuple[Any, ...]:
    return items[:16]


def own_dict(instance: object) -> dict[str, Any] | None:
    """An object's `__dict__`, read past whatever its class says; None if it has none."""
    dict_of = layout(type(instance)).dict_of
    if dict_of is None:
        return None
    try:
        attributes = dict_of(instance)
    except (AttributeError, TypeError):
        return None
    return attributes if type(attributes) is dict else None


def read(instance: object, name: str) -> Any:
    """An attribute's value from the object's dict, a slot, or a class's plain default; ABSENT or UNKNOWN instead."""
    attributes = own_dict(instance)
    if attributes is not None and name in attributes:
        return attributes[name]
    slot = layout(type(instance)).slots.get(name)
    if slot is not None:
        try:
            return slot(instance)
        except AttributeError:
            return ABSENT
    for kind in mro(type(instance)):
        names = namespace(kind)
        if name in names:
            found = names[name]
            return UNKNOWN if _is_descriptor(type(found)) else found
    return ABSENT


def _is_descriptor(kind: type) -> bool:
    return any("__get__" in namespace(base) for base in mro(kind))


def is_data_descriptor(kind: type) -> bool:
    """Whether a class's instances, as class attributes, take assignments to themselves."""
    return any("__set__" in namespace(base) for base in mro(kind))


def is_bookkeeping(name: str) -> bool:
    """Whether an attribute is what SQLAlchemy or Pydantic notes of an object, and no state of its own."""
    return name.startswith("_sa_") or name == "__pydantic_fields_set__"


def is_bare_container(instance: object) -> bool:
    """Whether an object is a built-in container that can change."""
    kind = type(instance)
    return kind is dict or kind is list or kind is set or kind is deque or kind is bytearray


def attributes(instance: object) -> dict[str, Any]:
    """The attributes that an object has itself, in its dict and its slots."""
    found = dict(own_dict(instance) or {})
    for name, slot in layout(type(instance)).slots.items():
        if name not in found:
            try:
                found[name] = slot(instance)
            except AttributeError:
                pass
    return found


def class_attributes(kind: type) -> dict[str, Any]:
    """A class's own data: what is no descriptor, function or class, and has no dunder name."""
    return {
        name: value
        for name, value in list(namespace(kind).items())
        if not name.startswith("__") and not issubclass(type(value), type) and not _is_descriptor(type(value))
    }
