"""Attributes of other people's classes and modules, replaced for a while and put back exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Patches"]

_ABSENT = object()


class Patches:
    """Replaced attributes. `on` is true until `undo`: a replacement that somebody kept does nothing afterwards."""

    def __init__(self) -> None:
        self.on = True
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> bool:
        """Puts `make(original)` in the place of `owner.name`. False where the owner has no such attribute."""
        original = getattr(owner, name, _ABSENT)
        if original is _ABSENT:
            return False
        own = vars(owner).get(name, _ABSENT)
        replacement = make(original)
        setattr(owner, name, replacement)
        self._replaced.append((owner, name, own, replacement))
        return True

    def undo(self) -> None:
        """Puts back what was there, last first. What somebody else has replaced since stays theirs."""
        self.on = False
        while self._replaced:
            owner, name, own, replacement = self._replaced.pop()
            if vars(owner).get(name) is not replacement:
                _bury(replacement, own)
                continue
            own = _unearth(own)
            if own is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


_buried: dict[int, tuple[Any, Any]] = {}  # address of what is dead: that, and what it had replaced


def _bury(ours: Any, found: Any) -> None:
    """`ours` is over, but somebody has replaced it since: who takes that away is to put back `found`, not `ours`."""
    _buried[id(ours)] = ours, found


def _unearth(found: Any) -> Any:
    """What to put back: `found`, or what lies below it if it is over by now."""
    while id(found) in _buried:
        _, found = _buried.pop(id(found))
    return found
