"""Which element of a container is meant: a salted hash of its key, without running the program's code."""

from __future__ import annotations

import inspect
import os
import sys
from types import FrameType
from typing import Any

from pyscope.probes.accesses.sites import KeySource
from pyscope.probes.state.values import mro, namespace

__all__ = ["UNKNOWN_KEY", "constant_key", "key_of"]

UNKNOWN_KEY = -1
"""One element, but which one is not known."""

_SIMPLE = frozenset(map(id, (str, int, bool, bytes, float, type(None))))
_SNAPSHOTS = sys.version_info < (3, 13)  # a frame's f_locals is a copy that the frame keeps
_salt = os.urandom(8)
_absent = object()


def constant_key(source: KeySource | None) -> KeySource | int | None:
    """The number of a key that stands in the code; another source as it is."""
    return _number(source[1]) if source is not None and source[0] == "constant" else source


def key_of(source: Any, frame: FrameType) -> int:
    """The number of a key; UNKNOWN_KEY where it cannot be told. 0 is never returned."""
    if source is None:
        return UNKNOWN_KEY
    return _number(_value(source, frame))


def _value(source: KeySource, frame: FrameType) -> Any:
    if source[0] == "constant":
        return source[1]
    if source[0] == "variable":
        return _variable(source[1], frame)
    base = _value(source[1], frame)
    if base is _absent:
        return _absent
    kind = type(base)
    try:
        own = object.__getattribute__(base, "__dict__")
    except AttributeError:
        return _absent
    for each in mro(kind):
        if source[2] in namespace(each) and hasattr(type(namespace(each)[source[2]]), "__set__"):
            return _absent  # a property or the like
    return own.get(source[2], _absent) if type(own) is dict else _absent


def _variable(name: str, frame: FrameType) -> Any:
    values = frame.f_locals
    found = values.get(name, _absent)
    if _SNAPSHOTS and frame.f_code.co_flags & inspect.CO_OPTIMIZED and sys.getrefcount(values) <= 3:
        values.clear()  # a copy that would keep what it holds alive; nobody else has it
    return found


def _number(value: Any) -> int:
    kind = type(value)
    if id(kind) in _SIMPLE:
        pass
    elif kind is tuple:
        parts = tuple(_number(part) for part in value)
        if UNKNOWN_KEY in parts:
            return UNKNOWN_KEY
        value = parts
    elif value is _absent or not _by_identity(kind):
        return UNKNOWN_KEY
    else:
        value = id(value)
    return hash((_salt, value)) | 1 << 40  # neither 0 nor -1


def _by_identity(kind: type) -> bool:
    """Whether equal means the same object: the class says nothing of its own about equality."""
    for name in ("__eq__", "__hash__"):
        for base in mro(kind):
            if name in namespace(base):
                if base is not object:
                    return False
                break
    return True
